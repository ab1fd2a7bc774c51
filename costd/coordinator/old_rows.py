"""What is forgotten of the coordinator's memory on PostgreSQL, a slice at a time."""

from collections.abc import Collection
from typing import Any, Final

from costd.coordinator import listen
from costd.coordinator.database import Connection, Database
from costd.coordinator.queries import query

SLICE_COUNT: Final = 10_000
"""Rows in one statement: some tenths of a second, of the thirty that a statement may take."""


class OldRows:
    """Implements `costd.coordinator.store.Forgets`, and what else only a database has to forget.

    Shape:   each call is one short statement or two, and returns how many rows went.
    Errors:  CoordinatorUnavailable; what went before stays forgotten.
    """

    def __init__(self, database: Database, *, slice_count: int = SLICE_COUNT) -> None:
        self._database = database
        self.slice_count = slice_count

    async def windows(self, *, ended_before_ns: int) -> int:
        """Forget counters whose window ended before then, with all shares and top-ups.

        Ensures: a counter goes after its shares, so that none is ever less than what its shares
                 say.
        """
        before = {"before_key": ended_before_ns.to_bytes(8, "big")}
        count = 0
        for name in ("forget_shares", "forget_pools", "forget_top_ups"):
            if count < self.slice_count:
                count += await self._forget(name, before)
        return count

    async def daemons(
        self, *, heard_before_ns: int, at_ns: int, after_id: str = ""
    ) -> tuple[str, list[str]]:
        """Forget daemons that were not heard since then, and hold nothing."""
        asked = {"heard_before_ns": heard_before_ns, "at_ns": at_ns}
        async with self._database.connection() as connection:
            page = await _rows(
                connection, "walk_daemons", after_id=after_id, limit_count=self.slice_count, **asked
            )
            unheard = [daemon_id for daemon_id, is_unheard in page if is_unheard]
            gone = await _bury(connection, unheard, asked) if unheard else []
        return page[-1][0] if len(page) == self.slice_count else "", gone

    async def counters(self, counter_keys: Collection[bytes], *, changed_before_ns: int) -> int:
        """Forget such of these counters as nobody may use more of, and nobody has for long."""
        asked = {"keys": sorted(counter_keys), "changed_before_ns": changed_before_ns}
        async with self._database.connection() as connection, connection.transaction():
            gone = [bytes(key) for (key,) in await _rows(connection, "lock_idle_pools", **asked)]
            for name in ("drop_shares_of_pools", "drop_top_ups_of_pools", "drop_unused_pools"):
                await connection.execute(query(name), {"keys": gone})
        return len(gone)

    async def recount(self, counter_keys: Collection[bytes], *, heard_after_ns: int) -> int:
        """Count anew the daemons that share counters: those that were heard since then."""
        asked = {"keys": sorted(counter_keys), "heard_after_ns": heard_after_ns}
        async with self._database.connection() as connection:
            wrong = await _rows(connection, "miscounted_pools", **asked)
            if not wrong:
                return 0
            names = ("keys", "was_counts", "is_counts")
            named = dict(zip(names, map(list, zip(*wrong, strict=True)), strict=True))
            async with connection.transaction():
                await connection.execute(query("lock_pools"), named)
                recounted = await connection.execute(query("recount_daemons"), named)
        return recounted.rowcount

    async def tombstones(self, *, before_ns: int) -> int:
        """Forget that there were daemons which were forgotten before then."""
        return await self._forget("forget_tombstones", {"before_ns": before_ns})

    async def hours(self, *, before_ns: int) -> int:
        """Forget the hourly sums of usage before then."""
        return await self._forget("forget_hours", {"before_ns": before_ns})

    async def alerts(self, *, before_ns: int) -> int:
        """Forget alerts raised before then."""
        return await self._forget("forget_alerts", {"before_ns": before_ns})

    async def audit(self, *, before_ns: int) -> int:
        """Forget audit records from before then, and kill switches released before then."""
        await self._forget("forget_kills", {"before_ns": before_ns})
        return await self._forget("forget_audit", {"before_ns": before_ns})

    async def recalls(self) -> int:
        """Forget which counters were recalled long ago, where replicas poll for that."""
        await self._forget("forget_recalls", {"older_s": listen.RECALLS_KEPT_S})
        return 0

    async def _forget(self, name: str, parameters: dict[str, Any]) -> int:
        async with self._database.connection() as connection:
            cursor = await connection.execute(
                query(name), {**parameters, "limit_count": self.slice_count}
            )
        return cursor.rowcount


async def _bury(connection: Connection, daemon_ids: list[str], asked: dict[str, int]) -> list[str]:
    """Forget such of these daemons as are not heard meanwhile, and hold nothing."""
    async with connection.transaction():
        locked = await _rows(connection, "lock_unheard_daemons", daemon_ids=daemon_ids, **asked)
        named = {"daemon_ids": [daemon_id for (daemon_id,) in locked]}
        await connection.execute(query("lock_outboxes"), named)
        found = await _rows(connection, "without_holdings", **named)
        gone = {"daemon_ids": sorted(daemon_id for (daemon_id,) in found)}
        await connection.execute(query("bury_daemons"), {**gone, **asked})
        for name in ("drop_empty_shares", "drop_outboxes", "drop_unused_daemons"):
            await connection.execute(query(name), gone)
    return gone["daemon_ids"]


async def _rows(connection: Connection, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(query(name), parameters)
    return await cursor.fetchall()
