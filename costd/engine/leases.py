"""What a daemon does to its own leases: take what it was granted, give back what it does not use.

How a lease bounds what is held is in `bounds`; how the coordinator sizes it in `lend`.
"""

import msgspec

from costd.model.counter import Counter
from costd.model.lease import Lease, Stand

_NOTHING = Lease()


def relent(counter: Counter, lease: Lease) -> Counter:
    """Put another lease in place of the one a counter has.

    Shape:   pure; `books.post` then follows the limit that this makes.
    Ensures: never more than was lent before or is lent now; where it is lowered, neither the whole
             nor a part of it falls below what is used, so that nobody else is promised what calls
             in flight hold.
    """
    old = counter.lease or _NOTHING
    amount = _lowered(old.amount, lease.amount, counter.used)
    reserve = _lowered(old.reserve_amount, lease.reserve_amount, counter.reserve_used)
    general_used = counter.used - counter.reserve_used
    general = min(old.amount - old.reserve_amount, general_used)
    kept = msgspec.structs.replace(
        lease, amount=amount, reserve_amount=min(reserve, amount - general)
    )
    return msgspec.structs.replace(counter, lease=kept)


def given_back(counter: Counter) -> Counter:
    """Lower a lease to what is used of it."""
    lease = counter.lease or _NOTHING
    return relent(counter, msgspec.structs.replace(lease, amount=0, reserve_amount=0))


def alone(counter: Counter) -> Counter:
    """Forget how the fleet stood on a counter of which no more is told."""
    lease = counter.lease or _NOTHING
    unknown = msgspec.structs.replace(
        lease, limit=0, reserve=0, others_used=0, others_reserve_used=0
    )
    return msgspec.structs.replace(counter, lease=unknown)


def revoked(counter: Counter) -> Counter:
    """Let nothing more be used of a lease, also of what comes free again.

    Shape:   pure; for books that may lack what was promised last: part of what they take for
             used may have been given back, and be somebody else's by now.
    """
    lease = counter.lease or _NOTHING
    dead = msgspec.structs.replace(lease, amount=0, reserve_amount=0)
    return msgspec.structs.replace(counter, lease=dead)


def _lowered(old: int, new: int, used: int) -> int:
    return new if new >= old else max(new, min(old, used))


def stand(counter: Counter) -> Stand:
    """State how this daemon stands on a counter, for the coordinator."""
    lease = counter.lease or _NOTHING
    return Stand(
        amount=lease.amount,
        reserve_amount=lease.reserve_amount,
        settled=counter.settled,
        reserved=counter.reserved,
        reserve_settled=counter.reserve_settled,
        reserve_reserved=counter.reserve_reserved,
        overrun=counter.overrun,
        granted=counter.granted,
        lowered=counter.lowered,
        late=counter.late,
        unadmitted=counter.unadmitted,
        shadow=counter.shadow,
        version=lease.version,
    )
