"""A fleet driven by hand: tenancies, reception and books as they run, on one clock."""

import asyncio

from costd.coordinator.lendable import Span
from costd.coordinator.reception import Connection, Published, Received, Reception
from costd.daemon.books.asking import Trust
from costd.daemon.books.enacting import compiled
from costd.daemon.books.ledger import Ledger
from costd.daemon.fleet.tenancy import Situation, Tenancy
from costd.engine import keys
from costd.model.ask import Ask
from costd.model.decision import Verdict
from costd.model.lease import Wanting
from costd.model.time import NS_PER_S
from costd.store.memory import MemoryStore
from costd.testing import FakeClock
from costd.testing.fleet_store import MemoryFleetStore
from costd.wire.pb import fleet_pb2 as pb


class Fleet:
    """A coordinator and its daemons on one clock; messages arrive when `talk` is called."""

    def __init__(self, made, names="ab"):
        self.clock, self.store = FakeClock(), MemoryFleetStore()
        rules = compiled(made, self.clock.wall_ns, in_fleet=True)
        published = Published(pb.PublishedPolicy(number=1), rules)
        self.batches = []
        """What daemons said, by what was said together."""
        self.reception = Reception(self.store, self.clock, published, Span())
        self.daemons = {name: Daemon(self, name, made) for name in names}
        for daemon in self.daemons.values():
            daemon.connect()
        self.talk()

    def __getitem__(self, name):
        return self.daemons[name]

    def talk(self):
        """Carry messages to and fro until nobody says any more."""
        while any(daemon.said or daemon.heard for daemon in self.daemons.values()):
            for daemon in self.daemons.values():
                said, daemon.said = daemon.said, []
                if said and daemon.connection is not None:
                    self.batches.append(said)
                    batch = [Received(daemon.connection, message) for message in said]
                    asyncio.run(self.reception.receive(batch))
                heard, daemon.heard = daemon.heard, []
                for message in heard:
                    daemon.tenancy.receive(message)

    def pass_s(self, time_s, *, away=(), step_s=0.1):
        """Let time pass; whoever is not away reports and is answered."""
        steps = max(1, round(time_s / step_s))
        for _ in range(steps):
            self.clock.advance(time_s / steps)
            for name, daemon in self.daemons.items():
                if name not in away:
                    daemon.tenancy.tick()
            self.talk()

    @property
    def passed(self):
        return sum(daemon.passed for daemon in self.daemons.values())

    def shares(self):
        """What each may use now."""
        return {
            name: daemon.share() if daemon.is_in_tenure else 0
            for name, daemon in self.daemons.items()
        }


class Daemon:
    """One daemon's books and tenancy."""

    def __init__(self, fleet, name, made):
        self.fleet, self.name, self.made = fleet, name, made
        self.store, self.asked, self.passed = MemoryStore(), 0, 0
        self.said, self.heard = [], []
        self.connection = None
        self.boots = 1
        self.open()

    def open(self, **options):
        self.ledger = Ledger(
            self.store, self.made, self.fleet.clock, trust=Trust(name=self.name), in_fleet=True
        )
        self.tenancy = Tenancy(
            self.ledger,
            daemon_id=self.name,
            situation=Situation(name=self.name, boot_id=f"boot {self.boots}"),
            **options,
        )

    @property
    def is_in_tenure(self):
        return self.fleet.clock.steady_ns < self.ledger.state.leases_until_ns

    def restart(self, *, connect, **options):
        self.disconnect()
        self.open(**options)
        if connect:
            self.connect()

    def connect(self):
        self.connection = Connection(self.heard_one, self.closed)
        self.tenancy.connected(self.said_one)

    def disconnect(self):
        if self.connection is not None:
            self.fleet.reception.lost(self.connection)
        self.connection, self.said, self.heard = None, [], []
        self.tenancy.disconnected()

    def said_one(self, message):
        self.said.append(message)

    def heard_one(self, message):
        if message.WhichOneof("message") not in {"policy", "kills"}:
            self.heard.append(message)

    def closed(self, error):
        raise AssertionError(error)

    def admit(self, **labels):
        """Ask as an agent would, and say the reason; OK if allowed."""
        decision = self.decide(**labels).decision
        self.passed += decision.verdict is Verdict.ALLOW
        return decision.reason

    def hold(self):
        return self.decide().decision.reservation_id

    def decide(self, **labels):
        """Decide an ask at once, or wait for the coordinator as a daemon does."""
        self.asked += 1
        self.fleet.clock.advance(1e-6)  # what is rounded is never rounded up, by a ns or two
        ask = Ask(
            ask_id=f"{self.name}-{self.asked}".ljust(16, "."),
            labels=labels,
            estimated_cost_nusd=NS_PER_S,
        )
        for _ in range(20):
            found = self.ledger.admit(ask, may_wait=True)
            if not isinstance(found, Wanting):
                return found
            heard = []
            if not self.tenancy.ask(found.shortages, lambda heard=heard: heard.append(1)):
                break
            for _ in range(12):
                self.fleet.talk()
                if heard:
                    break
                self.fleet.pass_s(0.02)
        return self.ledger.admit(ask)

    def passes(self, count):
        """How many of so many asks at once are admitted."""
        before = self.passed
        for _ in range(count):
            self.admit()
        return self.passed - before

    def share(self):
        """What it holds of the policy's only rate."""
        lease = self.ledger.lease(keys.share_key(keys.rate_tag(self.made.rates[0])))
        return lease.amount if lease else 0
