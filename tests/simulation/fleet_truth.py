"""What really happened in a fleet, kept beside all books: every call, its hold, what it cost."""

from collections import Counter

from fleet_policies import compiled

from costd.engine import keys
from costd.engine.changes import Family
from costd.model.reservation import Excuse, ReservationState
from costd.model.time import NEVER_NS


class Call:
    """One call that was admitted; whether its caller ever heard so does not matter to the books."""

    def __init__(self, host, reservation):
        self.host = host
        self.reservation_id = reservation.reservation_id
        self.hold = reservation.hold_nusd
        self.cost = None
        """What its end was told to have cost; 0 for one that was voided."""
        self.end = ""
        self.is_lost = False
        """Whether a power failure took it, or its end, out of the books."""
        self.lines = {}
        """By counter: the part of the hold that nothing excuses."""
        self.units = {}
        """By counter: the unit, of all that it counts in."""
        self.follow(reservation)

    def follow(self, reservation):
        """Take over what it holds now: where a daemon died in between, only its disk can tell."""
        self.hold = reservation.hold_nusd
        self.units = {line.key: line.unit for line in reservation.counters}
        self.lines = {
            line.key: (line.unit, line.hold)
            for line in reservation.counters
            if line.excuse is Excuse.NONE
        }
        if reservation.state is ReservationState.SETTLED:
            self.end, self.cost = "settled", reservation.cost_nusd
        elif reservation.state is ReservationState.VOIDED:
            self.end, self.cost = "voided", 0

    def used(self, unit, hold):
        """What it used within its hold; one that nobody ended may have used all of it."""
        if self.end == "voided":
            return 0
        if self.end == "settled" and unit == "nusd":
            return min(hold, self.cost)
        return hold


class Drawn(Call):
    """One call that a client admitted by itself, of what its daemon had set aside for several."""

    def __init__(self, host, allowance, hold):
        super().__init__(host, allowance)
        self.hold, self.end, self.cost = hold, "", None
        self.lines = {
            key: (unit, 1 if unit == "calls" else hold) for key, (unit, _) in self.lines.items()
        }


class Forgotten:
    """By (counter, host), what a restored database does not know to be lent.

    Published as a part of the bound: it counts until its daemon has enrolled, and for ever where
    the same money was lent to others before.
    """

    def __init__(self):
        self._amounts = Counter()
        self._relent = set()

    def add(self, key, host, amount):
        if amount > 0:
            self._amounts[key, host] += amount

    def lent(self, key):
        """Note that some of a counter was granted by who did not know that it must learn first."""
        self._relent.update(each for each in self._amounts if each[0] == key)

    def heard(self, host):
        """Note that a daemon has told what it holds."""
        for each in [each for each in self._amounts if each[1] == host]:
            if each not in self._relent:
                del self._amounts[each]

    def of(self, key):
        return sum(amount for (each, _), amount in self._amounts.items() if each == key)


class FleetTruth:
    """All calls of all hosts, and what the limits ever were."""

    def __init__(self):
        self.calls = []
        self.drawn = []
        self.used = Counter()
        self.used_by = Counter()
        """By (counter, host)."""
        self.limits = {}
        """By counter, the highest limit in force since anything was granted, without top-ups."""
        self.topped_up = Counter()
        self.reclaimed = Counter()
        """By counter, what a host that was given up had used and not told."""
        self.forgotten = Forgotten()

    def let_go(self, host, reservation, texts):
        call = Call(host, reservation)
        self.calls.append(call)
        for key in call.lines:
            self.limit_in_force(key, texts)
        self._count(call, 1)
        return call

    def draw(self, host, allowance, hold, texts):
        call = Drawn(host, allowance, hold)
        self.drawn.append(call)
        for key in call.lines:
            self.limit_in_force(key, texts)
        self._count(call, 1)
        return call

    def limit_in_force(self, key, texts):
        """Note the limits that policies in force anywhere give a counter."""
        rules = [compiled(text).budget_of(key) for text in texts]
        limits = [rule.limit for rule in rules if rule is not None and rule.limit is not None]
        if limits:
            self.limits[key] = max([*limits, self.limits.get(key, 0)])

    def changing(self, call):
        """Take a call out of the sums, to be put back by `changed`."""
        self._count(call, -1)

    def changed(self, call):
        self._count(call, 1)

    def _count(self, call, sign):
        for key, (unit, hold) in call.lines.items():
            used = sign * call.used(unit, hold)
            self.used[key] += used
            self.used_by[key, call.host.name] += used

    def gave_up(self, host, key, told):
        """Note what an operator does not know when he reclaims what a host holds."""
        self.reclaimed[key] += max(0, self.used_by[key, host.name] - told)

    def forgot(self, host, key, before, after, lease):
        """Note what a database that was set back does not know of one daemon's part."""
        known = after.stand.taken + after.lost if after is not None else 0
        amount = before.stand.taken + before.lost - known
        if host.has_lost:  # its books may not know either, whatever they state
            amount = max(before.stand.taken + before.lost, self.used_by[key, host.name])
        self.forgotten.add(key, host.name, amount)
        if before.is_reclaimed and not (after is not None and after.is_reclaimed):
            self.reclaimed[key] += max(0, lease - before.stand.taken)

    def problems(self):
        """No limit is passed by what calls used within their holds."""
        return [
            f"{used} was used of {name_of(key)} within holds; its limit never passed "
            f"{self.limits[key]} + {self.topped_up[key]} topped up"
            f" (+ {self.reclaimed[key]} unknown when it was reclaimed"
            f" + {self.forgotten.of(key)} forgotten by a restored database)"
            for key, used in self.used.items()
            if key in self.limits
            and used
            > self.limits[key] + self.topped_up[key] + self.reclaimed[key] + self.forgotten.of(key)
        ]

    def differences(self, host):
        """Compare a daemon's books with this, once nothing is open any more.

        Where a grant or a report of a client was lost, they hold as much or more.
        """
        disk, settled = host.disk, Counter()
        for call in (*self.calls, *self.drawn):
            if call.host is not host:
                continue
            # One that nobody ended has expired, at its hold; what a lost report said is not known.
            cost = call.cost if call.end else call.hold
            if isinstance(call, Drawn) and not host.is_exact:
                cost = min(cost, call.hold)
            for key, unit in call.units.items():
                settled[key] += call.end != "voided" if unit == "calls" else cost
        return [
            f"{host.name} has {counter.settled} settled of {name_of(key)}; it was {settled[key]}"
            for key, counter in disk.scan(Family.COUNTERS)
            if counter.reserved
            or counter.settled < settled[key]
            or (host.is_exact and counter.settled != settled[key])
        ]


def name_of(key):
    """Name a counter for people."""
    end_ns, tag, per = keys.split_counter_key(key)
    ends = "" if end_ns >= NEVER_NS else f" until {end_ns / 1e9:.0f}"
    return f"{tag.hex()[:6]}({keys.shown(per)}){ends}"
