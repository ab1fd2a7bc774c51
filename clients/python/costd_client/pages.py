"""The two small files that daemon and client share; docs/reference/allowances.md, "Pages"."""

from __future__ import annotations

import mmap
import os
import sys
from typing import NamedTuple, Protocol

MAGIC = int.from_bytes(b"costdpg1", "little")
WORD_BYTES = 8
HEAD_WORDS = 8
SLOT_WORDS = 8
CAN_MAP = sys.byteorder == "little"
"""Words are written by the machine's own order, in one piece."""


class Words(Protocol):
    """Whole numbers of 64 bits, by index: a mapped page, or a list where there is none."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


class Pages(NamedTuple):
    """Both pages as words; each change is seen by the other side at once."""

    heard: Words
    slots: Words
    slots_count: int


def base_of(slot: int) -> int:
    """Return the index of a slot's first word."""
    return HEAD_WORDS + slot * SLOT_WORDS


def map_pages(daemon_page: str, client_page: str) -> Pages:
    """Map both pages.

    Errors:  OSError or ValueError where they cannot be opened, or are not what they should be.
    """
    heard = _map(daemon_page, writable=False)
    slots = _map(client_page, writable=True)
    slots_count = slots[1]
    if len(slots) < HEAD_WORDS + slots_count * SLOT_WORDS or slots_count < 0:
        raise ValueError(f"{client_page} is too short for its {slots_count} slots")
    return Pages(heard, slots, slots_count)


def _map(path: str, *, writable: bool) -> memoryview[int]:
    file = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
    try:
        size = os.fstat(file).st_size // WORD_BYTES * WORD_BYTES
        if size < HEAD_WORDS * WORD_BYTES:
            raise ValueError(f"{path} has {size} bytes; a page has at least 64")
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        words = memoryview(mmap.mmap(file, size, access=access)).cast("q")
    finally:
        os.close(file)
    if words[0] != MAGIC:
        raise ValueError(f"{path} is no page of costd")
    return words
