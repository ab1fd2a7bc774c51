"""What really happened, kept beside the books and never read from them."""

from collections import Counter

from sim_policies import booked

from costd.engine import keys
from costd.engine.changes import Family
from costd.model.reservation import ReservationState


class Truth:
    """Every call that was let go, and which ends the daemon has heard of."""

    def __init__(self):
        self.calls = []
        self.unheard_asks = set()
        """Unary asks that may have been decided, but not so that their callers know: (user, id)."""
        self.booked = Counter()
        """By session, the last report that the daemon took."""
        self.unpaged = {}
        """Allowances granted without pages: (user, the process that heard of it or None)."""
        self.tainted = set()
        """Users one of whose processes cheated."""
        self.limit_max = 0
        self.was_lowered = False
        self.let_go_nusd = 0
        """What may have been spent by everybody honest, without what passed its own hold."""

    def let_go(self, call):
        self.calls.append(call)
        self.let_go_nusd += call.hold

    def grew(self, call, before):
        self.let_go_nusd += call.hold - before

    def ended(self, call):
        """Count what it did not use as free again."""
        self.let_go_nusd -= call.hold - min(call.hold, call.cost)

    def problems(self, disk):
        """The limit is passed by nothing but what calls cost beyond their holds."""
        found = []
        if self.let_go_nusd > self.limit_max and not self.tainted:
            found.append(f"{self.let_go_nusd} nano-USD were let go under limit {self.limit_max}")
        for _, counter in disk.scan(Family.COUNTERS):
            if counter.unadmitted and not self.tainted:
                found.append(f"{counter.unadmitted} was spent unadmitted, and nobody cheated")
            if counter.lowered and not self.was_lowered:
                found.append(f"{counter.lowered} is past a limit that nobody lowered")
        return found

    # ---- the end

    @property
    def blurred(self):
        """Users of whom the books may say more than the truth, because nobody could tell.

        Without pages, nobody knows how far a dead process drew, or one that never heard that it
        was granted anything.
        """
        return {
            user
            for user, process in self.unpaged.values()
            if process is None or not process.is_alive
        }

    def heard(self, call, disk):
        """Whether the daemon took the end of a call, where somebody told it."""
        if call.is_drawn:
            return any(self.booked[session] >= number for session, number in call.said_in)
        if not call.is_unanswered:
            return True
        # Its process died before the answer came: the daemon may have taken it or not.
        held = disk.get(Family.RESERVATIONS, bytes.fromhex(call.reservation_id))
        return held.state in {ReservationState.SETTLED, ReservationState.VOIDED}

    def charge(self, call, disk):
        """What the daemon must have charged in the end: (nano-USD, calls, tokens)."""
        if not call.end or not self.heard(call, disk):
            return call.hold, 1, call.tokens
        return (0, 0, 0) if call.end == "voided" else (call.cost, 1, call.used_tokens)

    def differences(self, disk):
        """Compare the books with this, budget by budget, once nothing is out any more."""
        sums = nusd, calls, tokens = Counter(), Counter(), Counter()
        over = Counter()
        for call in self.calls:
            _add(sums, call.user, self.charge(call, disk))
            if self.heard(call, disk):
                over[call.user] += max(0, call.cost - call.hold)
        for user, ask_id in self.unheard_asks:
            # Whether it was decided before its caller died, only the reservation can tell.
            held = disk.get(Family.RESERVATIONS, keys.reservation_id(user, ask_id))
            if held is not None:
                _add(sums, user, (held.decision.hold_nusd, 1, _tokens(held)))
        found = []
        for name, truth in (("user", nusd), ("calls", calls)):
            books = booked(disk, name)
            for user in {*truth, *(per.removeprefix("user=") for per in books)}:
                sums_of = books[f"user={user}"]
                found += self._compare(f"{name} of {user}", sums_of["settled"], truth[user], {user})
                if sums_of["reserved"]:
                    found.append(f"{name} of {user}: {sums_of['reserved']} is still reserved")
                passed = sums_of["overrun"] + sums_of["late"]
                if name == "user" and user not in self.tainted and passed != over[user]:
                    found.append(f"{user} passed holds by {over[user]}; the books say {sums_of}")
        for name, truth in (("all", nusd), ("day", tokens)):
            settled = sum(columns["settled"] for columns in booked(disk, name).values())
            found += self._compare(name, settled, truth.total(), self.blurred | self.tainted)
        return found + self._sums_of_events(disk) + self._events(disk)

    @staticmethod
    def _sums_of_events(disk):
        """Usage events add up to what is settled, whoever cheated and whatever nobody knew."""
        nusd, calls = Counter(), Counter()
        for _, event in disk.scan(Family.USAGE):
            nusd[event.ask.labels["user"]] += event.cost_nusd
            calls[event.ask.labels["user"]] += event.calls_count
        found = []
        for name, sums in (("user", nusd), ("calls", calls)):
            books = booked(disk, name)
            for user in {*sums, *(per.removeprefix("user=") for per in books)}:
                settled = books[f"user={user}"]["settled"]
                if settled != sums[user]:
                    found.append(f"{name} of {user}: settled {settled}, usage events {sums[user]}")
        return found

    def _compare(self, name, books, truth, users):
        if users & self.tainted:
            return []
        if books != truth and not users & self.blurred:
            return [f"{name}: the books say {books}, the truth is {truth}"]
        if books < truth:
            return [f"{name}: the books say {books}, less than the truth, {truth}"]
        return []

    def _events(self, disk):
        """Every settlement that was heard has one usage event, at its cost."""
        events = Counter(
            (event.ask.ask_id, event.cost_nusd)
            for _, event in disk.scan(Family.USAGE)
            if event.closed_as not in {"expired", "reversed"}
        )
        found = []
        for call in self.calls:
            if call.end != "settled" or call.user in self.tainted or not self.heard(call, disk):
                continue
            count = events[call.ask_id, call.cost]
            if count != 1:
                found.append(f"call {call.ask_id}: {count} usage events at its cost")
        return found


def _add(sums, user, amounts):
    for counter, amount in zip(sums, amounts, strict=True):
        counter[user] += amount


def _tokens(held):
    most = held.decision.directives.max_output_tokens
    output = held.ask.max_output_tokens
    return held.ask.prompt_tokens + (output if most is None else min(output, most))
