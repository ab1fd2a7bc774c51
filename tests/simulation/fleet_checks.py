"""What must hold of a fleet after every step, and at the end: docs/INVARIANTS.md, F1 to F6."""

from collections import Counter

from fleet_policies import compiled
from fleet_truth import name_of

from costd.daemon.fleet.remembered import Remembered
from costd.engine import keys
from costd.engine.changes import Family
from costd.model.lease import NO_STAND, Stand

_SUMS = [name for name in Stand.__struct_fields__ if name not in {"amount", "reserve_amount"}]
_SUMS = [name for name in _SUMS if name not in {"lowered", "version"}]


def pool_problems(database, counter_keys, daemon_ids):
    """F1: nothing is promised twice; and each sum is the sum of its parts."""
    found = []
    for key in sorted(counter_keys):
        pool, parts = database.pools[key], Counter()
        for daemon_id in daemon_ids:
            share = database.shares.get((key, daemon_id))
            if share is None:
                continue
            for name in _SUMS:
                parts[name] += getattr(share.stand, name)
            parts["late"] += share.late
            parts["taken"] += share.stand.taken + share.lost
            parts["reserve_taken"] += share.stand.reserve_taken + share.reserve_lost
            if share.lost < 0 or share.late < 0:
                found.append(f"{daemon_id} lost {share.lost} of {name_of(key)}, {share.late} late")
        if pool.limit >= 0 and pool.taken > pool.limit + pool.excused:
            found.append(
                f"F1: {pool.taken} taken of {name_of(key)}, limit {pool.limit}, "
                f"excused {pool.excused}"
            )
        found += [
            f"{name} of {name_of(key)} is {getattr(pool, name)}, its parts {parts[name]}"
            for name in (*_SUMS, "taken", "reserve_taken")
            if parts[name] != getattr(pool, name)
        ]
    return found


def lease_problems(database, host, *, is_unheard):
    """F3: what a daemon may use is at most what the coordinator has down for it."""
    if is_unheard:
        return []  # what the database has forgotten is down again once its daemon has enrolled
    found, known = [], Remembered.read(host.disk)
    boot_id = known.boot_id if known is not None else ""
    if host.member is None and boot_id != host.boot_id:
        return []  # nothing of it may be spent, which the next start sees to
    for key, _ in host.disk.scan(Family.LEASES):
        counter = host.disk.get(Family.COUNTERS, key)
        lease = counter.lease if counter is not None else None
        share = database.shares.get((key, host.name))
        stand = share.stand if share is not None else NO_STAND
        if lease is None or lease.amount <= stand.amount:
            continue
        if share is None and database.has_forgotten(key, host.name):
            continue
        if share is not None and share.is_reclaimed:
            continue  # its tenure is over; the next Admittance tells it
        found.append(
            f"F3: {host.name} may use {lease.amount} of {name_of(key)}, "
            f"the coordinator has {stand.amount} down"
        )
    return found


class UsageCheck:
    """F5, step by step: each daemon's events are stored in order, each once."""

    def __init__(self):
        self._read = 0
        self._last = Counter()

    def begin_again(self, database):
        """Take up what a database has that was set back."""
        self._read, self._last = 0, Counter()
        self.problems(database)

    def problems(self, database):
        found = []
        for daemon_id, event in database.usage[self._read :]:
            if event.sequence <= self._last[daemon_id]:
                found.append(f"F5: usage event {event.sequence} of {daemon_id} is stored twice")
            self._last[daemon_id] = event.sequence
        self._read = len(database.usage)
        return found


def window_problems(world, granted):
    """A lease is granted only of a window that is in force, or nearly, or has calls in flight."""
    found, span, true_ns = [], world.span, world.database.began_ns
    slack_ns = span.skew_ns_max
    for key, daemon_id in granted:
        rule = compiled(world.texts()[0]).budgets.get(keys.tag_of(key))
        end_ns = keys.split_counter_key(key)[0]
        if (key, daemon_id) in world.database.wanted_in_flight:
            continue  # calls in flight there may be extended, whenever that is
        moments = range(
            true_ns - span.skew_ns_max - slack_ns,
            true_ns + span.early_ns + slack_ns + 1,
            span.skew_ns_max,
        )
        if rule is not None and all(rule.window(at_ns)[1] != end_ns for at_ns in moments):
            found.append(f"{daemon_id} was granted some of {name_of(key)}, far from its window")
    return found


def end_problems(world):
    """F5 and F6: everybody agrees to the nano-dollar."""
    found, database = [], world.database
    for host in world.hosts:
        ledger = host.member.ledger
        for key, counter in host.disk.scan(Family.COUNTERS):
            rule = ledger.rules.budgets.get(keys.tag_of(key))
            if rule is None or not rule.is_shared:
                continue
            share = database.shares.get((key, host.name))
            if share is None and key in database.over:
                continue
            told = share.stand if share is not None else NO_STAND
            mine = ledger.stand(key)
            if not same(told, mine):
                found.append(f"F6: {host.name} stands at {mine} of {name_of(key)}, told {told}")
            if counter.reserved:
                found.append(f"{host.name} holds {counter.reserved} of {name_of(key)} for ever")
        ended = [
            key
            for key, _ in host.disk.scan(Family.LEASES)
            if keys.split_counter_key(key)[0] < world.true_ns - 60 * 10**9
        ]
        if ended:
            found.append(f"{host.name} accounts for {len(ended)} windows that ended long ago")
        found += _usage_differences(world, host)
        if not host.has_lost:
            found += world.truth.differences(host)
    found += _lost_differences(world)
    return found


def same(told, mine):
    """Tell whether two stands agree on all that matters once nothing is under way.

    A daemon that has nothing left of a counter forgets its lease, whose version and cut go with it.
    """
    names = [*_SUMS, "taken", "reserve_taken"]
    return all(getattr(told, name) == getattr(mine, name) for name in names)


def _usage_differences(world, host):
    """Whatever a daemon's log says is stored once, and nothing else."""
    log = {
        int.from_bytes(key, "big"): (event.reservation_id.hex(), event.closed_as, event.cost_nusd)
        for key, event in host.disk.scan(Family.USAGE)
    }
    stored = {}
    for daemon_id, event in world.database.usage:
        if daemon_id == host.name:
            stored[event.sequence] = (event.reservation_id, event.closed_as, event.cost_nusd)
    missing = [sequence for sequence, event in log.items() if stored.get(sequence) != event]
    found = []
    if missing:
        found.append(f"F5: usage events {missing} of {host.name} were never stored")
    if host.has_lost:
        return found
    if stored.keys() != log.keys():
        found.append(f"F5: stored usage of {host.name} is more than its log")
    settled = Counter(
        event.reservation_id
        for _, event in host.disk.scan(Family.USAGE)
        if event.closed_as in {"settled", "late"}
    )
    found += [
        f"{settled[call.reservation_id]} usage events of one settled call"
        for call in world.truth.calls
        if call.host is host and call.end == "settled" and settled[call.reservation_id] != 1
    ]
    total = sum(event.cost_nusd for _, event in host.disk.scan(Family.USAGE))
    counted = sum(
        counter.settled for key, counter in host.disk.scan(Family.COUNTERS) if world.tracker in key
    )
    if total != counted:
        found.append(f"usage events of {host.name} cost {total}, its books say {counted}")
    return found


def _lost_differences(world):
    """What was really used is in the sums, or was lost with a disk and is presumed spent."""
    found, lossy = [], {host.name for host in world.hosts if host.has_lost}
    for key, used in world.truth.used.items():
        pool = world.database.pools.get(key)
        if pool is None or key in world.database.over:
            continue
        lost = sum(share.lost for (each, _), share in world.database.shares.items() if each == key)
        if lossy and used > pool.used + lost + world.truth.reclaimed[
            key
        ] + world.truth.forgotten.of(key):
            found.append(f"{used} was used of {name_of(key)}; {pool.used} + {lost} lost is known")
    return found
