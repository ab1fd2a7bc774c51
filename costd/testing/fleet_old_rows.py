"""What a coordinator's store in memory forgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from costd.testing.fleet_store import MemoryFleetStore


class MemoryOldRows:
    """Does what `costd.coordinator.old_rows.OldRows` does, all at once."""

    def __init__(self, store: MemoryFleetStore) -> None:
        self._store = store
        self.slice_count = 10_000

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
