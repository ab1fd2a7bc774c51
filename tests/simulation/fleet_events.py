"""What may happen to a fleet in one order of events, and how often."""

import tempfile
from pathlib import Path

from fleet_backups import Backups
from fleet_ending import Ending
from fleet_fading import Fades
from fleet_faults import Faults
from fleet_net import END
from fleet_operators import Operators
from fleet_policies import CENT
from fleet_world import TRACE_KEPT
from sim_events import Outcome

from costd.errors import CostdError
from costd.model.decision import Reason
from costd.model.reservation import ReservationState
from costd.model.time import NS_PER_S

STEPS_COUNT = 300


class FleetOrder(Faults, Operators, Backups, Fades, Ending):
    """One order of events."""

    def __init__(self, seed, folder, parts=None):
        super().__init__(seed, folder, parts)
        events = WEIGHTS
        if self.has_clients:
            events = {**WEIGHTS, **CLIENTS_WEIGHTS}
            for _ in range(self.rng.randrange(2, 5)):
                self.new_process(self.rng.choice(self.hosts[:2]))
        self.names, self.weights = list(events), list(events.values())

    def run(self, steps_count):
        """Let it happen; returns what was wrong, empty if nothing."""
        for _ in range(steps_count):
            name = self.rng.choices(self.names, self.weights)[0]
            getattr(self, name)()
            self.settle_down()
            self.check()
            if self.problems:
                return self.problems
        self.finish()
        return self.problems

    def settle_down(self):
        """Start what is down, sooner or later."""
        rng = self.rng
        for index, replica in enumerate(self.replicas):
            if replica is None and rng.random() < 0.1:
                self.start_replica(index)
        for host in self.hosts:
            if host.member is None and rng.random() < 0.3:
                self.start_member(host)
            if self.runs(host) and host.link is None and rng.random() < 0.3:
                self.join(host)
        if not self.database.is_up and rng.random() < 0.07:
            self.database_returns()
        self.forget_links()

    def link(self):
        heard = [link for link in self.links if link.is_heard and link.is_served]
        return self.rng.choice(heard) if heard else None

    # ---- the network and time ----------------------------------------------------------------

    def deliver(self, count=None):
        """Move some messages and transactions on, in any order but a stream's own."""
        for _ in range(count or self.rng.randrange(1, 30)):
            ways = self.ways()
            if not ways:
                break
            act, what = self.rng.choice(ways)
            act(what)
            if self.problems:
                break
        self.wake()

    def pass_time(self, seconds=None):
        """Let time pass; daemons notice at once, unless they are stopped."""
        seconds = self.rng.choices(*zip(*TICKS, strict=True))[0] if seconds is None else seconds
        self.true_ns += round(seconds * NS_PER_S)
        for host in self.hosts:
            self.tick_member(host)
        self.wake()

    def flow(self):
        """Let a second pass as it does where nothing goes wrong."""
        for _ in range(5):
            self.pass_time(0.2)
            self.deliver(40)

    def cut(self):
        """Break a stream; each side notices at once, and the other's words are lost or not."""
        link = self.link()
        if link is None:
            return
        self.saw("streams cut")
        if self.rng.random() < 0.5:
            self.note(f"{link.host.name}'s stream breaks on its side")
            self.leave_if_running(link)
        else:
            self.note(f"{link.host.name}'s stream breaks at {link.replica.name}")
            link.replica.end(link, None) if link.connection else link.drop(lost_down=True)

    def leave_if_running(self, link):
        if link.host.link is link and self.runs(link.host):
            self.leave(link.host)

    def partition(self):
        """Have nothing arrive on a stream for a while; the daemon gives up and goes elsewhere."""
        link = self.link()
        if link is not None:
            self.saw("partitions")
            self.note(f"{link.host.name} and {link.replica.name} are parted")
            link.stalled_until_ns = self.true_ns + self.rng.choice((1, 6, 15)) * NS_PER_S
            link.silent_since_ns = self.true_ns

    def disturb(self):
        """Repeat a message, or let one overtake another."""
        ways = [
            (link, way)
            for link in self.links
            for way in (link.up, link.down)
            if way and END not in way
        ]
        if not ways:
            return
        link, way = self.rng.choice(ways)
        link.was_disturbed = True
        index = self.rng.randrange(len(way))
        if len(way) > 1 and self.rng.random() < 0.5:
            self.saw("messages that overtook another")
            way[index - 1], way[index] = way[index], way[index - 1]
            self.note(f"a message of {link.host.name}'s stream overtakes another")
        else:
            self.saw("messages repeated")
            way.insert(self.rng.randrange(index, len(way)) + 1, way[index])
            self.note(f"a message of {link.host.name}'s stream is repeated")

    # ---- calls -------------------------------------------------------------------------------

    def calls(self):
        host = self.host()
        for _ in range(self.rng.choice((1, 1, 2, 5))):
            if host is not None and self.runs(host):
                ask = self.new_ask()
                self.ask(host, ask, token=self.token if ask.task_class == "review" else "")

    def open_calls(self):
        return [
            call
            for call in self.truth.calls
            if not call.end and not call.is_lost and self.runs(call.host)
        ]

    def end_calls(self):
        """End some calls: below their hold, at it, or above; or they never left."""
        found = self.open_calls()
        for call in self.rng.sample(found, min(len(found), self.rng.randrange(1, 8))):
            if self.runs(call.host):
                self.end_call(call)

    def end_call(self, call):
        rng, ledger = self.rng, call.host.member.ledger
        held = ledger.find_reservation(call.reservation_id)
        cost = rng.choice((0, 1, call.hold // 2, call.hold, call.hold, call.hold + CENT + 7))
        if rng.random() < 0.2 and held.state is ReservationState.HELD:
            done = self.at(call.host, ledger.void, call.reservation_id)
            cost = None
        else:
            done = self.at(call.host, ledger.settle, call.reservation_id, cost_nusd=cost)
        if call.host.member is None:
            return  # `host_died` has read on its disk how far that came
        if isinstance(done, CostdError):
            return
        self.truth.changing(call)
        call.end, call.cost = ("voided", 0) if cost is None else ("settled", cost)
        self.truth.changed(call)
        self.saw("calls voided" if cost is None else "calls settled")
        self.saw("calls settled over their hold", (cost or 0) > call.hold)
        self.saw("calls settled late", held.state is ReservationState.EXPIRED)
        self.note(f"{call.host.name}: a call of {call.hold} is {call.end} at {cost}")

    def extend(self):
        found = self.open_calls()
        if not found:
            return
        call = self.rng.choice(found)
        more = self.rng.choice((1, CENT))
        ledger = call.host.member.ledger
        done = self.at(call.host, ledger.extend, call.reservation_id, additional_cost_nusd=more)
        if call.host.member is None or isinstance(done, CostdError):
            return
        if done.reason is Reason.OK:
            self.saw("holds extended")
            self.truth.changing(call)
            call.follow(done.reservation)
            self.truth.changed(call)


TICKS = ((0.02, 4), (0.1, 8), (0.5, 6), (1, 4), (3, 2), (8, 1), (12, 0.6), (25, 0.5))
"""By how much time moves on, in seconds, and how often relative to the others."""

WEIGHTS = {
    "deliver": 40,
    "pass_time": 22,
    "flow": 6,
    "calls": 22,
    "end_calls": 12,
    "extend": 3,
    "cut": 2.5,
    "partition": 1.2,
    "disturb": 2.5,
    "daemon_dies": 2,
    "disk_full": 0.7,
    "edge_of_tenure": 0.6,
    "daemon_stops": 0.8,
    "sync": 2,
    "power_fails": 0.7,
    "stop_cleanly": 0.4,
    "step_clock": 1,
    "coordinator_dies": 1.2,
    "database_fails": 0.8,
    "back_up": 1.5,
    "restore": 0.5,
    "commit_unknown": 1,
    "notices_lost": 0.7,
    "step_coordinator_clock": 0.7,
    "beat": 3,
    "forget": 2,
    "publish_policy": 1,
    "top_up": 0.6,
    "reclaim": 1,
    "give_up": 0.6,
    "engage": 0.8,
    "release": 1.5,
    "drill": 0.5,
}
"""How often each event is drawn, relative to the others."""

CLIENTS_WEIGHTS = {
    "draw": 20,
    "poll": 30,
    "spree": 3,
    "end_drawn": 10,
    "cut_client": 0.8,
    "client_dies": 0.8,
}
"""The same of what clients do, in orders that have some."""

MUST_HAPPEN = (
    "allowances granted",
    "allowances revoked",
    "asks for all that is left",
    "asks that waited",
    "budgets topped up",
    "calls admitted",
    "calls admitted without a lease",
    "calls drawn",
    "calls settled",
    "calls settled late",
    "calls settled over their hold",
    "calls voided",
    "clients killed -9",
    "clocks set far off",
    "clocks stepped",
    "commits refused",
    "commits whose outcome was not told",
    "coordinators killed",
    "coordinators killed in a transaction",
    "coordinators' clocks stepped",
    "daemons forgotten",
    "daemons killed -9",
    "daemons asked at the end of their tenure",
    "daemons stopped for a while",
    "databases away",
    "databases restored",
    "denied: BUDGET_EXHAUSTED",
    "denied: KILL_SWITCH",
    "denied: NO_LEASE",
    "drawn calls settled",
    "drawn calls voided",
    "drills",
    "drills confirmed",
    "forgotten daemons that came back",
    "holds extended",
    "hosts rebooted",
    "hosts rebooted in good order",
    "hosts rebooted with commits lost",
    "kill switches engaged",
    "kill switches engaged without a database",
    "kill switches released",
    "leases reclaimed",
    "leases recalled",
    "limits cut",
    "limits raised",
    "messages repeated",
    "messages that overtook another",
    "notices lost",
    "override grants redeemed",
    "partitions",
    "receipts that a full disk did not take",
    "runs forgotten",
    "streams cut",
    "streams of clients cut",
    "streams ended by CoordinatorUnavailable",
    "streams ended by InvalidAsk",
    "streams ended by StaleEpoch",
)
"""A long run in which one of these never happened proves too little."""


def run_fleet_order(seed, steps_count=STEPS_COUNT, parts=None):
    """Run one order from its seed; the same seed gives the same order."""
    with tempfile.TemporaryDirectory(prefix="costd-fleet-") as folder:
        order = FleetOrder(seed, Path(folder), parts)
        problems = order.run(steps_count)
    trace = order.trace[-TRACE_KEPT:] if problems else []
    return Outcome(seed=seed, problems=problems, seen=dict(order.seen), trace=trace)
