"""Money set aside for one scope of one client process, which draws it down by itself."""

from enum import IntEnum

import msgspec


class Sums(msgspec.Struct, frozen=True, array_like=True):
    """How much of an allowance, in each of the units that rules count."""

    calls_count: int = 0
    amount_nusd: int = 0
    tokens_count: int = 0

    def of(self, unit: str) -> int:
        """Return the part that a budget of this unit counts."""
        if unit == "nusd":
            return self.amount_nusd
        return self.tokens_count if unit == "tokens" else self.calls_count

    def plus(self, more: "Sums") -> "Sums":
        """Add."""
        return Sums(
            self.calls_count + more.calls_count,
            self.amount_nusd + more.amount_nusd,
            self.tokens_count + more.tokens_count,
        )

    def less(self, gone: "Sums") -> "Sums":
        """Subtract, never below nothing."""
        return Sums(
            max(0, self.calls_count - gone.calls_count),
            max(0, self.amount_nusd - gone.amount_nusd),
            max(0, self.tokens_count - gone.tokens_count),
        )

    def within(self, other: "Sums") -> bool:
        """Tell whether none of the sums is larger than the other's."""
        return (
            self.calls_count <= other.calls_count
            and self.amount_nusd <= other.amount_nusd
            and self.tokens_count <= other.tokens_count
        )


NOTHING = Sums()


class AllowanceState(IntEnum):
    """Open ones may be drawn; draining ones only wait for the end of calls in flight.

    Of expired ones the rest was charged at its hold; settlements that still come replace that.
    """

    OPEN = 1
    DRAINING = 2
    EXPIRED = 3


class Allowance(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What the daemon knows of one allowance, beside the reservation of the same id.

    `drawn` is what the client is known to have drawn, `settled` the holds of draws that ended.
    While it is open the reservation holds `granted` less `settled`; while it drains, `drawn` less
    `settled`, or where nobody can know what was drawn, all that was granted.
    """

    allowance_id: bytes
    session_id: str
    caller: str
    granted: Sums
    expires_steady_ns: int
    """Nothing may be drawn any more after this."""
    call_ttl_ns: int
    serial: int
    slot: int = -1
    """Where in the client's page it is counted; -1 without pages."""
    state: AllowanceState = AllowanceState.OPEN
    drawn: Sums = NOTHING
    settled: Sums = NOTHING
    spent_nusd: int = 0
    """What its settled calls cost."""
    presumed: bool = False
    """Whether all of it is presumed drawn, because nobody can know."""


class Session(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One client process, as far as it must be remembered over a restart of the daemon."""

    session_id: str
    caller: str
    report_sequence: int = 0
    """The last report that was booked."""
    page: str = ""
    """The file name of its page; empty without pages."""
    seen_steady_ns: int = 0
