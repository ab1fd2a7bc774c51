"""What a host does beside its services, for as long as it serves."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from costd.telemetry.logs import Log

CANCEL_EVERY_S: Final = 2.0
"""What has heard needs less than this to clean up."""


@asynccontextmanager
async def background(log: Log, *work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run `work` while the block runs; at its end all of it is over.

    What ends by an error is logged at once: the host serves on without it.
    Cancelling once is not enough: a cancellation that crosses what was waited for is lost in
    `asyncio.wait_for` of Python 3.11, which drivers use, and the work would go on for ever.
    """

    def tell(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("background_failed", work=task.get_name(), exc_info=task.exception())

    tasks = {asyncio.create_task(one, name=getattr(one, "__qualname__", "")) for one in work}
    for task in tasks:
        task.add_done_callback(tell)
    try:
        yield
    finally:
        while pending := {task for task in tasks if not task.done()}:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=CANCEL_EVERY_S)
        await asyncio.gather(*tasks, return_exceptions=True)
