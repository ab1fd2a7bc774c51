"""The only module that reads time."""

import time
from typing import Final, Protocol

from costd.model.time import NS_PER_S, Now

DOWNTIME_NS_MAX: Final = 86_400 * NS_PER_S
"""The most a restart moves the steady clock on. Nobody can tell a long stop from a wall clock
that was set ahead meanwhile; a day fills every sensible bucket and is all that may be gained."""

_ELAPSED: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Runs on while the host sleeps, so that refills and expiries do not stop with the lid closed."""


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
             over a restart it moves by the time stopped, at least 0 and at most
             DOWNTIME_NS_MAX. A run that died moves on from what it last saved.
    Source:  docs/adr/0006-asyncio-server.md for what `now` costs on the hot path.
    """

    __slots__ = ("_steady_less_elapsed_ns",)

    def __init__(self, *, saved: Now | None = None) -> None:
        steady_ns = 0
        if saved is not None:
            steady_ns = saved.steady_ns + downtime_ns(saved.wall_ns, time.time_ns())
        self._steady_less_elapsed_ns = steady_ns - time.clock_gettime_ns(_ELAPSED)

    def now(self) -> Now:
        """Return this moment on both clocks."""
        return Now(
            time.time_ns(),
            self._steady_less_elapsed_ns + time.clock_gettime_ns(_ELAPSED),
        )


def downtime_ns(saved_wall_ns: int, wall_ns: int) -> int:
    """Tell how far a stop between two wall times moves the steady clock on.

    Shape: pure.
    """
    return min(max(wall_ns - saved_wall_ns, 0), DOWNTIME_NS_MAX)


def ticks_ns() -> int:
    """Read a stopwatch: only differences within one process mean anything."""
    return time.perf_counter_ns()
