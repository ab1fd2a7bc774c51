"""The coordinator's memory on PostgreSQL."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar

from psycopg import sql

from costd.coordinator import columns, listen
from costd.coordinator.database import Connection, Database
from costd.coordinator.drill_words import DrillWord
from costd.coordinator.migrate import LIVE_S
from costd.coordinator.old_rows import OldRows
from costd.coordinator.queries import query
from costd.coordinator.rows import Daemon, Rows, Share
from costd.coordinator.store import (
    LIMIT_COUNT,
    MEASURES,
    Instance,
    Notice,
    PolicyText,
    Topic,
    TopUp,
    UsageSum,
    check_dimensions,
    published_audit,
    top_up_audit,
)
from costd.coordinator.transact import Transactions, next_version, tell
from costd.coordinator.usage_days import UsageDays
from costd.coordinator.usage_rows import HOUR_NS, Event, day_of, event_from_row
from costd.errors import InvalidAsk
from costd.model.events import Alert, AuditRecord
from costd.model.kill import KillSwitch
from costd.model.lease import Pool

Result = TypeVar("Result")

UNUSED_COUNT: Final = 10_000
"""Shares that one statement sums up: some hundredths of a second."""


class PostgresStore:
    """Implements `costd.coordinator.store.CoordinatorStore`.

    Exists so that replicas share nothing but a database. Lists, logs and policies are read and
    written in one statement or one short transaction each.
    """

    def __init__(
        self, database: Database, *, wall_ns: Callable[[], int], polls: bool = False
    ) -> None:
        """Use a database whose schema is up to date.

        Shape:   `polls` where the database (or a pooler in between) has no LISTEN.
        """
        self._database = database
        self.where: Final = database.where
        self._wall_ns = wall_ns
        self._polls = polls
        self.days = UsageDays(database, wall_ns=wall_ns)
        self.old: Final = OldRows(database)
        self._transactions = Transactions(database, self.days, wall_ns=wall_ns, polls=polls)
        self.alerts: Final = self._transactions.alerts

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
        return await self._transactions.transact(
            work,
            daemon_ids=daemon_ids,
            keys=keys,
            with_all_shares_of=with_all_shares_of,
            outboxes_of=outboxes_of,
            with_closed_shares_of=with_closed_shares_of,
        )

    # ---- policy ---------------------------------------------------------------------------------

    async def publish_policy(
        self, *, revision: str, yaml: str, actor: str, at_ns: int, note: str = ""
    ) -> PolicyText:
        """Publish a policy under the next number, with an audit record; replicas are told."""
        async with self._database.connection() as connection, connection.transaction():
            number = await next_version(connection, "policy")
            policy = PolicyText(
                number=number,
                revision=revision,
                yaml=yaml,
                actor=actor,
                published_ns=at_ns,
                note=note,
            )
            row = {name: getattr(policy, name) for name in PolicyText.__struct_fields__}
            await connection.execute(query("add_policy"), {**row, "note": columns.clean(note)})
            await _append_audit(connection, [published_audit(policy)])
            if not self._polls:
                await tell(connection, [listen.notice_text(Topic.POLICY, number)])
        return policy

    async def current_policy(self) -> PolicyText | None:
        """Return the newest policy, None before the first."""
        rows = await self._rows("current_policy")
        return columns.from_row(PolicyText, rows[0]) if rows else None

    async def read_policy(self, number: int) -> PolicyText | None:
        """Return one policy, None if there is none of this number."""
        rows = await self._rows("read_policy", number=number)
        return columns.from_row(PolicyText, rows[0]) if rows else None

    async def policy_history(
        self, *, before_number: int = 0, limit_count: int = LIMIT_COUNT
    ) -> list[PolicyText]:
        """List policies without their text, newest first."""
        rows = await self._rows(
            "policy_history", before_number=before_number or 2**62, limit_count=limit_count
        )
        return [columns.from_row(PolicyText, row) for row in rows]

    # ---- kill switches --------------------------------------------------------------------------

    async def put_kill(self, kill: KillSwitch) -> int:
        """Write a kill switch and return the list's new version; replicas are told."""
        async with self._database.connection() as connection, connection.transaction():
            version = await next_version(connection, "kills")
            row = {**columns.kill_row(kill), "version": version}
            await connection.execute(query("put_kill"), row)
            if not self._polls:
                await tell(connection, [listen.notice_text(Topic.KILLS, version)])
        return version

    async def list_kills(self, *, include_released: bool = False) -> tuple[int, list[KillSwitch]]:
        """Return the list's version with what it held then, newest first."""
        rows = await self._rows("list_kills", include_released=include_released)
        kills = [columns.kill_from_row(row[1:]) for row in rows if row[1] is not None]
        return rows[0][0], kills

    # ---- counters -------------------------------------------------------------------------------

    async def lends_from_ns(self) -> int:
        """Return from when a restored database lends again, in ns; 0 if it never was restored."""
        rows = await self._rows("read_versions")
        return next((version for name, version in rows if name == Topic.RESTORED), 0)

    async def top_up(self, top_up: TopUp) -> bool:
        """Add to what a counter may reach; False if this id did so already. Audited."""
        key = top_up.counter_key
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute(query("add_missing_pools"), {"keys": [key]})
            await connection.execute(query("lock_pools"), {"keys": [key]})
            row = {name: getattr(top_up, name) for name in TopUp.__struct_fields__}
            row |= {name: columns.clean(row[name]) for name in ("top_up_id", "actor", "reason")}
            added = await connection.execute(query("add_top_up"), row)
            if await added.fetchone() is None:
                return False
            await connection.execute(query("raise_pool"), row)
            await _append_audit(connection, [top_up_audit(top_up)])
        return True

    async def read_top_up(self, top_up_id: str) -> TopUp | None:
        """Return what was added under an id, None if nothing was."""
        rows = await self._rows("read_top_up", top_up_id=columns.clean(top_up_id))
        return columns.from_row(TopUp, rows[0]) if rows else None

    async def list_top_ups(
        self, counter_key: bytes, *, limit_count: int = LIMIT_COUNT
    ) -> list[TopUp]:
        """List what was added to a counter, newest first."""
        rows = await self._rows("list_top_ups", counter_key=counter_key, limit_count=limit_count)
        return [columns.from_row(TopUp, row) for row in rows]

    async def list_daemons(
        self, *, after_id: str = "", limit_count: int = LIMIT_COUNT
    ) -> list[Daemon]:
        """List daemons behind one, in order of their ids."""
        rows = await self._rows("list_daemons", after_id=after_id, limit_count=limit_count)
        return [columns.daemon_from_row(row) for row in rows]

    async def list_pools(
        self, *, after_key: bytes = b"", limit_count: int = LIMIT_COUNT
    ) -> list[tuple[bytes, Pool]]:
        """List counters behind one, in order of their keys."""
        rows = await self._rows("list_pools", after_key=after_key, limit_count=limit_count)
        return [columns.pool_from_row(row) for row in rows]

    async def list_shares(
        self,
        *,
        daemon_id: str = "",
        counter_key: bytes = b"",
        after: tuple[bytes, str] = (b"", ""),
        limit_count: int = LIMIT_COUNT,
    ) -> list[tuple[bytes, str, Share]]:
        """List who holds what, of one daemon or one counter if asked, behind (key, daemon)."""
        after_key, after_id = after
        if daemon_id:
            name = "list_shares_of_daemon"
        else:
            name = "list_shares_of_pool" if counter_key else "list_shares"
        rows = await self._rows(
            name,
            daemon_id=daemon_id,
            counter_key=counter_key,
            after_key=after_key,
            after_id=after_id,
            limit_count=limit_count,
        )
        return [(bytes(row[0]), row[1], columns.share_from_row(row[2:])) for row in rows]

    async def sum_unused(self, tags: Collection[bytes], *, after_ns: int) -> dict[str, int]:
        """Sum up what each daemon may still use of budgets, in windows that end after then."""
        unused: dict[str, int] = {}
        after, count = ((after_ns + 1).to_bytes(8, "big"), ""), UNUSED_COUNT
        while count == UNUSED_COUNT:
            after_key, after_id = after
            rows = await self._rows(
                "sum_unused",
                tags=sorted(tags),
                after_key=after_key,
                after_id=after_id,
                limit_count=UNUSED_COUNT,
            )
            for daemon_id, _, _, more in rows:
                unused[daemon_id] = unused.get(daemon_id, 0) + more
            count = sum(row[1] for row in rows)
            after = max(((bytes(row[2]), row[0]) for row in rows), default=after)
        return {daemon_id: sum_ for daemon_id, sum_ in unused.items() if sum_}

    async def overdue_holders(
        self, keys: Collection[bytes], *, ended_before_ns: int
    ) -> list[tuple[str, bytes]]:
        """List who holds some of these counters, and whose tenure ended before then."""
        rows = await self._rows(
            "overdue_holders", keys=sorted(keys), ended_before_ns=ended_before_ns
        )
        return [(daemon_id, bytes(key)) for daemon_id, key in rows]

    # ---- logs -----------------------------------------------------------------------------------

    async def append_audit(self, records: Sequence[AuditRecord]) -> None:
        """Append audit records."""
        async with self._database.connection() as connection:
            await _append_audit(connection, records)

    async def list_audit(
        self, *, since_ns: int = 0, limit_count: int = LIMIT_COUNT
    ) -> list[tuple[int, AuditRecord]]:
        """List audit records with their sequence, newest first."""
        rows = await self._rows("list_audit", since_ns=since_ns, limit_count=limit_count)
        return [columns.audit_from_row(row) for row in rows]

    async def list_alerts(
        self, *, since_ns: int = 0, limit_count: int = LIMIT_COUNT
    ) -> list[tuple[int, Alert]]:
        """List alerts with their sequence, newest first."""
        rows = await self._rows("list_alerts", since_ns=since_ns, limit_count=limit_count)
        return [columns.alert_from_row(row) for row in rows]

    # ---- usage ----------------------------------------------------------------------------------

    async def sum_usage(
        self,
        *,
        since_ns: int,
        until_ns: int,
        by: Sequence[str] = (),
        where: Mapping[str, str | int] | None = None,
        limit_count: int = LIMIT_COUNT,
    ) -> list[UsageSum]:
        """Sum usage by some dimensions over whole hours, the dearest first."""
        text, parameters = usage_sums(
            since_ns=since_ns, until_ns=until_ns, by=by, where=where, limit_count=limit_count
        )
        async with self._database.connection() as connection:
            cursor = await connection.execute(text, parameters)
            rows = await cursor.fetchall()
        return [
            UsageSum(
                by=dict(zip(by, row, strict=False)),
                **dict(zip(MEASURES, map(int, row[len(by) :]), strict=True)),
            )
            for row in rows
        ]

    async def list_usage(
        self, *, since_ns: int, until_ns: int, limit_count: int = LIMIT_COUNT
    ) -> list[Event]:
        """List usage events settled in `[since_ns, until_ns)` with their daemon, newest first."""
        rows = await self._rows(
            "list_events",
            since_ns=since_ns,
            until_ns=until_ns,
            since_day=day_of(since_ns),
            until_day=day_of(until_ns),
            limit_count=limit_count,
        )
        return [event_from_row(row) for row in rows]

    # ---- replicas -------------------------------------------------------------------------------

    async def beat(self, instance_id: str) -> bool:
        """Say that this replica lives; False if it must register anew (`Migrator.run`)."""
        return bool(await self._rows("beat", instance_id=instance_id))

    async def list_instances(self, *, within_s: float = LIVE_S) -> list[Instance]:
        """List the replicas that were heard of lately, the oldest first."""
        rows = await self._rows("list_instances", within_s=within_s)
        return [columns.from_row(Instance, row) for row in rows]

    async def leave(self, instance_id: str) -> None:
        """Say that this replica stops; nobody waits for it any more."""
        async with self._database.connection() as connection:
            await connection.execute(query("leave"), {"instance_id": instance_id})

    async def tell_drill(self, words: Sequence[DrillWord]) -> bool:
        """Tell every replica that listens now, in this order; False where they poll instead."""
        if self._polls:
            return False
        async with self._database.connection() as connection:
            await tell(connection, [listen.drill_text(word) for word in words])
        return True

    def notices(self) -> AsyncIterator[Notice]:
        """Yield what replicas tell, for ever; ALL first, and whenever some may have been missed."""
        return listen.polled(self._database) if self._polls else listen.listened(self._database)

    async def _rows(self, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
        async with self._database.connection() as connection:
            cursor = await connection.execute(query(name), parameters)
            return await cursor.fetchall()


def usage_sums(
    *,
    since_ns: int,
    until_ns: int,
    by: Sequence[str],
    where: Mapping[str, str | int] | None,
    limit_count: int,
) -> tuple[sql.Composed, list[Any]]:
    """Write the one query that is not in a file: its columns are chosen by whoever asks.

    Errors:  InvalidAsk for what is no dimension.
    """
    unknown = check_dimensions([*by, *(where or {})])
    if unknown:
        raise InvalidAsk(f"usage is not summed by {', '.join(unknown)}; see DIMENSIONS for what is")
    hour = sql.SQL("hour_ns >= %s AND hour_ns < %s")
    filters = [sql.SQL("{} = %s").format(sql.Identifier(name)) for name in where or {}]
    groups = [sql.Identifier(name) for name in by]
    sums = [sql.SQL("sum({})").format(sql.Identifier(name)) for name in MEASURES]
    # Nothing at all is one group of no rows, which is no group.
    tail = (
        sql.SQL("GROUP BY {}").format(sql.SQL(", ").join(groups))
        if by
        else sql.SQL("HAVING count(*) > 0")
    )
    text = sql.SQL("SELECT {} FROM usage_hourly WHERE {} {} ORDER BY {} LIMIT %s").format(
        sql.SQL(", ").join([*groups, *sums]),
        sql.SQL(" AND ").join([hour, *filters]),
        tail,
        sql.SQL(", ").join([sql.SQL("sum(cost_nusd) DESC"), *groups]),
    )
    since_hour_ns = -(-since_ns // HOUR_NS) * HOUR_NS
    return text, [since_hour_ns, until_ns, *(where or {}).values(), limit_count]


async def _append_audit(connection: Connection, records: Sequence[AuditRecord]) -> None:
    if records:
        await connection.execute(query("append_audit"), columns.rows_json(records))
