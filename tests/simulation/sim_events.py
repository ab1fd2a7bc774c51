"""What may happen in one order of events, how often, and how an order ends."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from costd_client.pb import admission_pb2 as pb
from sim_policies import LIMITS_CALLS, VARIANTS
from sim_world import DAY_S, STOPPED_S, World

from costd.wire.pb import control_pb2 as cpb

STEPS_COUNT = 250
QUIET_ROUNDS_MAX = 400
YEAR_S = 365 * DAY_S
DISHONEST_SHARE = 0.25
"""The share of orders in which somebody cheats; the others are held to equality."""

KILL_SCOPES = (
    {},
    {"user": "ann"},
    {"user": "bob"},
    {"team": "team-1"},
    {"feature": "web"},
    {"model": "gpt-4o"},
)


class Order(World):
    """One order of events."""

    def __init__(self, seed, folder):
        super().__init__(seed, folder)
        self.has_cheats = self.rng.random() < DISHONEST_SHARE
        self.names = list(WEIGHTS)
        self.weights = list(WEIGHTS.values())

    def run(self, steps_count):
        """Let it happen; returns what was wrong, empty if nothing."""
        for _ in range(steps_count):
            if self.problems:
                return self.problems
            name = self.rng.choices(self.names, self.weights)[0]
            getattr(self, name)()
            if self.daemon is None and self.rng.random() < 0.3:
                self.start_daemon()
            self.check()
        if not self.problems:
            self.finish()
        return self.problems

    def someone(self):
        """A process that lives, and a new one if none does."""
        alive = [process for process in self.processes if process.is_alive]
        return self.rng.choice(alive) if alive else self.new_process("ann")

    # ---- the network and time

    def deliver(self):
        """Move some messages, in any order but a stream's own."""
        for _ in range(self.rng.randrange(1, 12)):
            ways = [(self.hear, stream) for stream in self.streams if stream.down]
            if self.answers:
                ways += [(self.carry, stream) for stream in self.streams if stream.up]
            ways += [(self.move, rpc) for rpc in self.rpcs]
            if not ways:
                break
            act, what = self.rng.choice(ways)
            act(what)
        self.streams = [one for one in self.streams if not one.is_forgotten]

    def poll(self):
        """Have some clients say what they have to say."""
        for process in self.processes:
            if process.is_alive and self.rng.random() < 0.6:
                self._poll(process)

    def _poll(self, process):
        if process.stream is None:
            self.attach(process)
        process.stream.send(process.poll())

    def tick(self):
        """Let time pass, for the daemon to notice if it can."""
        self.pass_time(self.rng.choices(*zip(*TICKS, strict=True))[0])

    def pass_time(self, seconds):
        self.host.advance(seconds)
        if self.answers:
            self.at_daemon(self.daemon.tick)

    def step_clock(self):
        """Set the host's wall clock back, or far ahead, or put it right."""
        self.seen["clock steps"] += 1
        years = (-YEAR_S, YEAR_S) if self.steps_years else ()
        self.host.jump_wall(self.rng.choice((-7_200, -DAY_S, 40, *years)))
        self.pass_time(0.2)  # it looks at its clock so often

    def cut(self):
        """Break one stream; everything under way on it is lost."""
        streams = [stream for stream in self.streams if not stream.is_ended]
        if streams:
            self.seen["streams cut"] += 1
            self.rng.choice(streams).end()

    def disturb(self):
        """Repeat a report, or let one overtake another."""
        for stream in self.streams:
            reports = [
                m for m in stream.up if isinstance(m, pb.ClientMessage) and m.HasField("report")
            ]
            if not reports or stream.is_ended:
                continue
            if len(reports) > 1 and self.rng.random() < 0.5:
                self.seen["reports out of order"] += 1
                stream.was_disturbed = True
                one, other = (list(stream.up).index(each) for each in reports[:2])
                stream.up[one], stream.up[other] = stream.up[other], stream.up[one]
            else:
                self.seen["reports repeated"] += 1
                stream.up.append(reports[0])
            return

    # ---- clients

    def draw(self):
        process = self.someone()
        for _ in range(self.rng.choice((1, 4, 10, 40))):
            self.call_once(process)

    def end(self):
        process = self.someone()
        for call in self.rng.sample(process.calls, min(len(process.calls), self.rng.randrange(30))):
            self.end_call(process, call)

    def extend(self):
        drawn = [call for call in self.someone().calls if call.is_drawn]
        if drawn:
            call = self.rng.choice(drawn)
            process = next(one for one in self.processes if call in one.calls)
            before = call.hold
            self.seen["holds extended"] += process.extend(call, self.rng.choice((1, 50)))
            self.truth.grew(call, before)

    def client_dies(self):
        """Kill -9: its page survives; what it wrote to its socket may still arrive."""
        process = self.someone()
        self.seen["clients killed -9"] += 1
        self.seen["calls in flight in killed clients"] += len(process.calls)
        self.seen["settlements lost with clients"] += process.session.unheard_count
        process.is_alive = False
        process.calls = []
        if process.stream is not None:
            process.stream.end(lost_up=self.rng.random() < 0.5)
            process.stream = None
        if sum(one.is_alive for one in self.processes) < 2:
            self.attach(self.new_process(process.user))

    def fork(self):
        """A child: the same code and labels, and nothing of its parent's money."""
        parent = self.someone()
        if len(self.processes) < 80:
            self.seen["forks"] += 1
            self.new_process(parent.user)

    def leave(self):
        """A process ends in good order."""
        process = self.someone()
        if not process.is_honest or sum(one.is_alive for one in self.processes) < 3:
            return
        self.seen["clients closed"] += 1
        process.session.close()
        self._poll(process)

    def misbehave(self):
        """Draw more than is held, or scribble over the page."""
        if not self.has_cheats:
            return
        able = [process for process in self.processes if process.is_alive and process.held()]
        if not able:
            return
        process = self.rng.choice(able)
        if self.rng.random() < 0.5:
            self.seen["clients that draw more than they hold"] += 1
            process.cheat()
        elif process.scribble(self.rng):
            self.seen["pages scribbled over"] += 1
        if not process.is_honest:
            self.truth.tainted.add(process.user)

    # ---- the daemon and its operators

    def daemon_dies(self):
        """Kill -9 now, or a little later between two commits."""
        if self.daemon is None:
            return
        if self.rng.random() < 0.3:
            self.daemon_died()
        else:
            self.fuse.moments_left = self.rng.randrange(1, 12)

    def disk_full(self):
        self.seen["commits refused"] += 1
        self.fuse.refuses = True

    def daemon_stops(self):
        """Stopped for a minute, as by SIGSTOP or a swapped-out host; its clients go on."""
        if self.answers:
            self.seen["daemon stopped for a minute"] += 1
            self.daemon.stopped_until_ns = self.host.steady_ns + STOPPED_S * 10**9

    def change_policy(self):
        """Tighten, loosen, or change what rules read."""
        before, variant = self.limit_calls, self.variant
        if self.rng.random() < 0.6:
            self.limit_calls = self.rng.choice(LIMITS_CALLS)
        else:
            self.variant = self.rng.choice(VARIANTS)
        way = (
            "lowered"
            if self.limit_calls < before
            else "raised"
            if self.limit_calls > before
            else ""
        )
        # A budget that comes into a policy counts what was held before it as past its limit.
        self.truth.was_lowered |= way == "lowered" or self.variant != variant
        self.seen[f"limit {way}" if way else "policy reloaded"] += 1
        if self.answers:
            self.swap_policy()

    def operator_revokes(self):
        if self.answers:
            self.revoke()

    def engage(self):
        if not self.answers:
            return
        request = cpb.EngageKillRequest(
            kill_id=f"kill-{self.rng.randrange(6)}",
            scope=self.rng.choice(KILL_SCOPES),
            reason="a drill",
            actor="ops",
        )
        if self.rng.random() < 0.3:
            request.release_after.seconds = 3
        answer = self.at_daemon(self.daemon.control.EngageKill, request, "")
        self.seen["kill switches engaged"] += isinstance(answer, cpb.KillSwitch)

    def release(self):
        if not self.answers or not self.daemon.ledger.kills:
            return
        kill = self.rng.choice(self.daemon.ledger.kills)
        request = cpb.ReleaseKillRequest(kill_id=kill.kill_id, actor="ops")
        answer = self.at_daemon(self.daemon.control.ReleaseKill, request, "")
        self.seen["kill switches released"] += isinstance(answer, cpb.KillSwitch)

    # ---- the end

    def finish(self):
        """Let everything arrive, let time pass, and compare the books with the truth."""
        self.fuse.moments_left, self.fuse.refuses = None, False
        if self.daemon is None:
            self.start_daemon()
        self.daemon.stopped_until_ns = 0
        for process in self.processes:
            if process.is_alive:
                process.session.close()
        if not self._drain():
            self.problems.append("clients with nothing left to do do not become quiet")
            return
        for _ in range(10):
            self.pass_time(20)
        daemon = self.daemon
        if daemon.desk.books.out:
            self.problems.append(f"{len(daemon.desk.books.out)} allowances are out for ever")
        totals = daemon.ledger.totals
        if totals.open_count or totals.reserved_nusd or totals.exposure_nusd:
            self.problems.append(f"something is open for ever: {totals}")
        self.check()
        self.problems += self.truth.differences(self.disk)

    def _drain(self):
        """Carry until every client that lives has been heard; whether that came to pass."""
        for _ in range(QUIET_ROUNDS_MAX):
            for process in self.processes:
                if process.is_alive and (process.stream or not process.session.is_quiet):
                    self._poll(process)
            for stream in list(self.streams):
                while stream.up:
                    self.carry(stream)
                while stream.down:
                    self.hear(stream)
            for rpc in list(self.rpcs):
                self.move(rpc)
            self.streams = [one for one in self.streams if not one.is_forgotten]
            self.pass_time(0.03)
            loud = [p for p in self.processes if p.is_alive and not p.session.is_quiet]
            if not loud and not self.rpcs:
                return True
        return False


TICKS = ((0.005, 4), (0.03, 8), (0.2, 4), (1, 2), (3, 1), (8, 0.5), (20, 0.5))
"""By how much time moves on, in seconds, and how often relative to the others."""

WEIGHTS = {
    "deliver": 40,
    "poll": 25,
    "draw": 25,
    "end": 18,
    "tick": 14,
    "cut": 3,
    "disturb": 2,
    "extend": 4,
    "client_dies": 1.5,
    "fork": 1,
    "leave": 0.7,
    "misbehave": 8,
    "daemon_dies": 2,
    "disk_full": 0.7,
    "daemon_stops": 0.7,
    "step_clock": 1,
    "change_policy": 1.5,
    "operator_revokes": 1.5,
    "engage": 1.2,
    "release": 8,
}
"""How often each event is drawn, relative to the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one order showed."""

    seed: int
    problems: list
    seen: dict
    trace: list = field(default_factory=list)
    """What happened, line by line, where something was wrong and the order keeps it."""


def run_order(seed, steps_count=STEPS_COUNT):
    """Run one order from its seed; the same seed gives the same order."""
    with tempfile.TemporaryDirectory(prefix="costd-sim-") as folder:
        order = Order(seed, Path(folder))
        try:
            problems = order.run(steps_count)
        finally:
            if order.daemon is not None:
                order.daemon.close()
    return Outcome(seed=seed, problems=problems, seen=dict(order.seen))
