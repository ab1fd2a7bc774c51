"""How far ended windows may be deleted, whatever the wall clock claims."""

from typing import Final, Self

import msgspec

from costd.model.time import Now

CATCH_UP: Final = 60
"""Wall seconds the horizon may gain in one elapsed second. A month of arrears is made good in
half a day, and a clock that is a year ahead for ten minutes gains ten hours, which any sensible
retention outlasts."""


class Horizon(msgspec.Struct, frozen=True):
    """The wall time the sweeper believes in, and when it last looked on the steady clock.

    It follows the wall clock back at once and ahead at most CATCH_UP times as fast as time
    passes, so that a wall clock that jumps a year ahead and back has no live window deleted.
    """

    wall_ns: int
    steady_ns: int

    @classmethod
    def at(cls, now: Now) -> Self:
        """Begin a new store's horizon: it has nothing to delete yet, so any clock will do."""
        return cls(now.wall_ns, now.steady_ns)

    def moved(self, now: Now) -> "Horizon":
        """Follow the clocks.

        Ensures: never ahead of `now.wall_ns`; gains at most CATCH_UP times the steady time
                 since it last moved.
        """
        elapsed_ns = max(0, now.steady_ns - self.steady_ns)
        reach_ns = self.wall_ns + CATCH_UP * elapsed_ns
        return Horizon(min(now.wall_ns, reach_ns), max(now.steady_ns, self.steady_ns))

    def resumed(self, now: Now) -> "Horizon":
        """Go on after a restart.

        Ensures: the time stopped gains nothing, because nobody measured it.
        """
        return Horizon(min(now.wall_ns, self.wall_ns), now.steady_ns)
