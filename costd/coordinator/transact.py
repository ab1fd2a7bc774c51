"""One transaction over locked rows: `FleetStore.transact` on PostgreSQL.

Two round trips: lock and read, then write and commit. Between them only `work` runs.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from random import random
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from psycopg import AsyncCursor, OperationalError, errors

from costd.coordinator import columns
from costd.coordinator.columns import rows_json
from costd.coordinator.database import RETRIED, Connection, Database
from costd.coordinator.queries import query
from costd.coordinator.rows import Outbox, Rows
from costd.coordinator.store import Topic
from costd.coordinator.usage_days import UsageDays
from costd.coordinator.usage_rows import day_of, event_row, filed_ns, hourly_rows
from costd.errors import CoordinatorUnavailable, InvariantBroken

Result = TypeVar("Result")

ATTEMPTS_MAX: Final = 5
"""Each is asked for by the database: after a deadlock, say, which our order of locks prevents."""
PAUSE_S: Final = 0.02
NOTICE_BYTES_MAX: Final = 7_900
"""PostgreSQL takes less than 8,000 in a notification."""


class Transactions:
    """Runs `work` over locked rows; see `costd.coordinator.rows.FleetStore`."""

    def __init__(
        self,
        database: Database,
        days: UsageDays,
        *,
        wall_ns: Callable[[], int],
        polls: bool = False,
    ) -> None:
        self._database = database
        self._days = days
        self._wall_ns = wall_ns
        self._polls = polls
        self.alerts: Counter[str] = Counter()
        """Alerts that were stored since the start, by kind."""

    async def transact(
        self,
        work: Callable[[Rows], Result],
        *,
        daemon_ids: Collection[str] = (),
        keys: Collection[bytes] = (),
        with_all_shares_of: Collection[str] = (),
        outboxes_of: Collection[str] = (),
        with_closed_shares_of: Collection[str] = (),
    ) -> Result:
        """Run `work` over locked rows and write what it wants written, all of it or nothing."""
        asked = _Asked(
            daemon_ids=sorted({*daemon_ids, *with_all_shares_of}),
            outboxes_of=sorted(set(outboxes_of)),
            keys=sorted(set(keys)),
            with_all_shares_of=sorted(set(with_all_shares_of)),
            with_closed_shares_of=sorted(set(with_closed_shares_of)),
        )
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                async with self._database.connection(passing=RETRIED) as connection:
                    locked = await _locked(connection, asked)
                    result = work(locked.rows)
                    missing = self._days.missing(self._event_days(locked.rows))
                    if not missing:
                        await self._write(connection, locked)
                        self.alerts.update(alert.kind for alert in locked.rows.alerts)
                        return result
                    await connection.rollback()
                # Made on another connection, with nothing locked; then all is done again.
                await self._days.add(missing)
            except (*RETRIED, _LostEarly) as error:
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
                if not self._polls:
                    await tell(connection, [f"{Topic.KILLS} {version}"])
            if rows.lends_from_ns:
                parameters = {"name": Topic.RESTORED, "version": rows.lends_from_ns}
                await connection.execute(query("raise_version"), parameters)
                if not self._polls:
                    await tell(connection, [f"{Topic.RESTORED} {rows.lends_from_ns}"])
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
        if rows.written_daemons:
            daemons = [rows.daemons[daemon_id] for daemon_id in sorted(rows.written_daemons)]
            writes.append(("write_daemons", rows_json(daemons)))
        if rows.written_outboxes:
            outboxes = [
                {"daemon_id": each, **msgspec.to_builtins(rows.outboxes[each])}
                for each in sorted(rows.written_outboxes)
            ]
            writes.append(("write_outboxes", rows_json(outboxes)))
        if rows.written_pools:
            pools = [(key, rows.pools[key]) for key in sorted(rows.written_pools)]
            writes.append(("write_pools", rows_json(columns.pool_rows(pools))))
        if rows.written_shares:
            shares = [(key, rows.shares[key]) for key in sorted(rows.written_shares)]
            writes.append(("write_shares", rows_json(columns.share_rows(shares))))
        if rows.alerts:
            writes.append(("append_alerts", rows_json(rows.alerts)))
        if rows.audit:
            writes.append(("append_audit", rows_json(rows.audit)))
        if rows.usage:
            writes.append(("add_hourly", rows_json(hourly_rows(rows.usage, self._wall_ns()))))
        if rows.recalled:
            recalled = sorted(rows.recalled)
            if self._polls:
                writes.append(("note_recalls", {"keys": recalled}))
            else:
                writes.append(("notify", {"notices": recall_notices(recalled)}))
        return writes


class _LostEarly(Exception):
    """The connection broke, or rows went, before anything was written; once more may do."""


class _Locked(msgspec.Struct, frozen=True, kw_only=True):
    rows: Rows
    daemon_ids: frozenset[str]
    outboxes_of: frozenset[str]
    keys: frozenset[bytes]
    new_daemons: set[str]
    """Inserted to be locked; nobody knows them unless they are written."""
    new_pools: set[bytes]

    def lacks_rows(self, asked: "_Asked") -> bool:
        """Tell whether something that was asked for is not there to be locked."""
        rows = self.rows
        return (
            len(rows.daemons) + len(self.new_daemons) < len(asked.daemon_ids)
            or len(rows.outboxes) < len(asked.outboxes_of)
            or len(rows.pools) + len(self.new_pools) < len(self.keys)
        )


class _Asked(NamedTuple):
    """What a transaction is to lock and read, in order, each once."""

    daemon_ids: Sequence[str]
    outboxes_of: Sequence[str]
    keys: Sequence[bytes]
    with_all_shares_of: Sequence[str]
    with_closed_shares_of: Sequence[str]


async def _locked(connection: Connection, asked: _Asked) -> _Locked:
    """Begin, lock what was asked for, and read it.

    Shape:   rows that are missing must be inserted before any is locked, so where some turn out to
             be, it begins anew; nearly always all are there.
    """
    try:
        locked = await _lock(connection, asked, adds=False)
        if locked.lacks_rows(asked):
            await connection.rollback()
            locked = await _lock(connection, asked, adds=True)
    except OperationalError as error:
        if not connection.broken:
            raise
        raise _LostEarly(str(error)) from error
    if locked.lacks_rows(asked):
        # What was there as rows were added, and was forgotten before it was locked: nothing would
        # be written of it.
        raise _LostEarly("rows were forgotten meanwhile")
    return locked


async def _lock(connection: Connection, asked: _Asked, *, adds: bool) -> _Locked:
    sent, daemon_ids, keys = _Sent(connection), asked.daemon_ids, asked.keys
    async with connection.pipeline():
        await sent.send("begin", {})
        for what, ids in (("daemons", daemon_ids), ("outboxes", asked.outboxes_of)):
            if ids:
                if adds:
                    await sent.send(f"add_missing_{what}", {"daemon_ids": ids})
                await sent.send(f"lock_{what}", {"daemon_ids": ids})
        if asked.with_all_shares_of:
            named = {
                "daemon_ids": asked.with_all_shares_of,
                "closed_of": asked.with_closed_shares_of,
            }
            await sent.send("open_share_keys", named)
        else:
            await _lock_pools(sent, keys, daemon_ids, adds=adds)
    if asked.with_all_shares_of:
        found = {bytes(key) for (key,) in await sent.rows("open_share_keys")}
        keys = sorted({*keys, *found})
        async with connection.pipeline():
            await _lock_pools(sent, keys, daemon_ids, adds=adds)
    # What has an epoch was forgotten, and is known again.
    new_daemons = {row[0] for row in await sent.rows("add_missing_daemons") if not row[1]}
    new_pools = {bytes(row[0]) for row in await sent.rows("add_missing_pools")}
    daemons = map(columns.daemon_from_row, await sent.rows("lock_daemons"))
    pools = map(columns.pool_from_row, await sent.rows("lock_pools"))
    shares = await sent.rows("read_shares")
    return _Locked(
        rows=Rows(
            daemons={each.daemon_id: each for each in daemons if each.daemon_id not in new_daemons},
            pools={key: pool for key, pool in pools if key not in new_pools},
            shares={(bytes(row[0]), row[1]): columns.share_from_row(row[2:]) for row in shares},
            outboxes={
                row[0]: columns.from_row(Outbox, row[1:])
                for row in await sent.rows("lock_outboxes")
            },
        ),
        daemon_ids=frozenset(daemon_ids),
        outboxes_of=frozenset(asked.outboxes_of),
        keys=frozenset(keys),
        new_daemons=new_daemons,
        new_pools=new_pools,
    )


async def _lock_pools(
    sent: "_Sent", keys: Sequence[bytes], daemon_ids: Sequence[str], *, adds: bool
) -> None:
    if not keys:
        return
    parameters = {"keys": keys, "daemon_ids": daemon_ids}
    if adds:
        await sent.send("add_missing_pools", parameters)
    await sent.send("lock_pools", parameters)
    if daemon_ids:
        await sent.send("read_shares", parameters)


class _Sent:
    """What was sent down a pipeline, by the query's name; read once the pipeline is through."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursors: dict[str, AsyncCursor[tuple[Any, ...]]] = {}

    async def send(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Send a query without waiting for its answer."""
        self._cursors[name] = await self._connection.execute(query(name), parameters, binary=True)

    async def rows(self, name: str) -> list[tuple[Any, ...]]:
        """Return the rows of what was sent, none where it was not."""
        cursor = self._cursors.get(name)
        return await cursor.fetchall() if cursor is not None else []


def _check_written(locked: _Locked) -> None:
    """Refuse to write what was not locked: somebody else may be changing it."""
    rows = locked.rows
    loose = [
        *(rows.written_daemons - locked.daemon_ids),
        *(rows.written_outboxes - locked.outboxes_of),
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
