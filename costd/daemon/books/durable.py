"""Commits that survive power loss, at one disk flush for many callers."""

import asyncio
from collections.abc import Callable


class GroupSync:
    """Lets callers wait until what they committed is on the disk.

    One flush runs at a time, in a thread. Whoever comes while it runs waits for the next one,
    because the running one may have passed by their commit; all of them share it. So callers pay
    one to two flushes each, and the disk one per round however many they are.
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._next: asyncio.Future[None] | None = None
        self._rounds: asyncio.Task[None] | None = None
        self.flush_count = 0

    async def wait(self) -> None:
        """Return once everything committed before this call is on the disk.

        Errors: what the flush raised, to everybody who waited for it.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._flush_rounds())
        # A caller that hangs up must not take the others' flush with it.
        await asyncio.shield(self._next)

    async def _flush_rounds(self) -> None:
        while (waited := self._next) is not None:
            self._next = None
            self.flush_count += 1
            try:
                await asyncio.to_thread(self._sync)
            except Exception as error:  # noqa: BLE001  handed on to those who wait
                waited.set_exception(error)
                # All of them may have hung up; their error then has nobody left to hear it.
                waited.exception()
            else:
                waited.set_result(None)
