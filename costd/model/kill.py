"""The emergency stop."""

from enum import StrEnum

import msgspec

from costd.model.labels import Selector


class KillMode(StrEnum):
    """How far a kill switch goes."""

    DENY_ALL = "deny_all"
    CRITICAL_ONLY = "critical_only"
    MAX_TIER = "max_tier"


class KillSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """A scoped stop: engaged until released.

    `releases_steady_ns` is when it releases itself on the steady clock (0: only a person does);
    `releases_ns` is the same moment on the wall clock, for people.
    """

    kill_id: str
    scope: Selector
    mode: KillMode
    reason: str
    actor: str
    engaged_ns: int
    max_tier: str = ""
    releases_ns: int = 0
    releases_steady_ns: int = 0
    released_ns: int = 0
    released_by: str = ""
    is_fleets: bool = False
    """Whether it came from the coordinator, and is released there."""

    @property
    def changed_ns(self) -> int:
        """When its state last changed; of two states the later one counts."""
        return max(self.engaged_ns, self.released_ns)

    def engaged(self, steady_ns: int) -> bool:
        """Tell whether it stops calls now."""
        if self.released_ns:
            return False
        return not self.releases_steady_ns or steady_ns < self.releases_steady_ns
