"""What a session needs of the world around it, and the real ones."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from costd_client.ids import new_ask_id
from costd_client.journal import Journal
from costd_client.pages import CAN_MAP, map_pages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from costd_client.pages import Pages

now_ns: Callable[[], int] = (
    functools.partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic_ns
)
"""A clock that goes on while the host sleeps, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a session needs of the world: two clocks, chance, and files.

    `now_ns` goes on while the host sleeps; `map_pages` raises OSError or ValueError where it
    cannot. It is None where there is no use in trying, `open_journal` where none is wanted.
    """

    now_ns: Callable[[], int]
    wall_ns: Callable[[], int]
    new_id: Callable[[], str]
    map_pages: Callable[[str, str], Pages] | None = None
    open_journal: Callable[[str], Journal] | None = None


def surroundings(*, maps_pages: bool, folder: Path | None = None, caller: str = "") -> Surroundings:
    """Return the real clocks, chance and files."""

    def open_journal(session_id: str) -> Journal:
        assert folder is not None
        return Journal(folder, session_id=session_id, caller=caller)

    return Surroundings(
        open_journal=open_journal if folder else None,
        now_ns=now_ns,
        wall_ns=time.time_ns,
        new_id=new_ask_id,
        map_pages=map_pages if maps_pages and CAN_MAP else None,
    )
