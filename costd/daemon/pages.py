"""Small mapped files that daemon and client share on one host; docs/reference/allowances.md."""

import os
import struct
from pathlib import Path
from typing import Final, Protocol

from costd.model.allowance import Sums

MAGIC: Final = int.from_bytes(b"costdpg1", "little")
WORD_BYTES: Final = 8
HEADER_WORDS: Final = 8
SLOT_WORDS: Final = 8
SLOTS_COUNT: Final = 256
DAEMON_PAGE_BYTES: Final = HEADER_WORDS * WORD_BYTES
CLIENT_PAGE_BYTES: Final = (HEADER_WORDS + SLOTS_COUNT * SLOT_WORDS) * WORD_BYTES

_HEADER: Final = struct.Struct("<qq")
_SLOT: Final = struct.Struct("<qqqq")


class Pages(Protocol):
    """Where clients see the generation, and the daemon sees how far they drew.

    Implemented by `FilePages` in the daemon and in memory in simulations; exists so that the
    protocol's logic maps no files.
    """

    generation: int

    def bump(self) -> int:
        """Change the generation, for every client to see; return it."""
        ...

    @property
    def daemon_page(self) -> str:
        """The path of the daemon's page; empty where there is none."""
        ...

    def open_client(self, name: str) -> str:
        """Make a session's page if there is none, and return its path; empty where none can be."""
        ...

    def arm(self, name: str, slot: int, serial: int) -> None:
        """Prepare a slot for an allowance: its serial, and nothing drawn."""
        ...

    def drawn(self, name: str, slot: int, serial: int) -> Sums | None:
        """Read how far an allowance was drawn; None where the page makes no sense."""
        ...

    def peek(self, name: str, slot: int, serial: int) -> Sums | None:
        """Read the same for a listing: from any thread, and nothing is made or kept open."""
        ...

    def close_client(self, name: str) -> None:
        """Forget a session's page and delete its file."""
        ...


class NoPages:
    """Implements `Pages` where there is no Unix socket: the stream carries everything."""

    daemon_page = ""

    def __init__(self) -> None:
        self.generation = 1

    def bump(self) -> int:
        """Change the generation."""
        self.generation += 1
        return self.generation

    def open_client(self, name: str) -> str:  # noqa: ARG002
        """Make none."""
        return ""

    def arm(self, name: str, slot: int, serial: int) -> None:
        """Prepare nothing."""

    def drawn(self, name: str, slot: int, serial: int) -> Sums | None:  # noqa: ARG002
        """Know nothing."""
        return None

    peek = drawn

    def close_client(self, name: str) -> None:
        """Forget nothing."""


class FilePages:
    """Implements `Pages` by files beside the daemon's socket, for whoever may use the socket.

    Clients map the files; the daemon reads and writes them, because a file that a client cuts
    short would kill a process that maps it.
    Errors:  OSError from the constructor where the files cannot be made.
    """

    def __init__(self, socket: Path, *, mode: int) -> None:
        self._folder = socket.parent / f"{socket.name}.pages"
        self._folder.mkdir(mode=0o750, exist_ok=True)
        self._mode = mode
        self._path = self._folder / "daemon"
        self._page = _opened(self._path, DAEMON_PAGE_BYTES, mode & 0o644)
        self._clients: dict[str, int] = {}
        magic, generation = _HEADER.unpack(os.pread(self._page, _HEADER.size, 0))
        # A daemon before this one may have died with a change half told.
        self.generation = generation + 1 if magic == MAGIC else 1
        os.pwrite(self._page, _HEADER.pack(MAGIC, self.generation), 0)

    @property
    def daemon_page(self) -> str:
        """The path of the daemon's page."""
        return str(self._path.absolute())

    def bump(self) -> int:
        """Change the generation; every client that maps the page sees it at its next draw."""
        self.generation += 1
        os.pwrite(self._page, _HEADER.pack(MAGIC, self.generation), 0)
        return self.generation

    def open_client(self, name: str) -> str:
        """Make a session's page if there is none; empty where the disk refuses."""
        path = self._folder / name
        if name not in self._clients:
            try:
                page = _opened(path, CLIENT_PAGE_BYTES, self._mode)
                os.pwrite(page, _HEADER.pack(MAGIC, SLOTS_COUNT), 0)
            except OSError:
                return ""
            self._clients[name] = page
        return str(path.absolute())

    def arm(self, name: str, slot: int, serial: int) -> None:
        """Prepare a slot for an allowance."""
        os.pwrite(self._clients[name], _SLOT.pack(serial, 0, 0, 0), _offset(slot))

    def drawn(self, name: str, slot: int, serial: int) -> Sums | None:
        """Read how far an allowance was drawn; None where the page makes no sense."""
        if not self.open_client(name):
            return None
        return _drawn(self._clients[name], slot, serial)

    def peek(self, name: str, slot: int, serial: int) -> Sums | None:
        """Read the same for a listing, by a descriptor of its own: the others may close meanwhile.

        None also where there is no such page.
        """
        try:
            page = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return _drawn(page, slot, serial)
        finally:
            os.close(page)

    def close_client(self, name: str) -> None:
        """Forget a session's page and delete its file."""
        page = self._clients.pop(name, None)
        if page is not None:
            os.close(page)
        (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Close every file; they stay, for a daemon that is started again."""
        for page in (self._page, *self._clients.values()):
            os.close(page)
        self._clients = {}


def _offset(slot: int) -> int:
    return (HEADER_WORDS + slot * SLOT_WORDS) * WORD_BYTES


def _drawn(page: int, slot: int, serial: int) -> Sums | None:
    read = os.pread(page, _SLOT.size, _offset(slot))
    if len(read) < _SLOT.size:
        return None
    found, calls_count, amount_nusd, tokens_count = _SLOT.unpack(read)
    if found != serial or min(calls_count, amount_nusd, tokens_count) < 0:
        return None
    return Sums(calls_count, amount_nusd, tokens_count)


def _opened(path: Path, size_bytes: int, mode: int) -> int:
    """Open a file of this size, made of zeros where there is none yet."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        if os.fstat(descriptor).st_size != size_bytes:
            os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, size_bytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
