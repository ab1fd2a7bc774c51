"""What the daemon answers, as frozen values over the wire's messages."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from costd_client.pb import admission_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence


class Verdict(IntEnum):
    """The answer in one word; numbers are those of `costd.v1.Verdict`.

    UNKNOWN stands for a verdict of a newer daemon, by which no call is allowed.
    """

    UNKNOWN = 0
    ALLOW = 1
    DEGRADE = 2
    DENY = 3

    @classmethod
    def _missing_(cls, value: object) -> Verdict | None:
        return cls.UNKNOWN if isinstance(value, int) else None


class Reason(IntEnum):
    """Why; numbers are those of `costd.v1.Reason`.

    UNKNOWN stands for a reason of a newer daemon, and for calls that nobody decided on.
    """

    UNKNOWN = 0
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

    @classmethod
    def _missing_(cls, value: object) -> Reason | None:
        return cls.UNKNOWN if isinstance(value, int) else None


class Outcome(IntEnum):
    """How a call ended; numbers are those of `costd.v1.Outcome`."""

    UNSPECIFIED = 0
    OK = 1
    ERROR = 2
    CANCELLED = 3
    TIMEOUT = 4


class Source(StrEnum):
    """Where a decision was made."""

    DAEMON = "daemon"
    ALLOWANCE = "allowance"
    FAIL_OPEN = "fail_open"
    FAIL_SAFE = "fail_safe"


class Decision:
    """Verdict, one reason, and all that belongs to it.

    Shape:   immutable view of `wire` (`costd.v1.Decision`) and of the ask it answers. Decisions
             made in the process (`costd_client.drawn`) share one message and make the rest of
             theirs when somebody looks at it.
    """

    __slots__ = ("_ask", "_ask_id", "_shared", "_source")

    def __init__(
        self, wire: pb.Decision, *, ask: pb.AdmitRequest, ask_id: str, source: str
    ) -> None:
        self._shared = wire
        self._ask = ask
        self._ask_id = ask_id
        self._source = source

    @property
    def shared(self) -> pb.Decision:
        """The message, but for what may differ between decisions that share one."""
        return self._shared

    @property
    def wire(self) -> pb.Decision:
        """The whole message."""
        return self._shared

    @property
    def ask(self) -> pb.AdmitRequest:
        """What was asked."""
        return self._ask

    @property
    def ask_id(self) -> str:
        """The ask's id."""
        return self._ask_id

    @property
    def source(self) -> str:
        """Where the decision was made; one of `Source`."""
        return self._source

    def __bool__(self) -> bool:
        raise TypeError("a Decision has no truth value; look at .allowed or .verdict")

    def __reduce__(self) -> tuple[object, ...]:
        parts = (self.wire.SerializeToString(), self.ask.SerializeToString())
        return _decision, (*parts, self.ask_id, self.source)

    def __repr__(self) -> str:
        return (
            f"<Decision {self.verdict.name} {self.reason.name} model={self.model!r} "
            f"hold_nusd={self.hold_nusd} source={self.source} ask_id={self.ask_id}>"
        )

    @property
    def allowed(self) -> bool:
        """Whether the call may be made, as asked or degraded."""
        return self.shared.verdict in (pb.VERDICT_ALLOW, pb.VERDICT_DEGRADE)

    @property
    def decided(self) -> bool:
        """Whether costd decided; False for calls that a fail mode let go."""
        return self.source not in (Source.FAIL_OPEN, Source.FAIL_SAFE)

    @property
    def verdict(self) -> Verdict:
        """Allow, degrade or deny."""
        return Verdict(self.shared.verdict)

    @property
    def reason(self) -> Reason:
        """Why."""
        return Reason(self.shared.reason)

    @property
    def message(self) -> str:
        """One sentence for people."""
        return self.shared.message

    @property
    def reservation_id(self) -> str:
        """Under what the money is held; empty if none is held at the daemon."""
        return self.shared.reservation_id

    @property
    def provider(self) -> str:
        """Whose model to call."""
        return self.shared.provider or self.ask.provider

    @property
    def model(self) -> str:
        """Which model to call."""
        return self.shared.model or self.ask.model

    @property
    def tier(self) -> str:
        """The tier of that model."""
        return self.shared.tier

    @property
    def hold_nusd(self) -> int:
        """What is held until the call is settled."""
        return self.wire.hold_nusd

    @property
    def expires_ns(self) -> int:
        """When the hold expires, in Unix time."""
        return self.wire.expires_ns

    @property
    def directives(self) -> pb.Directives:
        """What to do cheaper."""
        return self.shared.directives

    @property
    def max_output_tokens(self) -> int | None:
        """Write at most this many tokens: what was asked for, or less; None if nobody said."""
        said = [
            source.max_output_tokens
            for source in (self.ask, self.shared.directives)
            if source.HasField("max_output_tokens")
        ]
        return min(said, default=None)

    @property
    def max_retries(self) -> int | None:
        """Retry at most this often; None if nothing was said."""
        directives = self.shared.directives
        return directives.max_retries if directives.HasField("max_retries") else None

    @property
    def binding(self) -> pb.Binding | None:
        """The rule that refused or degraded."""
        return self.shared.binding if self.shared.HasField("binding") else None

    @property
    def resets_ns(self) -> int:
        """When the same ask could pass again; 0 if time alone will not help."""
        return self.shared.binding.resets_ns

    @property
    def would_pass(self) -> Sequence[pb.WouldPass]:
        """What would be admitted now."""
        return self.shared.would_pass

    @property
    def upgrade_text(self) -> str:
        """What the policy tells somebody who hits this limit."""
        return self.shared.upgrade_text

    @property
    def upgrade_url(self) -> str:
        """Where it sends them."""
        return self.shared.upgrade_url

    @property
    def utilisation_bp(self) -> int:
        """How full the tightest budget is, in basis points."""
        return self.shared.utilisation_bp


class Settlement:
    """How a call's money was closed; `queued` if the daemon has yet to hear of it."""

    __slots__ = ("queued", "wire")

    def __init__(self, wire: pb.Settlement, *, queued: bool = False) -> None:
        self.wire = wire
        self.queued = queued

    def __repr__(self) -> str:
        number = self.wire.state
        known = pb.ReservationState.values()
        state = pb.ReservationState.Name(number) if number in known else f"state {number}"
        return f"<Settlement {'queued' if self.queued else state} cost_nusd={self.wire.cost_nusd}>"

    @property
    def cost_nusd(self) -> int | None:
        """What was charged; None while queued."""
        return None if self.queued else self.wire.cost_nusd

    @property
    def overrun_nusd(self) -> int:
        """How much that exceeded the hold."""
        return self.wire.overrun_nusd


def _decision(wire: bytes, ask: bytes, ask_id: str, source: str) -> Decision:
    """Make a decision again on the other side of a process boundary."""
    return Decision(
        pb.Decision.FromString(wire),
        ask=pb.AdmitRequest.FromString(ask),
        ask_id=ask_id,
        source=source,
    )
