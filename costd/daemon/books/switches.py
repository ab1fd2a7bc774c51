"""The kill switches that are engaged, found by what they cover."""

from collections.abc import Callable, Iterable, Sequence

from costd.engine.changes import Family
from costd.engine.rules import Anchors, Kills
from costd.model.kill import KillSwitch
from costd.model.time import Now
from costd.store.port import Put, Store


class Switches:
    """What may stop calls; the sweeper releases those whose time is up."""

    def __init__(self, store: Store) -> None:
        self.kills: tuple[KillSwitch, ...] = tuple(
            switch for _, switch in store.scan(Family.KILLS) if not switch.released_ns
        )
        self.index: Kills = Anchors((kill.scope, kill) for kill in self.kills)

    def follow(self, puts: Sequence[Put], tell: Callable[[KillSwitch], None] | None) -> None:
        """Follow what a batch has engaged or released, and tell of each."""
        for family, _, switch in puts:
            if family is Family.KILLS:
                others = tuple(kill for kill in self.kills if kill.kill_id != switch.kill_id)
                self.kills = others if switch.released_ns else (*others, switch)
                self.index = Anchors((kill.scope, kill) for kill in self.kills)
                if tell is not None:
                    tell(switch)


def engaged(kills: Iterable[KillSwitch], now: Now) -> int:
    """Count the kill switches that stop calls now."""
    return sum(switch.engaged(now.steady_ns) for switch in kills)
