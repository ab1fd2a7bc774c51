"""How daemons stand on counters, in rows that are locked: heard, restated, lost."""

from collections.abc import Iterable

import msgspec

from costd.coordinator.lendable import alerted, level_of, terms_of
from costd.coordinator.rows import Daemon, Rows, Share
from costd.engine import keys, lend, shares
from costd.engine.rules import RateRule, Rules
from costd.model.lease import NO_STAND, Stand
from costd.wire.pb import fleet_pb2 as pb


class Stands:
    """Restates what daemons hold, counter by counter; `Exchange` decides what they say and get.

    Shape:   pure but for `rows`, which it changes.
    """

    def __init__(self, rows: Rows, rules: Rules, *, now_ns: int) -> None:
        self._rows = rows
        self._rules = rules
        self._now_ns = now_ns

    def _hear(self, daemon: Daemon, key: bytes, stand: Stand, *, unused_ns: int = 0) -> None:
        """Take a report's stand, which may have crossed a grant of this epoch on the way."""
        share = self._rows.share(key, daemon.daemon_id)
        if share is not None and share.epoch == daemon.epoch:
            stand = lend.heard(share.stand, stand)
        self._restate(daemon, key, stand, unused_ns=unused_ns)

    def _restate(
        self,
        daemon: Daemon,
        key: bytes,
        stand: Stand,
        *,
        is_reclaimed: bool = False,
        granted_epoch: int = 0,
        may_rise: bool = False,
        unused_ns: int = 0,
    ) -> None:
        """Replace a daemon's part of a counter by what it says, or is granted.

        Units:   `unused_ns` tells how full a rate's bucket was that it gives back some of.
        Ensures: what it may use rises by a grant, or by what a restored database has forgotten.
        """
        rows = self._rows
        before = rows.share(key, daemon.daemon_id)
        share = before or Share()
        # What was granted and is not known was all given back or used when it was forgotten.
        was_forgotten = before is None and stand.version > 0
        if not (granted_epoch or may_rise or was_forgotten):
            stand = lend.at_most(stand, share.stand)
        beyond = lend.beyond(share.stand, stand)
        # If it came back after all, what it used of what was taken from it comes late.
        late = share.late + (beyond if share.is_reclaimed else 0)
        after = msgspec.structs.replace(
            share,
            stand=stand,
            late=late,
            is_reclaimed=is_reclaimed,
            epoch=granted_epoch or share.epoch,
        )
        if before == after:
            return
        terms = self._terms(key)
        pool = rows.pool(key)
        changed = lend.restate(
            pool,
            before.stand if before else None,
            stand,
            limit=terms.limit if terms else None,
            wall_ns=self._now_ns,
        )
        if late != share.late:
            changed = lend.excuse_late(changed, late - share.late)
        if beyond and not granted_epoch and terms is not None:
            # A restored database had forgotten it, and lent it to others meanwhile: it comes late.
            excess = min(beyond, max(0, changed.taken - terms.limit - changed.excused))
            after = msgspec.structs.replace(after, late=after.late + excess)
            changed = lend.excuse_late(changed, excess)
        rated, rule = self._rate(key), self._rules.budgets.get(keys.tag_of(key))
        if rated is not None:
            taken = share.stand.taken, stand.taken
            changed = shares.pooled(
                pool, changed, rated.rate, taken, unused_ns=unused_ns, wall_ns=self._now_ns
            )
        if terms is not None and rule is not None:
            changed = alerted(rows, rule, key, changed, terms, now_ns=self._now_ns)
        rows.put(key, daemon.daemon_id, changed, after)

    def _lose(self, daemon: Daemon, key: bytes, stand: Stand | None) -> None:
        """Keep what a daemon may have spent presumed spent: it cannot tell any more."""
        before = self._rows.share(key, daemon.daemon_id)
        if before is None:
            if stand is not None:
                self._restate(daemon, key, stand)
            return
        after = lend.reclaimed(stand or NO_STAND)
        loss = lend.loss(before.stand, before.lost, before.reserve_lost, after)
        pool = lend.lose(
            self._rows.pool(key), loss.lost - before.lost, loss.reserve_lost - before.reserve_lost
        )
        share = msgspec.structs.replace(
            before, lost=loss.lost, reserve_lost=loss.reserve_lost, late=before.late + loss.late
        )
        # First what is lost, then what is left, so that a limit that was cut sees the sum.
        self._rows.put(key, daemon.daemon_id, lend.excuse_late(pool, loss.late), share)
        self._restate(daemon, key, after)

    def _held(self, daemon: Daemon, key: bytes) -> Stand:
        share = self._rows.share(key, daemon.daemon_id)
        return share.stand if share else NO_STAND

    def _terms(self, key: bytes) -> lend.Terms | None:
        return terms_of(self._rules, key, topped_up=self._rows.pool(key).topped_up)

    def _rate(self, key: bytes) -> RateRule | None:
        """Find the fleet's rate whose shares this counter is of, if it is not a budget's."""
        return self._rules.shared_rates.get(keys.tag_of(key))

    def _level(self, daemon_id: str, key: bytes) -> pb.Level | None:
        return level_of(self._rows, self._rules, daemon_id, key)

    def _levels(self, daemon_id: str, named: Iterable[bytes]) -> list[pb.Level]:
        found = (self._level(daemon_id, key) for key in named)
        return [level for level in found if level is not None]
