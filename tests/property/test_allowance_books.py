"""Allowances in any order of events: the books add up, and the limit is never passed."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "daemon"))

from allowance_world import CALL_NUSD, CALL_TOKENS, HEAD, Process, World

from costd.daemon.pages import NoPages
from costd.model.ask import Ask
from costd.testing.pages import MemoryPages
from costd.wire.pb import admission_pb2 as pb

LIMIT_CALLS = 400
POLICY = HEAD + (
    f"budgets:\n  - {{id: all, window: total, limit: ${LIMIT_CALLS * CALL_NUSD / 10**9}}}\n"
    f"  - {{id: calls, window: total, per: user, limit: {LIMIT_CALLS} calls}}\n"
    "allowance: {share: 20%, for: 5s}\n"
)
STEPS_COUNT = 150


class Agent(Process):
    """A client that does what the protocol says, over a network that may lose its stream."""

    def __init__(self, world, name, truth):
        super().__init__(world, name)
        self.name = name
        self.truth = truth
        self.held = {}
        """Allowance by id: [message, drawn count, settled count, deadline]."""
        self.waiting = []
        """Reports that were not acknowledged."""
        self.numbers = 0
        self.calls = []

    def come_back(self, world):
        self.world = world
        self.heard = []
        self.connection = world.desk.attach(self.name, self.heard.append)
        self._hello = pb.Hello(session_id=self.session, maps_pages=True)
        self.hello(*self.held)
        good = set(self.welcome.good_allowance_ids)
        self.waiting = [r for r in self.waiting if r.sequence > self.welcome.report_sequence]
        self.resend()
        for allowance_id in [each for each in self.held if each not in good]:
            self.give_back(allowance_id)

    def resend(self):
        for report in self.waiting:
            self.connection.receive(pb.ClientMessage(report=report))
        self.waiting = []
        self.heard[:] = [m for m in self.heard if m.WhichOneof("message") != "acknowledgement"]

    def take(self, rng):
        answer = self.ask(rng.choice([5, 20, 200]), labels={"user": self.name})
        self.heard[:] = [m for m in self.heard if m.WhichOneof("message") != "grant"]
        if answer.HasField("allowance"):
            allowance = answer.allowance
            deadline = self.world.clock.now().steady_ns + allowance.lifetime.seconds * 10**9
            self.held[allowance.allowance_id] = [allowance, 0, 0, deadline]

    def draw_some(self, rng):
        for state in self.held.values():
            allowance, drawn, _, deadline = state
            if self.world.clock.now().steady_ns >= deadline:
                continue
            more = min(rng.randrange(8), allowance.calls_count - drawn)
            state[1] += more
            self.calls += [allowance.allowance_id] * more
            self.truth.drawn += more
            if allowance.slot >= 0:
                self.draw(allowance, state[1])

    def make_report(self, rng, *, returned=()):
        settlements = []
        for _ in range(rng.randrange(6)):
            if not self.calls:
                break
            allowance_id = self.calls.pop(rng.randrange(len(self.calls)))
            self.numbers += 1
            cost = rng.choice([0, CALL_NUSD // 2, CALL_NUSD])
            self.truth.settled += 1
            self.truth.cost += cost
            message = pb.Allowance(allowance_id=allowance_id)
            settlements.append(self.settled(message, self.numbers, cost=cost))
        self.sequence += 1
        report = pb.Report(
            sequence=self.sequence,
            settlements=settlements,
            drawn=[
                pb.Drawn(
                    allowance_id=allowance_id,
                    calls_count=state[1],
                    amount_nusd=state[1] * CALL_NUSD,
                    tokens_count=state[1] * CALL_TOKENS,
                )
                for allowance_id, state in self.held.items()
            ],
            returned_allowance_ids=returned,
        )
        self.waiting.append(report)
        return report

    def give_back(self, allowance_id):
        self.make_report(random.Random(0), returned=[allowance_id])
        self.held.pop(allowance_id, None)
        self.resend()

    def heed(self):
        for allowance_id in self.revocations():
            if allowance_id in self.held:
                self.give_back(allowance_id)
        self.heard.clear()


class Truth:
    """What really happened, kept beside the books."""

    def __init__(self):
        self.drawn = self.settled = self.cost = 0


class Chaos:
    """One daemon, three clients, and everything that may happen to them."""

    def __init__(self, seed):
        self.seed = seed
        self.rng = random.Random(seed)
        self.truth = Truth()
        self.maps = seed % 3 > 0
        self.world = World(POLICY, pages=MemoryPages() if self.maps else NoPages())
        self.agents = [Agent(self.world, f"agent-{i}", self.truth).hello() for i in range(3)]
        self.admitted_count = 0

    def step(self, number):
        events = ["take", "draw", "draw", "report", "lose", "tick", "ask", "drop", "swap", "die"]
        getattr(self, self.rng.choice(events))(self.rng.choice(self.agents), number)
        for agent in self.agents:
            agent.heed()
        self.world.check()
        for counter in self.world.counters().values():
            assert counter.used <= counter.limit
            assert not counter.unadmitted

    def take(self, agent, _):
        agent.take(self.rng)

    def draw(self, agent, _):
        agent.draw_some(self.rng)

    def report(self, agent, _):
        agent.make_report(self.rng)
        agent.resend()

    def lose(self, agent, _):
        """A report is booked, but its acknowledgement is lost with the stream."""
        report = agent.make_report(self.rng)
        agent.connection.receive(pb.ClientMessage(report=report))
        agent.come_back(self.world)

    def drop(self, agent, _):
        agent.connection.close()
        agent.come_back(self.world)

    def tick(self, _agent, _number):
        self.world.advance(self.rng.choice([0.1, 1, 3]))

    def ask(self, _, number):
        ask = Ask(
            ask_id=f"ask-{self.seed:06}-{number:06}",
            model="gpt-4o",
            labels={"user": "agent-0"},
            estimated_cost_nusd=CALL_NUSD,
        )
        if self.world.ledger.admit(ask).decision.reservation_id:
            self.admitted_count += 1

    def swap(self, _, number):
        if self.rng.random() < 0.2:
            self.world.swap(POLICY + f"# {number}\n")

    def die(self, _agent, _number):
        """The daemon is killed and started again; every client comes back."""
        if self.maps and self.rng.random() < 0.2:
            self.world = self.world.restarted(POLICY)
            for agent in self.agents:
                agent.come_back(self.world)


@pytest.mark.parametrize("seed", range(60))
def test_books_of_allowances_add_up_whatever_happens(seed):
    chaos = Chaos(seed)
    for number in range(STEPS_COUNT):
        chaos.step(number)
    for agent in chaos.agents:
        agent.connection.close()
    world, truth = chaos.world, chaos.truth
    world.advance(700)
    world.check()
    assert world.desk.books.out == {}
    everything = next(c for key, c in world.counters().items() if not key[16:])
    assert everything.reserved == 0
    in_flight_count = truth.drawn - truth.settled + chaos.admitted_count
    exact = truth.cost + in_flight_count * CALL_NUSD
    if chaos.maps:
        assert everything.settled == exact
    else:  # what nobody can know is presumed spent
        assert everything.settled >= exact
