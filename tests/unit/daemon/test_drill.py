"""A drill: everyone hears, nobody is stopped, and who does not confirm is named."""

import asyncio

import pytest
from allowance_world import LIFETIME_S, MARGIN_S, World

from costd.daemon.clients.pages import NoPages
from costd.daemon.control import ControlService
from costd.engine.changes import Family
from costd.errors import InvalidAsk, StoreUnavailable
from costd.testing.pages import MemoryPages
from costd.wire.pb import admission_pb2 as apb
from costd.wire.pb import control_pb2 as pb

MS = 1_000_000


class Source:
    """A policy that came from nowhere."""

    path = text = error = ""
    loaded_ns = 0

    def reload(self, actor):
        raise NotImplementedError(actor)


@pytest.fixture(params=[MemoryPages, NoPages], ids=["pages", "streams"])
def world(request):
    made = World(pages=request.param())
    yield made
    made.check()


class Operator:
    """Begins drills at one world, and takes their reports."""

    def __init__(self, world, flush=None):
        self._service = ControlService(world.ledger, Source(), world.desk, flush=flush)
        self._store = world.store

    async def begin(self, *, timeout_s=60, caller="", **fields):
        """Return once everybody has been told."""
        request = pb.DrillRequest(**fields)
        request.timeout.FromNanoseconds(round(timeout_s * 1000) * MS)
        task = asyncio.create_task(self._service.Drill(request, caller))
        await asyncio.sleep(0)
        return task

    def audited(self):
        return [
            (record.action, record.actor, record.subject, record.detail)
            for _, record in self._store.scan(Family.AUDIT)
            if "drill" in record.action
        ]


@pytest.fixture
def operator(world):
    return Operator(world)


def told(client):
    """The generation that a client was told of and is to confirm."""
    (message,) = client.heard
    assert message.generation.confirm
    client.heard.clear()
    return message.generation.generation


def by_caller(report):
    return {row.caller: row for row in report.processes}


async def test_a_drill_says_how_long_each_process_took_to_hear(world, operator):
    ann, bob = world.client("ann").hello(), world.client("bob").hello()
    before = world.pages.generation
    drill = await operator.begin(reason="monthly", actor="ops@host")
    world.clock.advance(0.003)
    assert ann.report(generation=told(ann)).sequence == 1
    await asyncio.sleep(0)
    assert not drill.done()
    world.clock.advance(0.004)
    bob.report(generation=told(bob))
    report = await drill
    assert report.generation == world.pages.generation == before + 1
    assert (report.attached_count, report.confirmed_count) == (2, 2)
    assert [(row.caller, row.session_id, row.confirmed_ns) for row in report.processes] == [
        ("bob", bob.session, 7 * MS),
        ("ann", ann.session, 3 * MS),
    ]
    assert (report.written_ns, report.p50_ns, report.max_ns) == (0, 3 * MS, 7 * MS)
    assert "ask one by one" in report.note
    found = (
        "everything: monthly; 2 of 2 processes confirmed, half within 3.0 ms, the last after "
        "7.0 ms; written after 0.0 ms"
    )
    assert operator.audited() == [
        ("kill_drill_begun", "ops@host", report.drill_id, "everything: monthly"),
        ("kill_drilled", "ops@host", report.drill_id, found),
    ]


async def test_a_drill_stops_nobody_and_changes_no_books(world, operator):
    client = world.client("ann").hello()
    allowance = client.granted(100, labels={"team": "a"})
    counters = world.counters()
    drill = await operator.begin()
    client.report(generation=told(client))
    await drill
    assert client.revocations() == []
    assert world.desk.revoked == set()
    assert world.counters() == counters
    sums = client.sums(3)
    if allowance.slot >= 0:
        client.draw(allowance, 3)
    assert not client.report(client.settled(allowance), drawn=[(allowance, sums)]).problems
    assert world.asked(1)


async def test_it_counts_what_a_kill_switch_of_its_scope_would_revoke(world, operator):
    ann, bob = world.client("ann").hello(), world.client("bob").hello()
    ann.granted(10, labels={"team": "a"})
    ann.granted(10, labels={"team": "a"}, model="gpt-4o-mini")
    bob.granted(10, labels={"team": "b"})
    drill = await operator.begin(scope={"model": "gpt-4o-mini"})
    for client in (ann, bob):
        client.report(generation=told(client))
    rows = by_caller(await drill)
    assert (rows["ann"].allowances_count, rows["bob"].allowances_count) == (1, 0)
    assert operator.audited()[0][-1] == "model=gpt-4o-mini"


async def test_who_does_not_confirm_in_time_is_named_first(world, operator):
    ann, old = world.client("ann").hello(), world.client("old").hello()
    drill = await operator.begin(timeout_s=0.05, caller="console")
    ann.report(generation=told(ann))
    old.report()  # a client of an earlier version
    report = await drill
    assert [row.caller for row in report.processes] == ["old", "ann"]
    assert not report.processes[0].HasField("confirmed_ns")
    assert report.processes[0].attached
    assert (report.attached_count, report.confirmed_count, report.max_ns) == (2, 1, 0)
    assert operator.audited()[-1][1] == "console"
    assert operator.audited()[-1][-1].endswith(f"; not confirmed: old ({old.session})")


async def test_what_draws_looked_at_before_confirms_nothing_and_what_came_later_does(
    world, operator
):
    client = world.client("ann").hello()
    drill = await operator.begin()
    generation = told(client)
    client.report(generation=generation - 1)
    await asyncio.sleep(0)
    assert not drill.done()
    client.report(generation=generation + 1)
    assert (await drill).confirmed_count == 1


async def test_nobody_to_hear_is_no_wait(operator):
    report = await (await operator.begin())
    assert (report.attached_count, report.confirmed_count, len(report.processes)) == (0, 0, 0)
    assert not report.HasField("p50_ns")
    assert not report.HasField("max_ns")


async def test_a_process_without_a_stream_that_may_draw_is_waited_for(world, operator):
    client = world.client("ann").hello()
    allowance = client.granted(10)
    client.connection.close()
    drill = await operator.begin()
    again = world.client("ann").hello(allowance.allowance_id)
    again.report(generation=told(again))
    report = await drill
    assert report.attached_count == 0
    assert (report.processes[0].attached, report.confirmed_count) == (True, 1)


async def test_one_that_cannot_be_heard_of_is_told_of_as_not_attached(world, operator):
    client = world.client("ann").hello()
    client.granted(10)
    client.connection.close()
    report = await (await operator.begin(timeout_s=0.01))
    (row,) = report.processes
    assert (row.attached, row.left, row.HasField("confirmed_ns")) == (False, False, False)
    world.advance(LIFETIME_S + MARGIN_S)
    assert list((await (await operator.begin())).processes) == []


async def test_a_process_that_ends_holding_nothing_is_waited_for_no_longer(world, operator):
    client = world.client("ann").hello()
    allowance = client.granted(10)
    drill = await operator.begin()
    client.report(returned=[allowance])
    client.connection.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert drill.done()
    report = await drill
    assert report.processes[0].left
    assert operator.audited()[-1][-1].startswith("everything; 0 of 0 processes confirmed")


async def test_a_process_whose_stream_breaks_while_it_holds_something_is_asked_again(
    world, operator
):
    client = world.client("ann").hello()
    allowance = client.granted(10)
    drill = await operator.begin()
    client.connection.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not drill.done()
    again = world.client("ann").hello(allowance.allowance_id)
    again.report(generation=told(again))
    assert (await drill).confirmed_count == 1


async def test_one_that_held_nothing_and_comes_back_is_asked_again(world, operator):
    ann, bob = world.client("ann").hello(), world.client("bob").hello()
    drill = await operator.begin()
    ann.connection.close()
    again = world.client("ann").hello()
    assert again.session == ann.session
    generation = told(again)
    bob.report(generation=told(bob))
    await asyncio.sleep(0)
    assert not drill.done(), "it is there, and has not confirmed"
    again.report(generation=generation)
    report = await drill
    assert report.confirmed_count == 2
    assert not by_caller(report)["ann"].left


async def test_one_that_comes_back_just_as_nobody_is_awaited_any_more_is_awaited(world, operator):
    ann = world.client("ann").hello()
    drill = await operator.begin()
    ann.connection.close()
    again = world.client("ann").hello()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not drill.done()
    again.report(generation=told(again))
    assert (await drill).confirmed_count == 1


async def test_one_that_comes_back_is_asked_by_what_it_was_welcomed_with(world, operator):
    client = world.client("ann").hello()
    allowance = client.granted(10)
    drill = await operator.begin()
    client.connection.close()
    world.desk.policy_changed()
    again = world.client("ann").hello(allowance.allowance_id)
    generation = told(again)
    assert generation == again.welcome.generation == world.desk.pages.generation
    again.report(generation=generation)
    assert (await drill).confirmed_count == 1


async def test_two_drills_at_once_are_both_confirmed_by_the_later_generation(world, operator):
    client = world.client("ann").hello()
    first = await operator.begin()
    second = await operator.begin()
    client.report(generation=client.heard.pop().generation.generation)
    assert (await first).confirmed_count == (await second).confirmed_count == 1


async def test_written_means_on_the_disk_where_answers_wait_for_it(world):
    flushed = asyncio.Event()
    operator = Operator(world, flush=flushed.wait)
    client = world.client("ann").hello()
    drill = await operator.begin()
    world.clock.advance(0.002)
    client.report(generation=told(client))
    world.clock.advance(0.003)
    flushed.set()
    report = await drill
    assert (report.written_ns, report.max_ns) == (5 * MS, 2 * MS)


async def test_nobody_is_told_where_the_drill_cannot_be_written_down(world, operator):
    client = world.client("ann").hello()
    generation, commit = world.pages.generation, world.store.commit

    def full(puts):
        raise StoreUnavailable("the disk is full")

    world.store.commit = full
    with pytest.raises(StoreUnavailable):
        await (await operator.begin())
    world.store.commit = commit
    assert client.heard == []
    assert world.pages.generation == generation


async def test_an_operator_that_hangs_up_leaves_what_was_found_in_the_audit(world, operator):
    world.client("ann").hello()
    drill = await operator.begin(reason="x")
    drill.cancel()
    with pytest.raises(asyncio.CancelledError):
        await drill
    assert "everything: x; 0 of 1 processes confirmed" in operator.audited()[-1][-1]
    again = world.client("ann").hello()
    assert again.heard == []  # nothing waits for it any more


async def test_many_that_are_silent_do_not_fill_the_audit(world, operator):
    for number in range(30):
        world.client(f"agent{number}").hello()
    await (await operator.begin(timeout_s=0.01))
    detail = operator.audited()[-1][-1]
    assert detail.count("session-of-") == 20
    assert detail.endswith(", 10 more")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"timeout_s": 0}, "timeout must be more than 0 and at most 60 seconds"),
        ({"timeout_s": 60.001}, "timeout must be more than 0 and at most 60 seconds"),
        ({"reason": "line\nbreak"}, "reason has characters"),
        ({"actor": "a" * 1_025}, "actor has more than"),
        ({"scope": {"": "a"}}, "scope"),
    ],
)
async def test_a_drill_that_is_not_clear_tells_nobody(world, operator, fields, problem):
    client = world.client("ann").hello()
    with pytest.raises(InvalidAsk, match=problem):
        await (await operator.begin(**fields))
    assert client.heard == []
    assert operator.audited() == []


def test_a_change_that_is_no_drill_asks_for_no_confirmation(world):
    client = world.client("ann").hello()
    world.swap("version: 1\n" + "tiers: {premium: {models: [openai/gpt-4o]}}\n")
    assert client.heard
    assert not any(message.generation.confirm for message in client.heard)
    assert apb.Generation().confirm is False
