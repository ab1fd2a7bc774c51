"""Bodies that arrive, each and all together bounded, and for as long as the API server waits."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterable
from typing import Final

BODIES_COUNT: Final = 4
"""So many of the largest bodies may be held at once, whole or in part; a body that is here is
answered before the next is looked at."""
LARGE_BYTES: Final = 128 * 1024
"""Most reviews have a tenth. Those that have more take turns, so that others come between them."""


class TurnedAway(Exception):
    """A request that is not reviewed; says why, under which status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class _Body:
    """One that arrives."""

    def __init__(self, address: str, wait_s: float) -> None:
        self.address, self.size = address, 0
        self.timeout = asyncio.timeout(wait_s)
        self.is_crowded_out = False


class Bodies:
    """Reads bodies; whoever sends the most makes room for the others."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        """Of one."""
        self._open: dict[_Body, None] = {}
        self._turns = asyncio.Lock()

    async def read(self, parts: AsyncIterable[bytes], address: str, wait_s: float) -> bytes:
        """Read a body that comes from an address; whoever gets it does not wait with it.

        Errors: TurnedAway.
        """
        body, read = _Body(address, wait_s), []
        self._open[body] = None
        try:
            async with body.timeout:
                async for part in parts:
                    body.size += len(part)
                    if body.size > self.bytes_max:
                        raise self.too_large()
                    self._make_room(body)
                    read.append(part)
                if body.size > LARGE_BYTES:
                    async with self._turns:
                        await asyncio.sleep(0)  # for what else has arrived
        except TimeoutError as error:
            if body.is_crowded_out:
                raise _crowded() from error
            raise TurnedAway(
                408, "Timeout", f"the body did not arrive within {wait_s:g} s"
            ) from error
        finally:
            self._open.pop(body, None)
        return b"".join(read)

    def too_large(self) -> TurnedAway:
        """Say that a body is."""
        return TurnedAway(
            413, "RequestEntityTooLarge", f"the body has more than {self.bytes_max} bytes"
        )

    def _make_room(self, newest: _Body) -> None:
        """Turn away the largest body of the address that holds the most, while all are too much.

        Errors: TurnedAway where that is the newest one's.
        """
        while sum(each.size for each in self._open) > BODIES_COUNT * self.bytes_max:
            sizes: Counter[str] = Counter()
            for each in self._open:
                sizes[each.address] += each.size
            most = max(sizes, key=lambda each: sizes[each])
            largest = max((b for b in self._open if b.address == most), key=lambda b: b.size)
            if largest is newest:
                raise _crowded()
            del self._open[largest]
            if not largest.timeout.expired():  # else it is on its way out, and cannot be hurried
                largest.is_crowded_out = True
                largest.timeout.reschedule(asyncio.get_running_loop().time())


def _crowded() -> TurnedAway:
    return TurnedAway(429, "TooManyRequests", "too many bodies arrive at once; send it again")
