"""What a coordinator's store in memory forgets."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import msgspec

from costd.coordinator.rows import Daemon, Outbox, Share, given_up
from costd.model.lease import NO_STAND

if TYPE_CHECKING:
    from costd.testing.fleet_store import MemoryFleetStore


class MemoryOldRows:
    """Does what `costd.coordinator.old_rows.OldRows` does, all at once."""

    def __init__(self, store: MemoryFleetStore) -> None:
        self._store = store
        self.slice_count = 10_000
        self.tombstones: dict[str, tuple[Daemon, Outbox]] = {}
        """By daemon that was forgotten, what it goes on from if it comes back."""

    async def windows(self, *, ended_before_ns: int) -> int:
        """Forget counters whose window ended before then, with all shares and top-ups."""
        store, before = self._store, ended_before_ns.to_bytes(8, "big")
        sizes = len(store.pools) + len(store.shares) + len(store.top_ups)
        store.pools = {key: pool for key, pool in store.pools.items() if key >= before}
        store.shares = {each: share for each, share in store.shares.items() if each[0] >= before}
        store.top_ups = {
            name: each for name, each in store.top_ups.items() if each.counter_key >= before
        }
        return sizes - len(store.pools) - len(store.shares) - len(store.top_ups)

    async def daemons(
        self,
        *,
        heard_before_ns: int,
        at_ns: int,  # noqa: ARG002  what was forgotten here is known for ever
        after_id: str = "",
    ) -> tuple[str, list[str]]:
        """Forget daemons that were not heard since then, and hold nothing."""
        store = self._store
        holding = {
            owner
            for (_, owner), share in store.shares.items()
            if has_holding(share) or share.lost or share.reserve_lost
        }
        gone = [
            each.daemon_id
            for each in store.daemons.values()
            if each.daemon_id.encode() > after_id.encode()
            and max(each.seen_ns, each.tenure_ends_ns) < heard_before_ns
            and each.daemon_id not in holding
        ]
        for daemon_id in gone:
            daemon = given_up(store.daemons.pop(daemon_id))
            outbox = store.outboxes.pop(daemon_id, Outbox())
            self.tombstones[daemon_id] = (
                Daemon(
                    daemon_id=daemon_id,
                    name=daemon.name,
                    epoch=daemon.epoch,
                    spoken_epoch=daemon.spoken_epoch,
                    sequence=daemon.sequence,
                ),
                Outbox(usage_sequence=outbox.usage_sequence),
            )
        store.shares = {
            each: share
            for each, share in store.shares.items()
            if each[1] not in gone or not is_empty(share)
        }
        return "", sorted(gone, key=str.encode)

    def revive(self, daemon_ids: Collection[str]) -> None:
        """Know again what is asked for and was forgotten."""
        for daemon_id in daemon_ids:
            if daemon_id in self.tombstones and daemon_id not in self._store.daemons:
                daemon, outbox = self.tombstones[daemon_id]
                self._store.daemons[daemon_id] = daemon
                self._store.outboxes[daemon_id] = outbox

    async def counters(self, counter_keys: Collection[bytes], *, changed_before_ns: int) -> int:
        """Forget such of these counters as nobody may use more of, and nobody has for long."""
        store = self._store
        gone = {
            key
            for key in counter_keys
            if (pool := store.pools.get(key)) is not None
            and 0 < pool.changed_ns < changed_before_ns
            and pool.taken == pool.used
            and pool.reserve_taken == pool.reserve_used
        }
        for key in gone:
            del store.pools[key]
        store.shares = {each: share for each, share in store.shares.items() if each[0] not in gone}
        store.top_ups = {
            name: each for name, each in store.top_ups.items() if each.counter_key not in gone
        }
        return len(gone)

    async def recount(self, counter_keys: Collection[bytes], *, heard_after_ns: int) -> int:
        """Count anew the daemons that share counters: those that were heard since then."""
        store, changed_count = self._store, 0
        live = {each for each, daemon in store.daemons.items() if daemon.seen_ns >= heard_after_ns}
        for key in counter_keys:
            count = sum(each == key and owner in live for each, owner in store.shares)
            pool = store.pools.get(key)
            if pool is not None and pool.daemons_count != count:
                store.pools[key] = msgspec.structs.replace(pool, daemons_count=count)
                changed_count += 1
        return changed_count


def has_holding(share: Share) -> bool:
    """Tell whether a daemon may use more of a counter than it said that it does."""
    stand = share.stand
    return stand.amount > stand.used or stand.reserve_amount > stand.reserve_used


def is_empty(share: Share) -> bool:
    """Tell whether nothing of a share is in any sum."""
    stand = msgspec.structs.replace(share.stand, version=0, lowered=0)
    return stand == NO_STAND and not (share.lost or share.reserve_lost or share.late)
