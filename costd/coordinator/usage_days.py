"""Partitions of usage events, one a day: made ahead and on demand, dropped when they are old."""

from collections.abc import Callable, Collection, Iterable
from datetime import date, timedelta
from typing import Final

from psycopg import errors, sql

from costd.coordinator.database import Database
from costd.coordinator.queries import query
from costd.coordinator.usage_rows import today

PREFIX: Final = "usage_events_"
AHEAD_DAYS: Final = 3
LOCK_KEY: Final = 0x636F737465
"""Of the advisory lock under which partitions are made and dropped."""
LOCK_WAIT_MS: Final = 5_000
"""Dropping one waits so long for readers, and holds up writers as long; then it tries again later."""


class UsageDays:
    """Knows which days have a partition.

    Shape:   what it knows may be wrong, as other replicas drop partitions; an insert into one that
             is gone fails, and is done again after `forget`.
    """

    def __init__(self, database: Database, *, wall_ns: Callable[[], int]) -> None:
        self._database = database
        self._wall_ns = wall_ns
        self._known: set[date] = set()

    def missing(self, days: Collection[date]) -> set[date]:
        """List the days that need a partition first."""
        return set(days) - self._known

    def forget(self) -> None:
        """Look anew which there are: another replica dropped one."""
        self._known.clear()

    async def add_ahead(self) -> None:
        """Make the partitions of today and the next days."""
        first = today(self._wall_ns())
        await self.add([first + timedelta(days=number) for number in range(AHEAD_DAYS + 1)])

    async def add(self, days: Iterable[date]) -> None:
        """Make partitions, of whatever days have none.

        Ensures: nobody who reads or writes events waits: a table is made apart, then attached.
        """
        async with self._database.connection() as connection:
            for day in sorted(days):
                name = f"{PREFIX}{day:%Y%m%d}"
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
                    found = await connection.execute("SELECT to_regclass(%s)", (name,))
                    if (await found.fetchone() or (None,))[0] is None:
                        await connection.execute(_made(name, day))
                self._known.add(day)

    async def present(self) -> list[date]:
        """List the days that have a partition."""
        async with self._database.connection() as connection:
            cursor = await connection.execute(query("list_partitions"))
            names = [str(row[0]) for row in await cursor.fetchall()]
        return [date.fromisoformat(name.removeprefix(PREFIX)) for name in names]

    async def drop_before(self, day: date) -> list[date]:
        """Drop the partitions of the days before one; returns those that went.

        Shape:   one that is being read is left for the next time.
        """
        dropped = []
        for old in [each for each in await self.present() if each < day]:
            self._known.discard(old)
            async with self._database.connection() as connection:
                try:
                    async with connection.transaction():
                        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
                        await connection.execute(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}")
                        name = sql.Identifier(f"{PREFIX}{old:%Y%m%d}")
                        await connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
                except errors.LockNotAvailable:
                    continue
            dropped.append(old)
        return dropped


def _made(name: str, day: date) -> sql.Composed:
    return sql.SQL(
        "CREATE TABLE {table} (LIKE usage_events INCLUDING ALL,"
        " CONSTRAINT {check} CHECK (day >= {day} AND day < {next_day}));"
        " ALTER TABLE usage_events ATTACH PARTITION {table} FOR VALUES FROM ({day}) TO ({next_day});"
        " ALTER TABLE {table} DROP CONSTRAINT {check}"
    ).format(
        table=sql.Identifier(name),
        check=sql.Identifier(f"{name}_day"),
        day=sql.Literal(day),
        next_day=sql.Literal(day + timedelta(days=1)),
    )
