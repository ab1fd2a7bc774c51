"""A coordinator's database is dumped, goes on, and is set back to the dump: daemons know better."""

import asyncio
import subprocess

import pytest

from costd.coordinator import embedded
from costd.coordinator.lendable import Span
from costd.coordinator.postgres import PostgresStore
from costd.coordinator.reception import Connection, Published, Received, Reception
from costd.daemon.books.ledger import Ledger
from costd.daemon.fleet.tenancy import Situation, Tenancy
from costd.engine.rules import Rules
from costd.model.ask import Ask
from costd.model.decision import Verdict
from costd.model.lease import Wanting
from costd.model.time import NS_PER_S
from costd.policy import parse_policy
from costd.pricing import PriceBook
from costd.testing import FakeClock, MemoryStore
from costd.wire.pb import fleet_pb2 as pb

LIMIT = 100
POLICY = parse_policy(
    f"version: 1\ntask_classes: {{draft: {{}}}}\ndefault_task_class: draft\n"
    f"budgets: [{{id: b, window: total, limit: {LIMIT} calls}}]\n",
    "policy.yaml",
)
RULES = Rules(POLICY, PriceBook(POLICY), in_fleet=True)
[RULE] = RULES.budgets.values()
KEY = RULE.counter_key({}, 0)
SPAN = Span()


class Daemon:
    """One daemon's books, and its stream to a coordinator that answers at once."""

    def __init__(self, name, clock):
        self.name, self.clock = name, clock
        self.ledger = Ledger(MemoryStore(), POLICY, clock, in_fleet=True)
        self.tenancy = Tenancy(
            self.ledger, daemon_id=name, situation=Situation(name=name, boot_id="boot")
        )
        self.said, self.admitted, self._serial = [], 0, 0

    async def join(self, reception):
        self.tenancy.disconnected()
        self.connection = Connection(self.tenancy.receive, lambda error: pytest.fail(str(error)))
        self.reception = reception
        self.tenancy.connected(self.said.append)
        await self.talk()

    async def talk(self):
        while self.said:
            await self.reception.receive([Received(self.connection, self.said.pop(0))])

    async def tell(self):
        self.tenancy.report()
        await self.talk()

    async def calls(self, count):
        """Make so many calls at most: each is asked for, admitted and settled."""
        for _ in range(count):
            self._serial += 1
            ask = Ask(
                ask_id=f"ask-of-{self.name}-{self._serial:012}",
                task_class="draft",
                estimated_cost_nusd=1,
            )
            answer = self.ledger.admit(ask, may_wait=True)
            if isinstance(answer, Wanting):
                self.tenancy.ask(answer.shortages)
                await self.talk()
                answer = self.ledger.admit(ask, may_wait=False)
            if answer.decision.verdict is Verdict.DENY:
                return
            self.admitted += 1
            self.ledger.settle(answer.decision.reservation_id, cost_nusd=1)


def program(name, *arguments):
    subprocess.run(
        [embedded._binaries(embedded.MAJOR) / name, *arguments], check=True, capture_output=True
    )


def reception_of(database, clock):
    store = PostgresStore(database, wall_ns=lambda: clock.now().wall_ns)
    return Reception(store, clock, Published(pb.PublishedPolicy(number=1), RULES), SPAN)


async def stand_of(database):
    async with database.connection() as connection:
        cursor = await connection.execute("SELECT settled, reserved, taken FROM pools")
        return await cursor.fetchone()


async def test_what_a_restored_database_has_forgotten_is_not_lent_again(
    make_database, open_database, tmp_path
):
    clock, dumped = FakeClock(), tmp_path / "dump"
    busy, late, other = daemons = [Daemon(name, clock) for name in ("busy", "late", "other")]
    before = make_database()
    async with open_database(before) as database:
        reception = reception_of(database, clock)
        for daemon in daemons:
            await daemon.join(reception)
            await daemon.calls(5)
            await daemon.tell()
        await asyncio.to_thread(program, "pg_dump", "-Fc", "-f", dumped, before)
        for daemon, count in ((busy, 40), (late, 25)):
            await daemon.calls(count)
            await daemon.tell()
        assert (await stand_of(database))[0] == sum(each.admitted for each in daemons) == 80
    restored = make_database(empty=True)
    await asyncio.to_thread(program, "pg_restore", "--no-owner", "-d", restored, dumped)
    async with open_database(restored) as database:
        assert (await stand_of(database))[0] == 15
        reception = reception_of(database, clock)
        for daemon in (busy, other):
            await daemon.join(reception)
        held = other.ledger.stand(KEY).amount
        await other.calls(LIMIT)
        assert other.admitted <= held, "what the database has forgotten is not lent to others"
        await late.join(reception)
        clock.advance(SPAN.outlived_ns / NS_PER_S + 0.1)
        for daemon in daemons:
            await daemon.tell()
        for _ in range(20):
            clock.advance(0.6)
            for daemon in daemons:
                daemon.tenancy.tick()
                await daemon.calls(LIMIT)
                await daemon.tell()
        assert sum(each.admitted for each in daemons) == LIMIT, "all is lent again, once"
        assert await stand_of(database) == (LIMIT, 0, LIMIT)
    for daemon in daemons:
        assert daemon.ledger.stand(KEY).settled == daemon.admitted
