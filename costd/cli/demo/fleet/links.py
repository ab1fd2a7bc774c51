"""Links between daemons and coordinator that can be cut: each is a TCP proxy of its own."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Final, Self

CHUNK_BYTES: Final = 64 * 1024


class Link:
    """One proxy. While it is cut nothing passes, and nobody is told: packets are just lost."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.is_cut = False
        self._target_port = target_port
        self._mended = asyncio.Event()
        self._mended.set()
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Take a port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End all that is open."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def cut(self) -> None:
        """Let nothing pass from now on."""
        self.is_cut = True
        self._mended.clear()

    async def mend(self) -> None:
        """Let all pass again; what was sent meanwhile arrives late, if anybody waited so long."""
        self.is_cut = False
        self._mended.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:  # no coordinator there now
            writer.close()
            return
        ways = ((reader, far_writer), (far_reader, writer))
        tasks = [asyncio.create_task(self._pass(*way)) for way in ways]
        self._open.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        self._open.difference_update(tasks)
        for each in (writer, far_writer):
            each.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                await self._mended.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            return


class Links:
    """The links of all daemons, in a thread of their own."""

    def __init__(self, names: list[str], coordinator_port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._links = {name: Link(coordinator_port) for name in names}

    def __enter__(self) -> Self:
        self._thread.start()
        for link in self._links.values():
            self._run(link.listen())
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links.values():
            self._run(link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def port(self, name: str) -> int:
        """Where a daemon finds its coordinator."""
        return self._links[name].port

    def is_cut(self, name: str) -> bool:
        """Tell whether nothing passes now."""
        return self._links[name].is_cut

    def cut(self, name: str) -> None:
        """Cut a daemon off."""
        self._run(self._links[name].cut())

    def mend(self, name: str) -> None:
        """End that."""
        self._run(self._links[name].mend())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()
