import asyncio
import time

from costd.daemon.servers import QUIET_S, _until_quiet
from costd.serving.calls import CallFigures


async def waited_s(figures, insisted, at_most_s):
    started = time.monotonic()
    await asyncio.wait_for(_until_quiet(figures, insisted, at_most_s), 20)
    return time.monotonic() - started


async def test_a_drain_ends_once_nothing_has_been_open_for_a_while():
    assert await waited_s(CallFigures(), asyncio.Event(), 60) >= QUIET_S


async def test_a_drain_waits_for_what_is_open():
    figures = CallFigures()
    figures.open_count = 1
    drain = asyncio.create_task(_until_quiet(figures, asyncio.Event(), 60))
    await asyncio.sleep(2 * QUIET_S)
    assert not drain.done()
    figures.open_count = 0
    await asyncio.wait_for(drain, 20)


async def test_a_drain_waits_no_longer_than_it_may():
    figures = CallFigures()
    figures.open_count = 1
    assert await waited_s(figures, asyncio.Event(), 0.1) < 20


async def test_a_drain_ends_when_somebody_insists():
    figures, insisted = CallFigures(), asyncio.Event()
    figures.open_count = 1
    insisted.set()
    assert await waited_s(figures, insisted, 60) < 20
