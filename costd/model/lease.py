"""Shares of a fleet's budget: what one daemon may use of it, and how it stands."""

import msgspec


class Lease(msgspec.Struct, frozen=True, array_like=True):
    """What this daemon may use of one counter of a fleet budget; kept inside the counter.

    Units:   the budget's. `amount` bounds settled and reserved together in this window, of which
             `reserve_amount` is of the protected reserve. Spendable while the daemon's tenure
             lasts. The other fields say how the whole fleet stood when the coordinator last told.
    """

    amount: int = 0
    reserve_amount: int = 0
    limit: int = 0
    """The budget's limit in force, top-ups included; 0 where nobody tells of it."""
    reserve: int = 0
    others_used: int = 0
    others_reserve_used: int = 0
    version: int = 0
    """Of the grant that it was made by; a stand that gives back says which one it has seen."""


class Stand(msgspec.Struct, frozen=True, array_like=True):
    """How one daemon stands on one counter, as it told the coordinator; absolute figures.

    `amount` is what it may use in all; the other fields are those of `Counter`.
    """

    amount: int = 0
    reserve_amount: int = 0
    settled: int = 0
    reserved: int = 0
    reserve_settled: int = 0
    reserve_reserved: int = 0
    overrun: int = 0
    granted: int = 0
    lowered: int = 0
    late: int = 0
    unadmitted: int = 0
    shadow: int = 0
    version: int = 0
    """Of the newest grant that it has seen; while another is on its way, `amount` says nothing."""

    @property
    def used(self) -> int:
        """Settled and reserved together."""
        return self.settled + self.reserved

    @property
    def reserve_used(self) -> int:
        """What of that was drawn from the protected reserve."""
        return self.reserve_settled + self.reserve_reserved

    @property
    def taken(self) -> int:
        """What it takes from the fleet: what it may use, or what it used where that is more."""
        return max(self.amount, self.used)

    @property
    def reserve_taken(self) -> int:
        """What it takes of the protected reserve."""
        return max(self.reserve_amount, self.reserve_used)


NO_STAND = Stand()


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """What the coordinator knows of one counter of the fleet: sums over its daemons' stands.

    Units:   the budget's. Invariant F1, for a limit in force:

        taken <= limit + overrun + granted + lowered + late + unadmitted + shadow

    `taken` is what daemons may use, or used where that is more: money that nobody else is
    promised. `limit` is the one in force when the pool was last written (-1: none), so that a cut
    is seen and goes to `lowered`. `alerted_bp` and `burn_alerted_bp` are as in `Counter`.
    """

    settled: int = 0
    reserved: int = 0
    reserve_settled: int = 0
    reserve_reserved: int = 0
    overrun: int = 0
    granted: int = 0
    lowered: int = 0
    late: int = 0
    unadmitted: int = 0
    shadow: int = 0
    taken: int = 0
    reserve_taken: int = 0
    daemons_count: int = 0
    """Daemons that hold, or held, a part of it in this window, and were heard of lately."""
    limit: int = -1
    topped_up: int = 0
    """What operators added to the policy's limit for this window."""
    alerted_bp: int = 0
    burn_alerted_bp: int = 0
    start_ns: int = 0
    changed_ns: int = 0

    @property
    def used(self) -> int:
        """Settled and reserved together, by all daemons."""
        return self.settled + self.reserved

    @property
    def reserve_used(self) -> int:
        """What of that was drawn from the protected reserve."""
        return self.reserve_settled + self.reserve_reserved

    @property
    def excused(self) -> int:
        """How far past its limit it may stand, all causes together."""
        return (
            self.overrun + self.granted + self.lowered + self.late + self.unadmitted + self.shadow
        )


EMPTY_POOL = Pool()


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """What a daemon needs on one counter: to be able to use `amount_min` in all, or nothing."""

    stand: Stand
    amount_min: int
    amount_wanted: int
    critical: bool = False
    """Whether what `amount_min` lacks may come from the protected reserve."""


class Shortage(msgspec.Struct, frozen=True):
    """A counter whose lease is too small for what is asked of it.

    `amount_min` is what the lease must reach in all, what was used so far included.
    """

    key: bytes
    amount_min: int
    critical: bool = False
    """Whether what is lacking may come from the protected reserve; of a fleet's rate, whether not
    one such call passes without it."""


class Wanting(msgspec.Struct, frozen=True):
    """What the coordinator must lend before an ask can be decided: all of it or nothing."""

    shortages: tuple[Shortage, ...]
    """In order of their keys, one for each."""
    override_grant: str = ""
    """The token that came with the ask: without it nothing is lent of a grant."""


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """How the whole fleet stands on one counter, as seen by one daemon."""

    limit: int
    reserve: int
    others_used: int
    others_reserve_used: int
