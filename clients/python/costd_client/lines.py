"""Append to files of which neither a crash nor a full disk may cost more than the last line."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def append(file: int, line: bytes) -> None:
    """Add a line whole, or nothing of it.

    Shape:   `file` was opened for appending, and nobody else appends to it meanwhile.
    Errors:  OSError.
    """
    written = 0
    try:
        while written < len(line):  # a disk that gets full takes a part without complaint
            written += os.write(file, line[written:])
    except OSError:
        if written:
            os.ftruncate(file, os.fstat(file).st_size - written)
        raise


def end_torn(file: int) -> None:
    """End a line that a crash tore, so that the next one is not lost with it.

    Errors:  OSError.
    """
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        append(file, b"\n")


def lock(path: Path, file: int, *, wait: bool = False) -> bool:
    """Lock a file; False if another process has it, or it is not at its path any more.

    Errors:  OSError.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        there = path.stat()
    except (BlockingIOError, FileNotFoundError):
        return False
    return os.path.samestat(there, os.fstat(file))


def release(file: int) -> None:
    """Close a file, and unlock it also where a forked child has it open."""
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)
