"""What an override grant says, before anyone believes it."""

import msgspec

from costd.model.grant import Grant
from costd.model.labels import (
    LABEL_COUNT_MAX,
    LABEL_KEY_LENGTH_MAX,
    LABEL_VALUE_LENGTH_MAX,
    Match,
    Selector,
)
from costd.model.money import AMOUNT_MAX
from costd.model.time import NS_PER_S

TEXT_LENGTH_MAX = 512
NAME_COUNT_MAX = 64
TIME_S_MAX = AMOUNT_MAX // NS_PER_S
USES_COUNT_MAX = 1_000_000
ANY_VALUE = "*"


class GrantClaims(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The payload of a grant; every claim is required and no other is allowed.

    Unknown claims are refused because a restriction that a daemon does not understand must not
    be skipped. Times are whole seconds since the Unix epoch, as RFC 7519 has them.
    """

    jti: str
    """The grant's id; its uses are counted under it."""
    iss: str
    """Who signed it."""
    sub: str
    """For whom: a person, an agent, a ticket."""
    aud: tuple[str, ...]
    """Names of the daemons that may redeem it offline; the bound on double spending is
    amount × audience, so there is no wildcard. All others of their fleet, where none is named all
    of a fleet, need a lease on it."""
    nbf: int
    exp: int
    iat: int
    reason: str
    scope: dict[str, str | tuple[str, ...]]
    """Labels (or provider, model, tier) an ask must carry: one value, several, or `*` for any."""
    task_classes: tuple[str, ...]
    amount_nusd: int
    uses: int
    passes_kill: bool

    def problem(self) -> str | None:
        """Say what is wrong with these claims, None if nothing is."""
        return self._text_problem() or self._number_problem() or self._scope_problem()

    def grant(self, *, any_class: bool, is_offline: bool) -> Grant:
        """Turn checked claims into the value the rules read."""
        return Grant(
            grant_id=self.jti,
            issuer=self.iss,
            subject=self.sub,
            reason=self.reason,
            scope=Selector(tuple(_match(key, self.scope[key]) for key in sorted(self.scope))),
            task_classes=frozenset(self.task_classes),
            amount_nusd=self.amount_nusd,
            uses_max_count=self.uses,
            expires_ns=self.exp * NS_PER_S,
            passes_kill=self.passes_kill,
            any_class=any_class,
            is_offline=is_offline,
        )

    def _text_problem(self) -> str | None:
        for name in ("jti", "iss", "sub", "reason"):
            if not _sound(getattr(self, name), TEXT_LENGTH_MAX):
                return f"{name} must be 1 to {TEXT_LENGTH_MAX} printable characters"
        for name, least in (("aud", 0), ("task_classes", 1)):
            names: tuple[str, ...] = getattr(self, name)
            if not least <= len(names) <= NAME_COUNT_MAX:
                return f"{name} must name {least} to {NAME_COUNT_MAX}"
            if not all(_sound(each, TEXT_LENGTH_MAX) for each in names):
                return f"{name}: each must be 1 to {TEXT_LENGTH_MAX} printable characters"
        return None

    def _number_problem(self) -> str | None:
        for name, least, most in (
            ("nbf", 0, TIME_S_MAX),
            ("exp", 0, TIME_S_MAX),
            ("iat", 0, TIME_S_MAX),
            ("amount_nusd", 1, AMOUNT_MAX),
            ("uses", 1, USES_COUNT_MAX),
        ):
            if not least <= getattr(self, name) <= most:
                return f"{name} is {getattr(self, name)}; it must lie in {least} … {most}"
        if self.exp <= self.nbf:
            return f"exp {self.exp} is not after nbf {self.nbf}"
        return None

    def _scope_problem(self) -> str | None:
        if len(self.scope) > LABEL_COUNT_MAX:
            return f"scope has {len(self.scope)} entries; at most {LABEL_COUNT_MAX} are allowed"
        for key, value in self.scope.items():
            if not _sound(key, LABEL_KEY_LENGTH_MAX):
                return f"scope: key {key[:80]!r} must be 1 to {LABEL_KEY_LENGTH_MAX} characters"
            values = (value,) if isinstance(value, str) else value
            if not values or not all(_sound(each, LABEL_VALUE_LENGTH_MAX) for each in values):
                return f"scope[{key}] must name at least one printable value"
        return None


def _match(key: str, value: str | tuple[str, ...]) -> Match:
    if value == ANY_VALUE:
        return Match(key)
    return Match(key, frozenset((value,) if isinstance(value, str) else value))


def _sound(text: str, length_max: int) -> bool:
    return 0 < len(text) <= length_max and text.isprintable()
