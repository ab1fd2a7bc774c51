"""One transaction over locked rows: `FleetStore.transact` on PostgreSQL.

Two round trips: lock and read, then write and commit. Between them only `work` runs.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import date
from random import random
from typing import Any, Final, TypeVar

import msgspec
from psycopg import errors

from costd.coordinator import columns
from costd.coordinator.database import RETRIED, Connection, Database
from costd.coordinator.queries import query
from costd.coordinator.rows import Daemon, Rows
from costd.coordinator.store import Topic
from costd.coordinator.usage_days import UsageDays
from costd.coordinator.usage_rows import day_of, event_row, filed_ns, hourly_arrays
from costd.errors import CoordinatorUnavailable, InvariantBroken
from costd.model.events import Alert, AuditRecord
from costd.model.lease import Pool

Result = TypeVar("Result")

ATTEMPTS_MAX: Final = 5
"""Each is asked for by the database: after a deadlock, say, which our order of locks prevents."""
PAUSE_S: Final = 0.02
NOTICE_BYTES_MAX: Final = 7_900
"""PostgreSQL takes less than 8,000 in a notification."""


class Transactions:
    """Runs `work` over locked rows; see `costd.coordinator.rows.FleetStore`."""

    def __init__(
        self, database: Database, days: UsageDays, *, wall_ns: Callable[[], int], polls: bool = False
    ) -> None:
        self._database = database
        self._days = days
        self._wall_ns = wall_ns
        self._polls = polls

    async def transact(
        self,
        work: Callable[[Rows], Result],
        *,
        daemon_ids: Collection[str] = (),
        keys: Collection[bytes] = (),
        with_all_shares_of: Collection[str] = (),
        with_closed_shares_of: Collection[str] = (),
    ) -> Result:
        """Run `work` over locked rows and write what it wants written, all of it or nothing."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                async with self._database.connection() as connection:
                    locked = await _lock(
                        connection,
                        daemon_ids=sorted({*daemon_ids, *with_all_shares_of}),
                        keys=sorted(set(keys)),
                        with_all_shares_of=sorted(set(with_all_shares_of)),
                        with_closed_shares_of=sorted(set(with_closed_shares_of)),
                    )
                    result = work(locked.rows)
                    missing = self._days.missing(self._event_days(locked.rows))
                    if not missing:
                        await self._write(connection, locked)
                        return result
                    await connection.rollback()
                # Made on another connection, with nothing locked; then all is done again.
                await self._days.add(missing)
            except RETRIED as error:
                if isinstance(error, errors.CheckViolation):
                    self._days.forget()
                if attempt == ATTEMPTS_MAX:
                    raise CoordinatorUnavailable(
                        f"{self._database.where} gave up a transaction {attempt} times "
                        f"({type(error).__name__}); nothing was written; try again"
                    ) from error
                await asyncio.sleep(PAUSE_S * attempt * random())  # noqa: S311  # no secret
        raise CoordinatorUnavailable(
            f"{self._database.where}: partitions for usage events vanish as they are made; look "
            "whether something else drops them"
        )

    def _event_days(self, rows: Rows) -> set[date]:
        now_ns = self._wall_ns()
        return {day_of(filed_ns(event.settled_ns, now_ns)) for _, event in rows.usage}

    async def _write(self, connection: Connection, locked: "_Locked") -> None:
        rows = locked.rows
        _check_written(locked)
        if rows.usage:
            now_ns = self._wall_ns()
            async with connection.cursor().copy(query("copy_events")) as copy:
                for daemon_id, event in rows.usage:
                    await copy.write_row(event_row(daemon_id, event, now_ns))
        async with connection.pipeline():
            for name, parameters in self._writes(locked):
                await connection.execute(query(name), parameters)
            if rows.kills:
                # Last: whoever changes the list holds its version until the commit.
                version = await next_version(connection, "kills")
                for kill in rows.kills:
                    parameters = {**columns.kill_row(kill), "version": version}
                    await connection.execute(query("put_kill"), parameters)
                await tell(connection, [f"{Topic.KILLS} {version}"])
            await connection.execute(query("commit"))

    def _writes(self, locked: "_Locked") -> list[tuple[str, dict[str, Any]]]:
        rows = locked.rows
        writes: list[tuple[str, dict[str, Any]]] = []
        unused = sorted(locked.new_daemons - rows.written_daemons)
        if unused:
            writes.append(("drop_unused_daemons", {"daemon_ids": unused}))
        unused_keys = sorted(locked.new_pools - rows.written_pools)
        if unused_keys:
            writes.append(("drop_unused_pools", {"keys": unused_keys}))
        daemons = [rows.daemons[daemon_id] for daemon_id in sorted(rows.written_daemons)]
        if daemons:
            writes.append(("write_daemons", columns.arrays(Daemon, daemons)))
        keys = sorted(rows.written_pools)
        if keys:
            pools = columns.arrays(Pool, [rows.pools[key] for key in keys])
            writes.append(("write_pools", {"counter_key": keys, **pools}))
        shares = [(key, rows.shares[key]) for key in sorted(rows.written_shares)]
        if shares:
            writes.append(("write_shares", columns.share_arrays(shares)))
        if rows.alerts:
            writes.append(("append_alerts", columns.arrays(Alert, rows.alerts)))
        if rows.audit:
            writes.append(("append_audit", columns.arrays(AuditRecord, rows.audit)))
        if rows.usage:
            writes.append(("add_hourly", hourly_arrays(rows.usage, self._wall_ns())))
        if rows.recalled:
            recalled = sorted(rows.recalled)
            if self._polls:
                writes.append(("note_recalls", {"keys": recalled}))
            else:
                writes.append(("notify", {"notices": recall_notices(recalled)}))
        return writes


class _Locked(msgspec.Struct, frozen=True, kw_only=True):
    rows: Rows
    daemon_ids: frozenset[str]
    keys: frozenset[bytes]
    new_daemons: set[str]
    """Inserted to be locked; nobody knows them unless they are written."""
    new_pools: set[bytes]


async def _lock(
    connection: Connection,
    *,
    daemon_ids: Sequence[str],
    keys: Sequence[bytes],
    with_all_shares_of: Sequence[str],
    with_closed_shares_of: Sequence[str],
) -> _Locked:
    """Begin, lock what was asked for, and read it."""
    async with connection.pipeline():
        await connection.execute(query("begin"))
        named = {"daemon_ids": daemon_ids}
        if daemon_ids:
            new_daemons = await connection.execute(query("add_missing_daemons"), named)
            daemons = await connection.execute(query("lock_daemons"), named, binary=True)
        if with_all_shares_of:
            open_keys = await connection.execute(
                query("open_share_keys"),
                {"daemon_ids": with_all_shares_of, "closed_of": with_closed_shares_of},
            )
        else:
            pools = await _lock_pools(connection, keys, daemon_ids)
    if with_all_shares_of:
        found = {bytes(key) for (key,) in await open_keys.fetchall()}
        keys = sorted({*keys, *found})
        async with connection.pipeline():
            pools = await _lock_pools(connection, keys, daemon_ids)
    new_pools, pool_rows, share_rows = [
        await cursor.fetchall() if cursor else [] for cursor in pools
    ]
    added = {row[0] for row in await new_daemons.fetchall()} if daemon_ids else set()
    known = [columns.daemon_from_row(r) for r in await daemons.fetchall()] if daemon_ids else []
    added_keys = {bytes(row[0]) for row in new_pools}
    return _Locked(
        rows=Rows(
            daemons={each.daemon_id: each for each in known if each.daemon_id not in added},
            pools={
                key: pool
                for key, pool in map(columns.pool_from_row, pool_rows)
                if key not in added_keys
            },
            shares={(bytes(row[0]), row[1]): columns.share_from_row(row[2:]) for row in share_rows},
        ),
        daemon_ids=frozenset(daemon_ids),
        keys=frozenset(keys),
        new_daemons=added,
        new_pools=added_keys,
    )


async def _lock_pools(
    connection: Connection, keys: Sequence[bytes], daemon_ids: Sequence[str]
) -> tuple[Any, ...]:
    """Send what inserts, locks and reads; the cursors are read once the pipeline is through."""
    if not keys:
        return None, None, None
    parameters = {"keys": keys, "daemon_ids": daemon_ids}
    added = await connection.execute(query("add_missing_pools"), parameters)
    pools = await connection.execute(query("lock_pools"), parameters, binary=True)
    if not daemon_ids:
        return added, pools, None
    return added, pools, await connection.execute(query("read_shares"), parameters, binary=True)


def _check_written(locked: _Locked) -> None:
    """Refuse to write what was not locked: somebody else may be changing it."""
    rows = locked.rows
    loose = [
        *(rows.written_daemons - locked.daemon_ids),
        *(key.hex() for key in rows.written_pools - locked.keys),
        *(
            f"{key.hex()} of {daemon_id}"
            for key, daemon_id in rows.written_shares
            if key not in locked.keys or daemon_id not in locked.daemon_ids
        ),
    ]
    if loose:
        raise InvariantBroken(f"a transaction changed rows that it had not locked: {loose[0]}")


async def next_version(connection: Connection, name: str) -> int:
    """Take the next version of a list, and hold it until the transaction ends."""
    cursor = await connection.execute(query("next_version"), {"name": name})
    row = await cursor.fetchone()
    if row is None:
        raise InvariantBroken(f"table versions has no row {name!r}; restore it from a backup")
    return int(row[0])


async def tell(connection: Connection, notices: Sequence[str]) -> None:
    """Tell every replica, once the transaction is committed."""
    await connection.execute(query("notify"), {"notices": notices})


def recall_notices(keys: Sequence[bytes]) -> list[str]:
    """Write recalled keys into as few notifications as they fit in.

    A key too long for any is left out: whoever wants it asks again, and then it is first in line.
    """
    notices: list[str] = []
    line = str(Topic.RECALL)
    for key in keys:
        word = f" {key.hex()}"
        if len(line) + len(word) > NOTICE_BYTES_MAX and line != Topic.RECALL:
            notices.append(line)
            line = str(Topic.RECALL)
        if len(line) + len(word) <= NOTICE_BYTES_MAX:
            line += word
    return [*notices, line] if line != Topic.RECALL else notices
