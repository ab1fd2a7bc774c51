"""Which messages become one transaction."""

import asyncio
from contextlib import suppress

from costd.coordinator import join as joining
from costd.coordinator.join import Join
from costd.coordinator.lendable import Span
from costd.coordinator.reception import Published, Reception
from costd.daemon.books.enacting import compiled
from costd.model.policy import PolicySet
from costd.testing import FakeClock
from costd.testing.fleet_store import MemoryFleetStore
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb import fleet_pb2 as pb

ENROL = pb.ToCoordinator(enrol=pb.Enrol(daemon_id="d1", name="d1"))


def report(sequence):
    return pb.ToCoordinator(report=pb.LeaseReport(epoch=1, sequence=sequence))


def request(sequence, *, ahead):
    return pb.ToCoordinator(request=pb.LeaseRequest(epoch=1, sequence=sequence, ahead=ahead))


def usage(sequence, count=1):
    events = [cpb.UsageEvent(sequence=sequence + number) for number in range(count)]
    return pb.ToCoordinator(usage=pb.UsageBatch(epoch=1, events=events))


async def transactions(*messages):
    """Send each once nothing more happens because of those before; count what they became."""
    clock = FakeClock()
    rules = compiled(PolicySet(revision="r1"), clock.wall_ns, in_fleet=True)
    reception = Reception(MemoryFleetStore(), clock, Published(pb.PublishedPolicy(), rules), Span())
    join = Join(reception, log=None)
    sent = asyncio.Queue()

    async def raws():
        while True:
            yield await sent.get()

    heard = []

    async def stay():
        async for raw in join(raws(), None):
            heard.append(pb.ToDaemon.FromString(raw).WhichOneof("message"))  # noqa: PERF401  it is looked at meanwhile

    work = [asyncio.create_task(join.run()), asyncio.create_task(stay())]
    for message in (ENROL, *messages):
        sent.put_nowait(message.SerializeToString())
        for _ in range(50):
            await asyncio.sleep(0)
    while len([each for each in heard if each in {"reply", "receipt", "stored"}]) < len(messages):
        assert not work[1].done(), work[1]
        await asyncio.sleep(0)
    for task in work:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return join.transactions_count - 1


async def test_what_nobody_waits_for_waits_for_what_somebody_does(monkeypatch):
    monkeypatch.setattr(joining, "PATIENT_S", 3_600)
    assert await transactions(request(1, ahead=True), report(2), request(3, ahead=False)) == 1


async def test_what_somebody_waits_for_waits_for_nothing(monkeypatch):
    monkeypatch.setattr(joining, "PATIENT_S", 3_600)
    assert await transactions(request(1, ahead=False), request(2, ahead=False)) == 2


async def test_what_nobody_waits_for_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(joining, "PATIENT_S", 0.001)
    assert await transactions(request(1, ahead=True), report(2)) in {1, 2}


async def test_a_little_usage_waits_for_more(monkeypatch):
    monkeypatch.setattr(joining, "PATIENT_S", 3_600)
    assert await transactions(usage(1), usage(2), usage(3, joining.BACKLOG_COUNT)) == 1


async def test_usage_of_which_there_is_more_waits_for_nothing(monkeypatch):
    monkeypatch.setattr(joining, "PATIENT_S", 3_600)
    many = joining.BACKLOG_COUNT
    assert await transactions(usage(1, many), usage(1 + many, many)) == 2


async def test_a_transaction_has_room_for_so_many_events(monkeypatch):
    monkeypatch.setattr(joining, "PATIENT_S", 3_600)
    monkeypatch.setattr(joining, "EVENTS_COUNT_MAX", 4)
    assert await transactions(usage(1, 2), usage(3, 2), usage(5, 4)) == 2
