"""Drills of a fleet with several replicas: who is reached, and what is said of who is not."""

import asyncio
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import pytest

from costd.coordinator import drills as drilling
from costd.coordinator.control import FleetControlService
from costd.coordinator.drill_words import (
    WORD_BYTES_MAX,
    DrillCall,
    DrillHeard,
    DrillRoll,
    read_word,
    roll_of,
    word_text,
)
from costd.coordinator.drills import Drills
from costd.coordinator.lendable import Span
from costd.coordinator.reception import Connection, Published, Reception
from costd.coordinator.rows import Daemon
from costd.coordinator.store import Instance
from costd.daemon.books.enacting import compiled
from costd.errors import CoordinatorUnavailable
from costd.model.policy import PolicySet
from costd.model.time import NS_PER_S
from costd.testing import FakeClock
from costd.testing.fleet_store import MemoryFleetStore
from costd.wire.pb import fleet_control_pb2 as fpb
from costd.wire.pb import fleet_pb2 as pb

CALL = DrillCall(drill_id="drill-1", from_id="a", timeout_ns=NS_PER_S)
MS = 1_000_000


class Carrier(MemoryFleetStore):
    """A database between replicas, which may lose words, be away, or stand still."""

    def __init__(self):
        super().__init__()
        self.loses = lambda _word: False
        self.polls = self.is_away = False
        self.goes_on = asyncio.Event()
        self.lists = asyncio.Event()
        self.goes_on.set()
        self.lists.set()
        self.told = []
        """Each time, what was told together."""

    async def list_instances(self):
        await self.lists.wait()
        return await super().list_instances()

    async def tell_drill(self, words):
        await self.goes_on.wait()
        if self.is_away:
            raise CoordinatorUnavailable("gone")
        if self.polls:
            return False
        self.told.append(words)
        return await super().tell_drill([word for word in words if not self.loses(word)])


class Replica:
    """One coordinator, as far as drills go."""

    def __init__(self, fleet, name):
        self.store, self.clock = fleet.store, fleet.clock
        rules = compiled(PolicySet(revision="r1"), self.clock.wall_ns, in_fleet=True)
        published = Published(pb.PublishedPolicy(), rules)
        self.reception = Reception(self.store, self.clock, published, Span())
        self.drills = Drills(self.store, self.reception, self.clock, name)
        self.pushed = []
        """Who was told of a drill, in order."""

    def join(self, daemon_id, *, clients=0, unconfirmed=0, confirms=True):
        """Attach a daemon called by its id in capitals; it answers at once, or never."""

        def push(message):
            self.pushed.append(daemon_id)
            if confirms:
                for finished in (False, True):
                    confirmed = pb.DrillConfirmation(
                        drill_id=message.drill.drill_id,
                        clients_count=clients if finished else 0,
                        unconfirmed_count=unconfirmed if finished else 0,
                        finished=finished,
                    )
                    confirmed.slowest.FromNanoseconds(7 * MS if finished else 0)
                    self.reception.drilled(connection, confirmed)

        connection = Connection(push, lambda _error: None)
        connection.daemon_id, connection.name = daemon_id, daemon_id.upper()
        self.reception.attached[daemon_id] = connection
        return connection

    async def hear(self):
        async for notice in self.store.notices():
            if notice.word is not None:
                self.drills.heard(notice.word)


class Fleet:
    """Replicas called a, b, … that one database connects."""

    def __init__(self, names):
        self.store, self.clock = Carrier(), FakeClock()
        self.replicas = {name: Replica(self, name) for name in names}
        self.store.instances = [
            Instance(instance_id=name, release="1", schema_number=1) for name in names
        ]

    def __getattr__(self, name):
        return self.replicas[name]

    async def drill(self, replica, timeout_s=60):
        """Begin, and go on until nothing more happens by itself."""
        task = asyncio.create_task(replica.drills.run(timeout_s * NS_PER_S))
        await settled()
        return task


async def settled():
    for _ in range(100):
        await asyncio.sleep(0)


async def pass_s(time_s):
    """Let the loop believe that so much time has passed."""
    loop = asyncio.get_running_loop()
    real = loop.time
    loop.time = lambda: real() + time_s
    await settled()


@asynccontextmanager
async def running(names):
    fleet = Fleet(names)
    work = [
        asyncio.create_task(each)
        for replica in fleet.replicas.values()
        for each in (replica.hear(), replica.drills.tell())
    ]
    await settled()
    try:
        yield fleet
    finally:
        for task in work:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def fleet():
    """Two replicas."""
    async with running("ab") as made:
        yield made


def heard(report):
    """Who heard, by name."""
    return sorted(row.name for row in report.daemons if row.HasField("heard_ns"))


def deaf(report):
    return sorted(row.name for row in report.daemons if not row.HasField("heard_ns"))


# ---- everybody ----------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["a", "b", "c"])
async def test_a_drill_at_any_replica_reaches_the_daemons_of_all_and_their_clients(asked):
    async with running("abc") as fleet:
        fleet.a.join("d1", clients=2)
        fleet.b.join("d2", clients=3, unconfirmed=1)
        report = (await fleet.drill(fleet.replicas[asked])).result()
        assert heard(report) == ["D1", "D2"]
        assert (report.daemons_count, report.confirmed_count) == (2, 2)
        assert (report.clients_count, report.unconfirmed_clients_count) == (5, 1)
        assert report.clients_max_ns == 7 * MS
        assert fleet.a.pushed == ["d1"], "its own word comes back to a replica and is not acted on"
        assert fleet.b.pushed == ["d2"]


async def test_a_daemon_elsewhere_was_heard_when_its_word_came_here(fleet):
    connection = fleet.b.join("d2", confirms=False)
    task = await fleet.drill(fleet.a)
    fleet.clock.advance(0.004)
    drill_id = fleet.store.told[0][0].drill_id
    fleet.b.reception.drilled(connection, pb.DrillConfirmation(drill_id=drill_id))
    await settled()
    assert not task.done(), "its clients have not confirmed"
    fleet.clock.advance(0.004)
    finished = pb.DrillConfirmation(drill_id=drill_id, clients_count=1, finished=True)
    finished.slowest.FromNanoseconds(2 * MS)
    fleet.b.reception.drilled(connection, finished)
    await settled()
    [row] = task.result().daemons
    assert (row.heard_ns, row.clients_max_ns) == (4 * MS, 6 * MS)


async def test_nobody_anywhere_is_an_empty_report_at_once(fleet):
    assert (await fleet.drill(fleet.a)).result().daemons_count == 0


async def test_two_drills_at_once_do_not_mix(fleet):
    fleet.a.join("d1")
    fleet.b.join("d2")
    one, other = await asyncio.gather(fleet.drill(fleet.a), fleet.drill(fleet.b))
    assert heard(one.result()) == heard(other.result()) == ["D1", "D2"]
    assert one.result().drill_id != other.result().drill_id


async def test_what_gathers_while_word_is_on_its_way_goes_together(fleet):
    for number in range(50):
        fleet.b.join(f"d{number:02}")
    report = (await fleet.drill(fleet.a)).result()
    assert len(heard(report)) == 50
    assert [len(words) for words in fleet.store.told] == [1, 101], "a call; a roll and all answers"


# ---- the words ----------------------------------------------------------------------------------


def test_a_roll_comes_in_slices_that_a_notification_can_carry():
    names = {f"{number:032x}": "Köln " * 20 for number in range(100)}
    rolls = roll_of(names, CALL, "b")
    assert len(rolls) > 1
    assert [roll.slice_number for roll in rolls] == [*range(1, len(rolls) + 1)]
    texts = [word_text(roll) for roll in rolls]
    assert all(text.isascii() and len(text) <= WORD_BYTES_MAX for text in texts)
    told = [read_word(text) for text in texts]
    assert told == rolls
    assert {daemon_id: name for roll in told for daemon_id, name in roll.names.items()} == names
    assert {roll.slices_count for roll in told} == {len(rolls)}


def test_a_roll_names_whom_it_can():
    names = {"d1": "x" * 9_000, "y" * 9_000: "d2", "d3": "D3"}
    [roll] = roll_of(names, CALL, "b")
    assert roll.names == {"d1": "", "d3": "D3"}
    assert [each.names for each in roll_of({}, CALL, "b")] == [{}]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"type":"later"}', '{"type":"call"}'])
def test_what_is_no_word_of_this_release_is_passed_over(text):
    assert read_word(text) is None


async def test_a_roll_in_slices_is_waited_for_until_it_is_complete(fleet):
    for number in range(300):
        fleet.b.join(f"{number:032x}")
    late = []
    fleet.store.loses = lambda word: (
        isinstance(word, DrillRoll) and word.slice_number == 2 and not late.append(word)
    )
    task = await fleet.drill(fleet.a)
    assert not task.done()
    fleet.a.drills.heard(late[0])
    await settled()
    assert len(heard(task.result())) == 300
    assert all(row.name for row in task.result().daemons)


async def test_a_slice_that_comes_twice_counts_once(fleet):
    task = await fleet.drill(fleet.a)
    assert task.done()
    fleet.store.instances.append(Instance(instance_id="c", release="1", schema_number=1))
    task = await fleet.drill(fleet.a)
    first = DrillRoll(
        drill_id=fleet.store.told[-1][0].drill_id,
        to_id="a",
        from_id="c",
        slice_number=1,
        slices_count=2,
        names={},
    )
    for _ in range(2):
        fleet.a.drills.heard(first)
    await settled()
    assert not task.done()
    task.cancel()


async def test_a_roll_that_comes_before_it_is_known_who_is_there_is_not_waited_for_again(fleet):
    fleet.store.lists.clear()
    fleet.b.join("d2")
    task = await fleet.drill(fleet.a)
    assert not task.done(), "there may be others"
    fleet.store.lists.set()
    await settled()
    assert heard(task.result()) == ["D2"]


async def test_a_call_that_comes_twice_is_acted_on_once(fleet):
    fleet.b.join("d2")
    call = DrillCall(drill_id="drill-9", from_id="c", timeout_ns=NS_PER_S)
    for _ in range(2):
        fleet.b.drills.heard(call)
    assert fleet.b.pushed == ["d2"]


async def test_what_is_told_to_another_replica_is_not_for_this_one(fleet):
    fleet.a.join("d1", confirms=False)
    task = await fleet.drill(fleet.a)
    drill_id = fleet.store.told[0][0].drill_id
    fleet.a.drills.heard(DrillHeard(drill_id=drill_id, to_id="b", daemon_id="d1", finished=True))
    fleet.a.drills.heard(DrillHeard(drill_id="other", to_id="a", daemon_id="d1", finished=True))
    await settled()
    assert not task.done()
    task.cancel()


# ---- lost and late ------------------------------------------------------------------------------


async def test_a_daemon_that_does_not_hear_is_waited_for_and_named(fleet):
    fleet.a.join("d1")
    fleet.b.join("d2", confirms=False)
    task = await fleet.drill(fleet.a, 5)
    await pass_s(5)
    assert not task.done(), "a confirmation may be on its way"
    await pass_s(2)
    assert (heard(task.result()), deaf(task.result())) == (["D1"], ["D2"])


async def test_a_daemon_whose_word_is_lost_has_not_confirmed(fleet):
    fleet.b.join("d2")
    fleet.store.loses = lambda word: isinstance(word, DrillHeard)
    task = await fleet.drill(fleet.a, 5)
    await pass_s(7)
    assert deaf(task.result()) == ["D2"]


async def test_a_daemon_that_no_roll_names_is_reported_once_it_is_heard(fleet):
    fleet.b.join("d2")
    fleet.store.loses = lambda word: isinstance(word, DrillRoll)
    task = await fleet.drill(fleet.a, 5)
    assert not task.done(), "others may be there"
    await pass_s(7)
    [row] = task.result().daemons
    assert (row.daemon_id, row.name, row.HasField("heard_ns")) == ("d2", "", True)


async def test_a_replica_that_does_not_answer_is_waited_for_no_longer_than_anybody(fleet):
    fleet.a.join("d1")
    fleet.store.loses = lambda word: isinstance(word, DrillCall)
    fleet.b.join("d2")
    task = await fleet.drill(fleet.a, 5)
    assert not task.done()
    await pass_s(7)
    assert (heard(task.result()), task.result().daemons_count) == (["D1"], 1)


async def test_a_replica_forgets_what_another_asked_once_nobody_waits_for_it(fleet):
    connection = fleet.b.join("d2", confirms=False)
    task = await fleet.drill(fleet.a, 5)
    await pass_s(7)
    drill_id, told = task.result().drill_id, len(fleet.store.told)
    fleet.clock.advance(7)
    late = pb.DrillConfirmation(drill_id=drill_id, finished=True)
    fleet.b.reception.drilled(connection, late)
    await settled()
    assert len(fleet.store.told) == told
    await fleet.drill(fleet.a, 5)
    fleet.b.reception.drilled(connection, late)
    assert drill_id not in fleet.b.drills._foreign


async def test_what_comes_after_the_report_changes_nothing(fleet):
    fleet.b.join("d2", confirms=False)
    task = await fleet.drill(fleet.a, 5)
    await pass_s(7)
    report = task.result()
    fleet.a.drills.heard(
        DrillHeard(drill_id=report.drill_id, to_id="a", daemon_id="d2", finished=True)
    )
    assert deaf(report) == ["D2"]


# ---- the database -------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["polls", "is_away"])
async def test_where_no_word_is_carried_a_replica_reports_its_own_and_waits_for_no_other(
    fleet, trouble
):
    setattr(fleet.store, trouble, True)
    fleet.a.join("d1")
    fleet.b.join("d2")
    assert heard((await fleet.drill(fleet.a)).result()) == ["D1"]
    assert fleet.b.pushed == []


async def test_a_database_that_stands_still_is_waited_for_a_moment_only(fleet):
    fleet.store.goes_on.clear()
    fleet.a.join("d1")
    task = await fleet.drill(fleet.a, 60)
    assert fleet.a.pushed == ["d1"]
    assert not task.done()
    await pass_s(drilling.DATABASE_S + 0.1)
    assert heard(task.result()) == ["D1"]


async def test_a_replica_that_could_not_tell_goes_on_telling(fleet):
    fleet.b.join("d2")
    fleet.store.is_away = True
    fleet.b.drills.heard(DrillCall(drill_id="drill-9", from_id="c", timeout_ns=NS_PER_S))
    await settled()
    fleet.store.is_away = False
    assert heard((await fleet.drill(fleet.a)).result()) == ["D2"]


# ---- what operators are told --------------------------------------------------------------------


@pytest.fixture
def operators(fleet):
    """Operators of replica a; what was audited is in `notes`."""
    notes = []

    async def note(record):
        notes.append(record)

    service = FleetControlService(
        fleet.store,
        fleet.a.reception,
        SimpleNamespace(note=note),
        fleet.clock,
        None,
        drills=fleet.a.drills,
    )
    return SimpleNamespace(service=service, notes=notes)


def known(fleet, *names, tenure_s=9):
    ends_ns = fleet.clock.wall_ns + tenure_s * NS_PER_S
    for name in names:
        fleet.store.daemons[name] = Daemon(daemon_id=name, name=name, tenure_ends_ns=ends_ns)


async def test_daemons_that_are_heard_and_in_no_row_are_counted(fleet, operators):
    fleet.a.join("d1")
    fleet.b.join("d2")
    known(fleet, "d1", "d2", "d3", "d4")
    known(fleet, "d5", tenure_s=-1)
    report = await operators.service.DrillFleet(fpb.DrillFleetRequest(actor="ann"), "")
    assert (report.daemons_count, report.elsewhere_count) == (2, 2)
    assert [note.detail for note in operators.notes] == ["2 of 2 daemons"]
    fleet.store.polls = True
    report = await operators.service.DrillFleet(fpb.DrillFleetRequest(actor="ann"), "")
    assert (report.daemons_count, report.elsewhere_count) == (1, 3)


async def test_what_the_database_does_not_say_is_not_said(fleet, operators, monkeypatch):
    async def gone(**_):
        raise CoordinatorUnavailable("gone")

    monkeypatch.setattr(fleet.store, "list_daemons", gone)
    report = await operators.service.DrillFleet(fpb.DrillFleetRequest(actor="ann"), "")
    assert not report.HasField("elsewhere_count")
