"""The only module that reads time."""

import time
from pathlib import Path
from typing import Final, Protocol

from costd.model.time import NS_PER_S, Now

DOWNTIME_NS_MAX: Final = 86_400 * NS_PER_S
"""The most a restart moves the steady clock on. Nobody can tell a long stop from a wall clock
that was set ahead meanwhile; a day fills every sensible bucket and is all that may be gained."""

_ELAPSED: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Runs on while the host sleeps, so that refills and expiries do not stop with the lid closed."""


_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Stopped(Now, frozen=True):
    """Where a run left the clock, and by what the next may tell how long ago that was.

    `elapsed_ns` is what the host's own clock of elapsed time said, which begins anew with each
    boot; `boot_id` says of which boot it is, empty where the host does not tell.
    """

    boot_id: str = ""
    elapsed_ns: int = 0


class Clock(Protocol):
    """Tells the time; `SystemClock` in the daemon, `costd.testing.FakeClock` in tests.

    Exists so that nothing below a host reads time by itself.
    """

    def now(self) -> Now:
        """Return this moment on both clocks."""
        ...


class SystemClock:
    """The host's clocks; the steady one goes on where the last run left it.

    Ensures: `steady_ns` never runs backwards in one run, whatever is done to the wall clock;
             over a restart within one boot of the host it moves by exactly the time stopped,
             whatever was done to the wall clock; over a reboot by what the wall clock says, at
             least 0 and at most DOWNTIME_NS_MAX. A run that died moves on from what it last saved.
    Source:  docs/adr/0006-asyncio-server.md for what `now` costs on the hot path.
    """

    __slots__ = ("_steady_less_elapsed_ns", "boot_id", "same_boot")

    def __init__(self, *, saved: Now | None = None, boot_id: str | None = None) -> None:
        """Go on from `saved`; `boot_id` stands in for the host's own in tests."""
        elapsed_ns = time.clock_gettime_ns(_ELAPSED)
        self.boot_id = host_boot_id() if boot_id is None else boot_id
        self.same_boot = (
            isinstance(saved, Stopped)
            and bool(saved.boot_id)
            and saved.boot_id == self.boot_id
            and saved.elapsed_ns <= elapsed_ns
        )
        """Whether the host has run on since then, as far as anybody can tell."""
        steady_ns = 0
        if isinstance(saved, Stopped) and self.same_boot:
            steady_ns = saved.steady_ns + elapsed_ns - saved.elapsed_ns
        elif saved is not None:
            steady_ns = saved.steady_ns + downtime_ns(saved.wall_ns, time.time_ns())
        self._steady_less_elapsed_ns = steady_ns - elapsed_ns

    def now(self) -> Now:
        """Return this moment on both clocks."""
        return Now(
            time.time_ns(),
            self._steady_less_elapsed_ns + time.clock_gettime_ns(_ELAPSED),
        )

    def stopped(self) -> Stopped:
        """Return where the clock stands, for the next run to go on from."""
        wall_ns, elapsed_ns = time.time_ns(), time.clock_gettime_ns(_ELAPSED)
        return Stopped(wall_ns, self._steady_less_elapsed_ns + elapsed_ns, self.boot_id, elapsed_ns)


def host_boot_id() -> str:
    """Read which boot of the host this is; empty where it does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def downtime_ns(saved_wall_ns: int, wall_ns: int) -> int:
    """Tell how far a stop between two wall times moves the steady clock on.

    Shape: pure.
    """
    return min(max(wall_ns - saved_wall_ns, 0), DOWNTIME_NS_MAX)


def ticks_ns() -> int:
    """Read a stopwatch: only differences within one process mean anything."""
    return time.perf_counter_ns()
