"""What the rules answer."""

from enum import IntEnum

import msgspec

from costd.model.price import PriceSource


class Verdict(IntEnum):
    """The answer in one word. Numbers are those of `costd.v1.Verdict`."""

    ALLOW = 1
    DEGRADE = 2
    DENY = 3


class Reason(IntEnum):
    """Why. Numbers are those of `costd.v1.Reason`; docs/reference/reasons.md explains each."""

    OK = 1
    STEP = 2
    MODEL_FORBIDDEN = 3
    BUDGET_EXHAUSTED = 4
    RATE_LIMITED = 5
    STEP_DENY = 6
    KILL_SWITCH = 7
    NO_BUDGET = 8
    LABEL_MISSING = 9
    PRICE_UNKNOWN = 10
    ESTIMATE_MISSING = 11
    CONTEXT_TOO_LONG = 12
    GRANT = 13
    SHADOW = 14
    NO_CANDIDATE = 15
    NO_LEASE = 16


class Directives(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What the caller should do to spend less; the default asks for nothing."""

    max_output_tokens: int | None = None
    max_retries: int | None = None
    compression: bool = False
    cache: bool = False
    batch: bool = False
    stop: bool = False


NO_DIRECTIVES = Directives()


class Binding(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The rule that decided; fields as in `costd.v1.Binding`."""

    rule: str
    kind: str
    key: str = ""
    limit: int | None = 0
    used: int = 0
    unit: str = ""
    window_start_ns: int = 0
    window_end_ns: int = 0
    resets_ns: int = 0


class WouldPass(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What would be admitted now: advice, not a promise."""

    tier: str
    provider: str
    model: str
    amount_nusd: int | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Verdict, one reason, and all that belongs to it; fields as in `costd.v1.Decision`."""

    verdict: Verdict
    reason: Reason
    ask_id: str
    reservation_id: bytes = b""
    tier: str = ""
    provider: str = ""
    model: str = ""
    asked_tier: str = ""
    directives: Directives = NO_DIRECTIVES
    hold_nusd: int = 0
    ceiling_nusd: int | None = None
    expires_ns: int = 0
    tightest_budget: str = ""
    tightest_key: str = ""
    utilisation_bp: int = 0
    threshold_bp: int = 0
    binding: Binding | None = None
    would_pass: tuple[WouldPass, ...] = ()
    upgrade_text: str = ""
    upgrade_url: str = ""
    grant_refusal: int = 0
    grant_id: str = ""
    shadow_verdict: int = 0
    shadow_reason: int = 0
    policy_revision: str = ""
    price_id: str = ""
    price: PriceSource | None = None
    message: str = ""

    def __bool__(self) -> bool:
        """Refuse: a denied decision is not false, it is denied."""
        raise TypeError("a Decision has no truth value; compare its verdict")
