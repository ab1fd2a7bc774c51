"""Which messages become one transaction."""

import asyncio
from contextlib import suppress

from costd.coordinator import join as joining
from costd.coordinator.join import Join
from costd.coordinator.lendable import Span
from costd.coordinator.reception import Published, Reception
from costd.daemon.enacting import compiled
from costd.model.policy import PolicySet
from costd.testing import FakeClock
from costd.testing.fleet_store import MemoryFleetStore
from costd.wire.pb import fleet_pb2 as pb

ENROL = pb.ToCoordinator(enrol=pb.Enrol(daemon_id="d1", name="d1"))


def report(sequence):
    return pb.ToCoordinator(report=pb.LeaseReport(epoch=1, sequence=sequence))


def request(sequence, *, ahead):
    return pb.ToCoordinator(request=pb.LeaseRequest(epoch=1, sequence=sequence, ahead=ahead))


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
    while len([each for each in heard if each in {"reply", "receipt"}]) < len(messages):
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
