"""Small mapped files that daemon and client share on one host; docs/reference/allowances.md."""

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Final, Protocol

from costd.model.allowance import Sums
from costd.serving.sockets import directory_mode

MAGIC: Final = int.from_bytes(b"costdpg1", "little")
WORD_BYTES: Final = 8
HEADER_WORDS: Final = 8
SLOT_WORDS: Final = 8
SLOTS_COUNT: Final = 256
DAEMON_PAGE_BYTES: Final = HEADER_WORDS * WORD_BYTES
CLIENT_PAGE_BYTES: Final = (HEADER_WORDS + SLOTS_COUNT * SLOT_WORDS) * WORD_BYTES

_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW

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

    def arm(self, name: str, slot: int, serial: int) -> bool:
        """Prepare a slot for an allowance: its serial, and nothing drawn; false if it fails."""
        ...

    def drawn(self, name: str, slot: int, serial: int) -> Sums | None:
        """Read how far an allowance was drawn; None where the page makes no sense.

        Shape:   from any thread; makes nothing.
        """
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

    def arm(self, name: str, slot: int, serial: int) -> bool:  # noqa: ARG002
        """Prepare nothing."""
        return False

    def drawn(self, name: str, slot: int, serial: int) -> Sums | None:  # noqa: ARG002
        """Know nothing."""
        return None

    def close_client(self, name: str) -> None:
        """Forget nothing."""


class FilePages:
    """Implements `Pages` by files beside the daemon's socket, for whoever may use the socket.

    Clients map the files; the daemon reads and writes them, because a file that a client cuts
    short would kill a process that maps it. It keeps none of the clients' open: they may be many
    more than a process may hold.
    Errors:  OSError from the constructor where the files cannot be made.
    """

    def __init__(self, socket: Path, *, mode: int) -> None:
        self._folder = socket.parent / f"{socket.name}.pages"
        _claim(self._folder, directory_mode(mode))
        self._mode = mode
        self._path = self._folder / "daemon"
        self._page = _opened(self._path, DAEMON_PAGE_BYTES, mode & 0o644)
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
        try:
            page = _opened(path, CLIENT_PAGE_BYTES, self._mode)
        except OSError:
            return ""
        try:
            os.pwrite(page, _HEADER.pack(MAGIC, SLOTS_COUNT), 0)
        except OSError:
            return ""
        finally:
            os.close(page)
        return str(path.absolute())

    def arm(self, name: str, slot: int, serial: int) -> bool:
        """Prepare a slot for an allowance; false where the page is gone or the disk refuses."""
        try:
            page = os.open(self._folder / name, os.O_WRONLY | _FLAGS)
        except OSError:
            return False
        try:
            os.pwrite(page, _SLOT.pack(serial, 0, 0, 0), _offset(slot))
        except OSError:
            return False
        finally:
            os.close(page)
        return True

    def drawn(self, name: str, slot: int, serial: int) -> Sums | None:
        """Read how far an allowance was drawn; None where the page is gone or makes no sense."""
        try:
            page = os.open(self._folder / name, os.O_RDONLY | _FLAGS)
        except OSError:
            return None
        try:
            return _drawn(page, slot, serial)
        except OSError:
            return None
        finally:
            os.close(page)

    def close_client(self, name: str) -> None:
        """Delete the file of a session's page."""
        (self._folder / name).unlink(missing_ok=True)

    def keep_only(self, names: Collection[str]) -> None:
        """Delete the pages of sessions that nobody remembers; for a daemon that starts."""
        for path in self._folder.iterdir():
            if path != self._path and path.name not in names:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the daemon's page; the files stay, for a daemon that is started again."""
        os.close(self._page)


def _claim(folder: Path, mode: int) -> None:
    """Make the pages' folder, which lets in whom the socket lets in.

    Errors:  OSError where it is somebody else's, who could have put links into it.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode)
    status = folder.lstat()
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or others_write:
        raise PermissionError(
            errno.EPERM,
            "must be a directory that only the daemon writes to; remove it",
            str(folder),
        )
    folder.chmod(mode)  # it may be of a run with another mode of the socket


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
    """Open a file of this size, made of zeros where there is none yet.

    Ensures: its blocks are there: writing into a hole of a mapped file kills a process whose
             disk is full.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, mode)
    try:
        os.fchmod(descriptor, mode)
        if os.fstat(descriptor).st_size != size_bytes:
            os.ftruncate(descriptor, 0)
        os.posix_fallocate(descriptor, 0, size_bytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
