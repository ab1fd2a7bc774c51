"""What the books say of one budget, key and window."""

import msgspec

from costd.model.lease import Lease


class Counter(msgspec.Struct, frozen=True, array_like=True):
    """Settled and reserved, and by cause whatever may stand past the limit.

    All in the budget's unit. `settled` and `reserved` are totals; the `reserve_` fields say which
    part of them was drawn from the protected reserve. Invariant I1, for a counter with a limit:

        settled + reserved <= limit + overrun + granted + lowered + late + unadmitted + shadow

    `limit` is the one in force when the counter was last written (-1: none), so that a cut is
    seen and goes to `lowered`. `alerted_bp` and `burn_alerted_bp` are the highest thresholds
    already alerted in this window. `lease` is what this daemon may use where the budget is the
    fleet's: its amount is the limit in force then.
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
    limit: int = -1
    alerted_bp: int = 0
    burn_alerted_bp: int = 0
    start_ns: int = 0
    changed_ns: int = 0
    lease: Lease | None = None

    @property
    def used(self) -> int:
        """Settled and reserved together."""
        return self.settled + self.reserved

    @property
    def reserve_used(self) -> int:
        """What was drawn from the protected reserve."""
        return self.reserve_settled + self.reserve_reserved

    @property
    def excused(self) -> int:
        """How far past its limit the counter may stand, all causes together."""
        return (
            self.overrun + self.granted + self.lowered + self.late + self.unadmitted + self.shadow
        )


EMPTY_COUNTER = Counter()
