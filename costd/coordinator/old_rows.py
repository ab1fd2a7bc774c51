"""What is forgotten of the coordinator's memory on PostgreSQL, a slice at a time."""

from typing import Any, Final

from costd.coordinator import listen
from costd.coordinator.database import Database
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
