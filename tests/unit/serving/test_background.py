"""Work beside a host's services ends with them."""

import asyncio

from costd.serving import background as running
from costd.serving.background import background


async def test_work_that_lost_a_cancellation_is_cancelled_again(monkeypatch):
    monkeypatch.setattr(running, "CANCEL_EVERY_S", 0.001)
    begun, cancelled = asyncio.Event(), []

    async def deaf():
        while len(cancelled) < 2:
            try:
                begun.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)

    async with background(deaf()):
        await begun.wait()
    assert len(cancelled) == 2


async def test_work_that_failed_spoils_no_end():
    async def fails():
        raise ValueError

    async def waits():
        await asyncio.Event().wait()

    async with background(fails(), waits()):
        await asyncio.sleep(0)
