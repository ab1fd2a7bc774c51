"""What may happen to a fleet in one order of events, how often, and how an order ends."""

import tempfile
from pathlib import Path

from fleet_checks import end_problems
from fleet_net import END
from fleet_policies import CENT, LIMITS_CENTS, USERS, compiled
from fleet_replicas import drive
from fleet_world import TRACE_KEPT, World
from sim_events import Outcome

from costd.coordinator.operators import ControlService
from costd.coordinator.store import Notice, Topic
from costd.engine import keys
from costd.engine.changes import Family
from costd.errors import CostdError
from costd.model.decision import Reason
from costd.model.reservation import ReservationState
from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb import fleet_control_pb2 as fpb
from costd.wire.pb import fleet_pb2 as pb

STEPS_COUNT = 300
QUIET_ROUNDS_MAX = 900
FAR_NS = (-3_600 * NS_PER_S, -40 * NS_PER_S, 40 * NS_PER_S, 90_000 * NS_PER_S)


class FleetOrder(World):
    """One order of events."""

    def __init__(self, seed, folder, parts=None):
        super().__init__(seed, folder, parts)
        self.names, self.weights = list(WEIGHTS), list(WEIGHTS.values())

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

    def host(self):
        running = [host for host in self.hosts if self.runs(host)]
        return self.rng.choice(running) if running else None

    def replica(self):
        live = [replica for replica in self.replicas if replica is not None]
        return self.rng.choice(live) if live else None

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
                self.ask(host, self.new_ask())

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
        done = self.at(
            call.host, ledger.extend, call.reservation_id, additional_cost_nusd=more
        )
        if call.host.member is None or isinstance(done, CostdError):
            return
        if done.reason is Reason.OK:
            self.saw("holds extended")
            self.truth.changing(call)
            call.follow(done.reservation)
            self.truth.changed(call)

    # ---- daemons and their hosts ---------------------------------------------------------------

    def daemon_dies(self):
        """Kill -9 now, or a little later between two commits."""
        host = self.host()
        if host is None:
            return
        if self.rng.random() < 0.3:
            self.host_died(host)
        else:
            host.fuse.moments_left = self.rng.randrange(1, 14)

    def disk_full(self):
        host = self.host()
        if host is not None:
            self.saw("commits refused")
            host.fuse.refuses = True

    def daemon_stops(self):
        """Stopped for a while, as by SIGSTOP; it goes on as if nothing had happened."""
        host = self.host()
        if host is not None:
            self.saw("daemons stopped for a while")
            self.note(f"{host.name} is stopped")
            host.stopped_until_ns = self.true_ns + self.rng.choice((2, 12, 40)) * NS_PER_S

    def sync(self):
        for host in self.hosts:
            if self.rng.random() < 0.5:
                host.disk.sync()

    def power_fails(self):
        """Reboot a host: its clock begins anew, and what was not synced may be lost."""
        host = self.rng.choice(self.hosts)
        self.saw("hosts rebooted")
        if host.member is not None:
            self.host_died(host)
        host.boots += 1
        host.clock.reboot()
        lost = self.rng.choice((0, 1, 5, 50))
        lost = min(lost, host.disk.unsynced_count)
        self.note(f"{host.name} loses its power, and {lost} commits")
        host.disk.lose(lost)
        if lost:
            self.saw("hosts rebooted with commits lost")
            host.has_lost = True
            for call in self.truth.calls:
                call.is_lost |= call.host is host

    def stop_cleanly(self):
        """Stop a daemon in good order and reboot its host."""
        host = self.host()
        if host is None:
            return
        self.saw("hosts rebooted in good order")
        if host.link is not None:
            self.leave(host)
        if host.member is None:
            return
        self.note(f"{host.name} is rebooted in good order")
        host.member, host.was_stopped_cleanly = None, True
        host.disk.sync()
        host.boots += 1
        host.clock.reboot()

    def step_clock(self):
        """Set a host's wall clock: within the skew that is allowed, or far off, or right again."""
        host = self.rng.choice(self.hosts)
        far = self.rng.random() < 0.3
        host.clock.off_ns = self.rng.choice(FAR_NS) if far else self.some_skew()
        self.saw("clocks set far off" if far else "clocks stepped")
        self.note(f"{host.name}'s clock is off by {host.clock.off_ns / 1e9:.1f} s now")

    # ---- coordinators and their database -------------------------------------------------------

    def coordinator_dies(self):
        live = [index for index, replica in enumerate(self.replicas) if replica is not None]
        if live:
            self.replica_died(self.rng.choice(live))

    def database_fails(self):
        self.saw("databases away")
        self.note("the database goes away")
        self.database.is_up = False

    def database_returns(self):
        self.note("the database is back")
        self.database.is_up = True
        for replica in self.replicas:
            if replica is not None:
                replica.notices.append(Notice(topic=Topic.ALL))

    def commit_unknown(self):
        self.database.answers_lost = 1

    def notices_lost(self):
        """Lose what replicas tell each other; their connection comes back and says so."""
        replica = self.replica()
        if replica is not None:
            self.saw("notices lost", len(replica.notices))
            replica.notices.clear()
            replica.notices.append(Notice(topic=Topic.ALL))

    def step_coordinator_clock(self):
        self.saw("coordinators' clocks stepped")
        self.rng.choice(self.sites)[1].off_ns = self.some_skew()

    def beat(self):
        for replica in self.replicas:
            if replica is not None:
                replica.beat()

    # ---- operators -------------------------------------------------------------------------------

    def operate(self, coroutine):
        """Have a replica do what an operator says; its answer, or its error."""
        try:
            return drive(coroutine)
        except CostdError as error:
            return error

    def publish_policy(self):
        """Raise or cut the limits."""
        replica = self.replica()
        if replica is None or not self.database.is_up:
            return
        before, self.limit_cents = self.limit_cents, self.rng.choice(LIMITS_CENTS)
        way = "cut" if self.limit_cents < before else "raised"
        self.saw(f"limits {way}", self.limit_cents != before)
        self.note(f"limits are {way} to {self.limit_cents} cents")
        drive(self.store_policy(self.policy))
        for key in self.truth.limits:
            self.truth.limit_in_force(key, self.texts())
        replica.refresh_policy()

    def top_up(self):
        replica = self.replica()
        if replica is None:
            return
        user = self.rng.choice(USERS)
        budget, key = self.rng.choice((("all", ""), ("user", f"user={user}")))
        request = fpb.TopUpBudgetRequest(
            budget=budget, key=key, amount=10 * CENT, actor="ops", reason="more is needed"
        )
        rule = next(
            rule
            for rule in replica.reception.published.rules.budgets.values()
            if rule.budget.budget_id == budget
        )
        end_ns = rule.window(replica.clock.now().wall_ns)[1]
        answer = self.operate(replica.operators.TopUpBudget(request, "ops"))
        if not isinstance(answer, CostdError):
            self.saw("budgets topped up")
            counter_key = keys.window_prefix(end_ns, rule.tag) + key.encode()
            self.truth.topped_up[counter_key] += request.amount

    def reclaim(self):
        """Give a daemon up, which may come back all the same."""
        replica = self.replica()
        if replica is None:
            return
        host = self.rng.choice(self.hosts)
        request = fpb.ReclaimLeasesRequest(daemon=host.name, actor="ops", reason="it burned")
        before = dict(self.database.shares)
        answer = self.operate(replica.operators.ReclaimLeases(request, "ops"))
        if isinstance(answer, CostdError) or not answer.leases:
            return
        self.saw("leases reclaimed", len(answer.leases))
        self.note(f"{replica.name} reclaims what {host.name} holds")
        for (key, owner), share in self.database.shares.items():
            if owner == host.name and share.is_reclaimed and before[key, owner] is not share:
                self.truth.gave_up(host, key, share.stand.used)

    def give_up(self):
        """Stop a daemon for longer than its tenure, and reclaim what it held."""
        host = self.host()
        if host is None:
            return
        host.stopped_until_ns = self.true_ns + 25 * NS_PER_S
        self.note(f"{host.name} is stopped, and will be given up")
        if self.rng.random() < 0.5 and host.link is not None:
            self.leave(host)
        for seconds in (6, 6, 6):
            self.pass_time(seconds)
            self.deliver(40)
        self.reclaim()

    def engage(self):
        """Engage a kill switch, with a database or without."""
        replica = self.replica()
        if replica is None:
            return
        request = cpb.EngageKillRequest(
            kill_id=f"kill-{self.rng.randrange(3)}",
            scope=self.rng.choice(({"user": "ann"}, {"user": "bob"}, {"run": "one"})),
            reason="a drill",
            actor="ops",
        )
        answer = self.operate(control_of(replica).EngageKill(request, "ops"))
        if not isinstance(answer, CostdError):
            self.saw("kill switches engaged")
            self.saw("kill switches engaged without a database", not self.database.is_up)
            self.note(f"{replica.name} engages {request.kill_id}")

    def release(self):
        replica = self.replica()
        if replica is None or not replica.kills.switches:
            return
        kill_id = self.rng.choice(sorted(replica.kills.switches))
        request = cpb.ReleaseKillRequest(kill_id=kill_id, actor="ops")
        answer = self.operate(control_of(replica).ReleaseKill(request, "ops"))
        if not isinstance(answer, CostdError):
            self.saw("kill switches released")
            self.note(f"{replica.name} releases {kill_id}")

    def drill(self):
        """Ask all who are attached to confirm that they hear."""
        replica = self.replica()
        if replica is not None:
            self.saw("drills")
            self.drill_id = f"drill-{self.saw and self.seen['drills']}"
            message = pb.ToDaemon(drill=pb.FleetDrill(drill_id=self.drill_id))
            for connection in replica.reception.attached.values():
                connection.push(message)

    # ---- the end -----------------------------------------------------------------------------------

    def finish(self):
        """Heal everything, close every call, and compare all books with the truth."""
        self.note("everything heals")
        self.heal()
        if not self.quieten(lambda: True):
            self.problems.append(f"the fleet does not become quiet: {self.loud()}")
            return
        for call in self.open_calls():
            self.end_call(call)
        for _ in range(70):  # those that nobody can end expire; what is idle is given back
            self.pass_time(0.9)
            self.carry_all()
        if not self.quieten(lambda: True):
            self.problems.append(f"the fleet does not become quiet again: {self.loud()}")
            return
        self.check()
        self.problems += end_problems(self)
        self.problems += self.leftover_problems()
        if not self.problems:
            self.spend_the_rest()

    def heal(self):
        self.is_healed = True
        for host in self.hosts:
            host.fuse.moments_left, host.fuse.refuses = None, False
            host.stopped_until_ns = 0
            host.clock.off_ns = self.some_skew()
        self.database.answers_lost = 0
        if not self.database.is_up:
            self.database_returns()
        for link in self.links:
            link.stalled_until_ns = 0
        for index in range(len(self.replicas)):
            self.start_replica(index)
        for host in self.hosts:
            if host.member is None:
                self.start_member(host)

    def quieten(self, done):
        """Carry until nothing is left to say; whether that came to pass."""
        for _ in range(QUIET_ROUNDS_MAX):
            self.carry_all()
            self.pass_time(0.1)
            self.beat()
            if not self.loud() and done():
                return True
        return False

    def carry_all(self):
        """Have everybody join, and everything arrive."""
        for host in self.hosts:
            if host.link is None:
                self.join(host)
        for _ in range(1_000):
            ways = self.ways()
            if not ways or self.problems:
                break
            act, what = self.rng.choice(ways)
            act(what)
        self.forget_links()

    def loud(self):
        """Name what is still under way."""
        found = []
        for host in self.hosts:
            tenancy = host.member.tenancy
            if not tenancy.is_enrolled:
                found.append(f"{host.name} is not enrolled")
            if host.member.ledger.fleet_changed:
                found.append(f"{host.name} has something to report")
            if tenancy.outbox.waiting_count:
                found.append(f"{host.name} has {tenancy.outbox.waiting_count} usage events")
            if host.member.situation.policy_number != len(self.database.policies):
                found.append(f"{host.name} has policy {host.member.situation.policy_number}")
        if self.waiters:
            found.append(f"{len(self.waiters)} asks wait")
        found += [f"{each.name} is busy" for each in self.replicas if each.is_busy or each.notices]
        return found

    def leftover_problems(self):
        """Kill switches are the same everywhere."""
        kept = {kill_id: kill.released_ns > 0 for kill_id, kill in self.database.kills.items()}
        found = []
        for replica in self.replicas:
            known = {each.kill_id: each.released_ns > 0 for each in replica.kills.switches.values()}
            if known != kept:
                found.append(f"{replica.name} knows kill switches {known}, the database {kept}")
        engaged = {kill_id for kill_id, is_released in kept.items() if not is_released}
        for host in self.hosts:
            known = {kill.kill_id for kill in host.member.ledger.kills}
            if known != engaged:
                found.append(f"{host.name} has {known} engaged, the database {engaged}")
        return found

    def spend_the_rest(self):
        """One daemon gets all that is left: nothing of it is stuck where nobody needs it."""
        for kill_id in sorted(self.database.kills):
            request = cpb.ReleaseKillRequest(kill_id=kill_id, actor="ops")
            drive(control_of(self.replicas[0]).ReleaseKill(request, "ops"))
        self.quieten(lambda: True)
        rules = compiled(self.policy)
        ask = self.new_ask(critical=True)
        rooms = []
        for rule in rules.matching({**ask.labels, "task_class": "review"}).budgets:
            if rule.limit is None or rule.budget.unit != "nusd":
                continue
            key = rule.counter_key({**ask.labels, "task_class": "review"}, self.true_ns)
            pool = self.database.pools.get(key)
            lost = sum(
                share.lost for (each, _), share in self.database.shares.items() if each == key
            )
            rooms.append(rule.limit + (pool.topped_up - pool.used - lost if pool else 0))
        if min(rooms) <= 0 or self.true_ns % (60 * NS_PER_S) > 40 * NS_PER_S:
            return
        ask = type(ask)(
            ask_id=ask.ask_id,
            task_class=ask.task_class,
            labels=ask.labels,
            estimated_cost_nusd=min(rooms),
        )
        host, before = self.rng.choice(self.hosts), len(self.truth.calls)
        for host_ in self.hosts:
            host_.clock.off_ns = 0
        self.saw("asks for all that is left")
        self.note(f"{host.name} is asked for all that is left: {min(rooms)} for {ask.labels}")
        self.ask(host, ask)
        self.quieten(lambda: not self.waiters)
        if len(self.truth.calls) == before:
            self.problems.append(f"{min(rooms)} is left, and {host.name} does not get it")
        self.check()


def control_of(replica):
    """The operators' service of one replica."""
    return ControlService(
        replica.database, replica.reception, replica.kills, replica.clock, replica.name
    )


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
    "daemon_stops": 0.8,
    "sync": 2,
    "power_fails": 0.7,
    "stop_cleanly": 0.4,
    "step_clock": 1,
    "coordinator_dies": 1.2,
    "database_fails": 0.8,
    "commit_unknown": 1,
    "notices_lost": 0.7,
    "step_coordinator_clock": 0.7,
    "beat": 3,
    "publish_policy": 1,
    "top_up": 0.6,
    "reclaim": 1,
    "give_up": 0.6,
    "engage": 0.8,
    "release": 1.5,
    "drill": 0.5,
}
"""How often each event is drawn, relative to the others."""

MUST_HAPPEN = ()


def run_fleet_order(seed, steps_count=STEPS_COUNT, parts=None):
    """Run one order from its seed; the same seed gives the same order."""
    with tempfile.TemporaryDirectory(prefix="costd-fleet-") as folder:
        order = FleetOrder(seed, Path(folder), parts)
        problems = order.run(steps_count)
    trace = order.trace[-TRACE_KEPT:] if problems else []
    return Outcome(seed=seed, problems=problems, seen=dict(order.seen), trace=trace)
