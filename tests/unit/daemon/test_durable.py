import asyncio
import threading

import pytest

from costd.daemon.books.durable import GroupSync
from costd.errors import StoreUnavailable


class Disk:
    """Counts flushes and holds each until let go."""

    def __init__(self):
        self.started = asyncio.Queue()
        self.gates = []
        self._loop = asyncio.get_running_loop()

    def sync(self):
        gate = threading.Event()
        self.gates.append(gate)
        self._loop.call_soon_threadsafe(self.started.put_nowait, gate)
        assert gate.wait(10)

    async def let_one_go(self):
        (await self.started.get()).set()


async def test_one_caller_waits_for_one_flush():
    flushed = []
    group = GroupSync(lambda: flushed.append(1))
    await group.wait()
    assert flushed == [1]
    await group.wait()
    assert group.flush_count == 2


async def test_callers_who_come_during_a_flush_share_the_next():
    disk = Disk()
    group = GroupSync(disk.sync)
    first = asyncio.create_task(group.wait())
    gate = await disk.started.get()
    late = [asyncio.create_task(group.wait()) for _ in range(50)]
    await asyncio.sleep(0)
    gate.set()
    await first
    assert not any(task.done() for task in late)
    await disk.let_one_go()
    await asyncio.gather(*late)
    assert group.flush_count == 2


async def test_a_caller_who_hangs_up_takes_nobody_along():
    disk = Disk()
    group = GroupSync(disk.sync)
    patient, hasty = (asyncio.create_task(group.wait()) for _ in range(2))
    gate = await disk.started.get()
    hasty.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hasty
    gate.set()
    await patient


async def test_a_flush_that_fails_fails_everybody_who_waited_for_it_and_nobody_else():
    failures = [StoreUnavailable("disk full")]

    def sync():
        if failures:
            raise failures.pop()

    group = GroupSync(sync)
    results = await asyncio.gather(group.wait(), group.wait(), return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 2
    await group.wait()


async def test_a_failure_nobody_waits_for_any_more_is_no_warning():
    disk = Disk()

    def sync():
        disk.sync()
        raise StoreUnavailable("disk full")

    group = GroupSync(sync)
    waiting = asyncio.create_task(group.wait())
    gate = await disk.started.get()
    waiting.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(StoreUnavailable):
        await asyncio.gather(group.wait(), disk.let_one_go())
