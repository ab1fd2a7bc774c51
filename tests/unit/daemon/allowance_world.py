"""A daemon's desk over a store in memory, and client processes that talk to it in words of the
protocol."""

from functools import cache

from costd.daemon.books.ledger import Ledger
from costd.daemon.clients.allowances import AllowanceBooks
from costd.daemon.clients.desk import Desk
from costd.daemon.sweeper import Sweeper
from costd.engine.changes import Family
from costd.engine.invariants import books_problems
from costd.model.allowance import Sums
from costd.model.ask import Ask
from costd.model.time import NS_PER_S
from costd.policy import parse_policy
from costd.testing import FakeClock, MemoryStore
from costd.testing.pages import MemoryPages
from costd.wire.pb import admission_pb2 as pb

CALL_NUSD = 3_500_000
"""What a call of 1,000 prompt and 100 output tokens holds at gpt-4o: 1,000 × 2.5 + 100 × 10 µ$."""
CALL_TOKENS = 1_100

HEAD = """\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
  economy: {models: [openai/gpt-4o-mini]}
task_classes:
  draft: {max_output_tokens: 1000}
  review: {critical: true, min_tier: premium}
default_task_class: draft
default_tier: premium
"""

PLAIN = HEAD + "budgets:\n  - {id: all, window: total, limit: $100}\n"


@cache
def parsed(policy):
    """Read a policy, once."""
    return parse_policy(policy, "policy")


class World:
    """One daemon; `clients` by name. Time moves only when told to."""

    def __init__(self, policy=PLAIN, *, pages=None, store=None, clock=None):
        self.clock = clock or FakeClock()
        self.store = store or MemoryStore()
        self.pages = pages if pages is not None else MemoryPages()
        self.ledger = Ledger(self.store, parsed(policy), self.clock)
        self.desk = Desk(self.ledger, AllowanceBooks(self.ledger), self.pages)
        self.sweeper = Sweeper(self.ledger, None, self.desk)
        self._asked_count = 0

    def client(self, name="ann", **hello):
        return Process(self, name, **hello)

    def restarted(self, policy=PLAIN):
        """Kill the daemon and start another on the same store and pages."""
        self.pages.bump()
        return World(policy, pages=self.pages, store=self.store, clock=self.clock)

    def asked(self, cost_nusd, **fields):
        """Ask for one call beside all allowances; whether it was admitted."""
        self._asked_count += 1
        ask = Ask(
            ask_id=f"asked-{self._asked_count:016}",
            model="gpt-4o",
            estimated_cost_nusd=round(cost_nusd),
            **fields,
        )
        return bool(self.ledger.admit(ask).decision.reservation_id)

    def swap(self, policy):
        self.ledger.swap_policy(parsed(policy))

    def advance(self, seconds):
        self.clock.advance(seconds)
        while self.sweeper.sweep():
            pass

    def counters(self):
        return dict(self.store.scan(Family.COUNTERS))

    @property
    def counter(self):
        """The only counter."""
        (counter,) = self.counters().values()
        return counter

    def usage(self):
        return [event for _, event in self.store.scan(Family.USAGE)]

    def alerts(self):
        return [alert.kind for _, alert in self.store.scan(Family.ALERTS)]

    def spent(self):
        """What all usage events say together: (nano-USD, calls)."""
        events = self.usage()
        return sum(each.cost_nusd for each in events), sum(each.calls_count for each in events)

    def check(self):
        """Whatever happened, the books add up."""
        reservations = (held for _, held in self.store.scan(Family.RESERVATIONS))
        assert books_problems(self.counters().items(), reservations) == []


class Process:
    """A client process that does as it is told, right or wrong."""

    def __init__(self, world, name, *, maps_pages=True, session=None, caller=None):
        self.world = world
        self.session = session or f"session-of-{name:->8}"
        self.heard = []
        self.connection = world.desk.attach(caller or name, self.heard.append)
        self.sequence = 0
        self.welcome = None
        self._hello = pb.Hello(session_id=self.session, maps_pages=maps_pages)

    def hello(self, *held):
        self._hello.held_allowance_ids.extend(held)
        self.connection.receive(pb.ClientMessage(hello=self._hello))
        self.welcome = self.heard.pop(0).welcome
        self.sequence = self.welcome.report_sequence
        return self

    def ask(self, count=100, **typical):
        """Ask for an allowance of calls of 1,000 prompt and 100 output tokens."""
        fields = {"model": "gpt-4o", "prompt_tokens": 1_000, "max_output_tokens": 100}
        message = pb.AllowanceRequest(
            request_id="r1", calls_count=count, typical=pb.AdmitRequest(**(fields | typical))
        )
        self.connection.receive(pb.ClientMessage(request=message))
        return next(m.grant for m in self.heard if m.WhichOneof("message") == "grant")

    def granted(self, count=100, **typical):
        answer = self.ask(count, **typical)
        assert answer.HasField("allowance")
        self.heard.clear()
        return answer.allowance

    def draw(self, allowance, count, amount=None, tokens=None):
        """Draw so many calls in all, on the page, as the client does before it answers."""
        sums = self.sums(count, amount, tokens)
        name = self.world.desk.books.sessions[self.session].page
        self.world.pages.draw(name, allowance.slot, sums)
        return sums

    @staticmethod
    def sums(count, amount=None, tokens=None):
        return Sums(
            count,
            count * CALL_NUSD if amount is None else amount,
            count * CALL_TOKENS if tokens is None else tokens,
        )

    def report(self, *settlements, drawn=(), returned=(), labels=(), sequence=None, generation=0):
        """Send a report; returns its acknowledgement."""
        self.sequence = sequence or self.sequence + 1
        message = pb.Report(
            sequence=self.sequence,
            drawn=[
                pb.Drawn(
                    allowance_id=allowance.allowance_id,
                    calls_count=sums.calls_count,
                    amount_nusd=sums.amount_nusd,
                    tokens_count=sums.tokens_count,
                )
                for allowance, sums in drawn
            ],
            settlements=settlements,
            returned_allowance_ids=[allowance.allowance_id for allowance in returned],
            labels=[pb.Labels(labels=each) for each in labels],
            generation=generation,
        )
        self.connection.receive(pb.ClientMessage(report=message))
        return self.heard.pop().acknowledgement

    @staticmethod
    def settled(allowance, number=1, *, cost=None, **fields):
        """One call that ended: at its hold, unless told otherwise."""
        if cost is not None:
            fields["cost_nusd"] = cost
        elif "usage" not in fields and "voided" not in fields:
            fields["usage"] = pb.Usage(prompt_tokens=1_000, output_tokens=100)
        return pb.DrawSettlement(
            allowance_id=allowance.allowance_id,
            ask_id=f"call-{number:016d}",
            **({"hold_nusd": CALL_NUSD, "tokens_count": CALL_TOKENS} | fields),
        )

    def revocations(self):
        return [
            message.revocation.allowance_id
            for message in self.heard
            if message.WhichOneof("message") == "revocation"
        ]


LIFETIME_S = 5
MARGIN_S = 2
CALL_TTL_S = 600
S = NS_PER_S
