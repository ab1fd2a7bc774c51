"""Work beside a host's services ends with them."""

import asyncio

from costd.serving import background as running
from costd.serving.background import background


class Log:
    """Keeps what it is told."""

    def __init__(self):
        self.errors = []

    def error(self, event, **fields):
        self.errors.append((event, fields))


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

    async with background(Log(), deaf()):
        await begun.wait()
    assert len(cancelled) == 2


async def test_work_that_failed_is_told_of_at_once_and_spoils_no_end():
    async def fails():
        raise ValueError("a bug")

    async def waits():
        await asyncio.Event().wait()

    log = Log()
    async with background(log, fails(), waits()):
        for _ in range(3):
            await asyncio.sleep(0)
        told = [(event, str(fields["exc_info"])) for event, fields in log.errors]
        assert told == [("background_failed", "a bug")]
        assert "fails" in log.errors[0][1]["work"]
    assert len(log.errors) == 1
