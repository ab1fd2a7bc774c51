"""A clock that moves only when told to."""

from costd.model.time import NS_PER_S, Now


class FakeClock:
    """A clock for tests: both times stand still until moved.

    `wall_ns` and `steady_ns` may be set directly; a test that moves `steady_ns` back tests
    something no real clock does.
    """

    __slots__ = ("steady_ns", "wall_ns")

    def __init__(self, *, wall_ns: int = 1_772_323_200 * NS_PER_S, steady_ns: int = 0) -> None:
        """Start on 1 March 2026 at midnight UTC, a Sunday, unless told otherwise."""
        self.wall_ns = wall_ns
        self.steady_ns = steady_ns

    def now(self) -> Now:
        """Return this moment on both clocks."""
        return Now(self.wall_ns, self.steady_ns)

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        passed_ns = round(seconds * NS_PER_S)
        if passed_ns < 0:
            raise ValueError(f"time does not run backwards; advance({seconds}) would")
        self.wall_ns += passed_ns
        self.steady_ns += passed_ns

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock ahead (or back, if negative) while no time passes."""
        self.wall_ns += round(seconds * NS_PER_S)
