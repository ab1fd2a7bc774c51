"""A coordinator's store in memory, for simulations and unit tests."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from costd.coordinator.drill_words import DrillWord
from costd.coordinator.rows import Daemon, Outbox, Rows, Share
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
from costd.coordinator.usage_rows import HOUR_NS, Event, hourly_rows
from costd.engine import keys
from costd.engine.lend import presumed
from costd.errors import InvalidAsk, InvariantBroken
from costd.model.events import Alert, AuditRecord
from costd.model.kill import KillSwitch
from costd.model.lease import EMPTY_POOL, Pool
from costd.testing.fleet_old_rows import MemoryOldRows

Result = TypeVar("Result")


class MemoryFleetStore:
    """Implements `costd.coordinator.store.CoordinatorStore`; gone with the process.

    Shape:   single-threaded; nothing awaits between read and write, so every transaction is one
             step. Values are frozen: a transaction works on copies of the maps that hold them.
    """

    def __init__(self, *, wall_ns: Callable[[], int] = lambda: 0) -> None:
        self._wall_ns = wall_ns
        self.daemons: dict[str, Daemon] = {}
        self.pools: dict[bytes, Pool] = {}
        self.shares: dict[tuple[bytes, str], Share] = {}
        self.outboxes: dict[str, Outbox] = {}
        self.usage: list[Event] = []
        self.alerts: list[Alert] = []
        self.audit: list[AuditRecord] = []
        self.kills: dict[str, KillSwitch] = {}
        self.kills_version = 0
        self.restored_ns = 0
        self.policies: list[PolicyText] = []
        self.top_ups: dict[str, TopUp] = {}
        self.instances: list[Instance] = []
        """Replicas do not write themselves down here."""
        self._listeners: list[asyncio.Queue[Notice]] = []
        self.old = MemoryOldRows(self)

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
        """Run `work` over rows and write what it wants written, all of it or nothing."""
        return self.step(
            work,
            daemon_ids=daemon_ids,
            keys=keys,
            with_all_shares_of=with_all_shares_of,
            outboxes_of=outboxes_of,
            with_closed_shares_of=with_closed_shares_of,
        )

    def step(
        self,
        work: Callable[[Rows], Result],
        *,
        daemon_ids: Collection[str] = (),
        keys: Collection[bytes] = (),
        with_all_shares_of: Collection[str] = (),
        outboxes_of: Collection[str] = (),
        with_closed_shares_of: Collection[str] = (),
    ) -> Result:
        """Do the same without an event loop."""
        locked_ids = {*daemon_ids, *with_all_shares_of}
        locked_keys = {
            *keys,
            *(
                key
                for (key, owner), share in self.shares.items()
                if owner in with_all_shares_of and (share.is_open or owner in with_closed_shares_of)
            ),
        }
        self.old.revive({*locked_ids, *outboxes_of})
        rows = Rows(
            daemons={each: self.daemons[each] for each in locked_ids if each in self.daemons},
            pools={key: self.pools[key] for key in locked_keys if key in self.pools},
            shares={
                (key, owner): self.shares[key, owner]
                for key in locked_keys
                for owner in locked_ids
                if (key, owner) in self.shares
            },
            outboxes={each: self.outboxes.get(each, Outbox()) for each in outboxes_of},
        )
        result = work(rows)
        loose = [
            *(rows.written_daemons - locked_ids),
            *(rows.written_outboxes - {*outboxes_of}),
            *(rows.written_pools - locked_keys),
            *(each for each in rows.written_shares if each[0] not in locked_keys),
            *(each for each in rows.written_shares if each[1] not in locked_ids),
        ]
        if loose:
            raise InvariantBroken(
                f"a transaction changed rows that it had not locked: {loose[0]!r}"
            )
        # All checks passed; only writes below.
        self.daemons |= {each: rows.daemons[each] for each in rows.written_daemons}
        self.outboxes |= {each: rows.outboxes[each] for each in rows.written_outboxes}
        self.pools |= {key: rows.pools[key] for key in rows.written_pools}
        self.shares |= {each: rows.shares[each] for each in rows.written_shares}
        self.usage += rows.usage
        self.alerts += rows.alerts
        self.audit += rows.audit
        if rows.kills:
            self._put_kills(rows.kills)
        if rows.lends_from_ns:
            self.restored_ns = max(self.restored_ns, rows.lends_from_ns)
            self._tell(Notice(topic=Topic.RESTORED, version=self.restored_ns))
        if rows.recalled:
            self._tell(Notice(topic=Topic.RECALL, keys=tuple(sorted(rows.recalled))))
        return result

    # ---- policy ---------------------------------------------------------------------------------

    async def publish_policy(
        self, *, revision: str, yaml: str, actor: str, at_ns: int, note: str = ""
    ) -> PolicyText:
        """Publish a policy under the next number, with an audit record; replicas are told."""
        policy = PolicyText(
            number=len(self.policies) + 1,
            revision=revision,
            yaml=yaml,
            actor=actor,
            published_ns=at_ns,
            note=note,
        )
        self.policies.append(policy)
        self.audit.append(published_audit(policy))
        self._tell(Notice(topic=Topic.POLICY, version=policy.number))
        return policy

    async def current_policy(self) -> PolicyText | None:
        """Return the newest policy, None before the first."""
        return self.policies[-1] if self.policies else None

    async def read_policy(self, number: int) -> PolicyText | None:
        """Return one policy, None if there is none of this number."""
        return next((each for each in self.policies if each.number == number), None)

    async def policy_history(
        self, *, before_number: int = 0, limit_count: int = LIMIT_COUNT
    ) -> list[PolicyText]:
        """List policies without their text, newest first."""
        found = [
            msgspec.structs.replace(each, yaml="")
            for each in reversed(self.policies)
            if not before_number or each.number < before_number
        ]
        return found[:limit_count]

    # ---- kill switches --------------------------------------------------------------------------

    async def put_kill(self, kill: KillSwitch) -> int:
        """Write a kill switch and return the list's new version; replicas are told."""
        return self._put_kills([kill])

    def _put_kills(self, kills: Sequence[KillSwitch]) -> int:
        self.kills_version += 1
        for kill in kills:
            known = self.kills.get(kill.kill_id)
            if known is None or known.changed_ns <= kill.changed_ns:
                self.kills[kill.kill_id] = kill
        self._tell(Notice(topic=Topic.KILLS, version=self.kills_version))
        return self.kills_version

    async def list_kills(self, *, include_released: bool = False) -> tuple[int, list[KillSwitch]]:
        """Return the list's version with what it held then, newest first."""
        found = [each for each in self.kills.values() if include_released or not each.released_ns]
        return self.kills_version, sorted(found, key=lambda each: (-each.engaged_ns, each.kill_id))

    # ---- counters -------------------------------------------------------------------------------

    async def lends_from_ns(self) -> int:
        """Return from when a restored database lends again, in ns; 0 if it never was restored."""
        return self.restored_ns

    async def top_up(self, top_up: TopUp) -> bool:
        """Add to what a counter may reach; False if this id did so already. Audited."""
        if top_up.top_up_id in self.top_ups:
            return False
        self.top_ups[top_up.top_up_id] = top_up
        pool = self.pools.get(top_up.counter_key, EMPTY_POOL)
        self.pools[top_up.counter_key] = msgspec.structs.replace(
            pool,
            topped_up=pool.topped_up + top_up.amount,
            changed_ns=max(pool.changed_ns, top_up.at_ns),
        )
        self.audit.append(top_up_audit(top_up))
        return True

    async def read_top_up(self, top_up_id: str) -> TopUp | None:
        """Return what was added under an id, None if nothing was."""
        return self.top_ups.get(top_up_id)

    async def list_top_ups(
        self, counter_key: bytes, *, limit_count: int = LIMIT_COUNT
    ) -> list[TopUp]:
        """List what was added to a counter, newest first."""
        found = [each for each in self.top_ups.values() if each.counter_key == counter_key]
        return sorted(found, key=lambda each: -each.at_ns)[:limit_count]

    async def list_instances(self) -> list[Instance]:
        """List the replicas that were heard of lately."""
        return [*self.instances]

    async def list_daemons(
        self, *, after_id: str = "", limit_count: int = LIMIT_COUNT
    ) -> list[Daemon]:
        """List daemons behind one, in order of their ids."""
        # As bytes, which is how the database's "C" collation compares.
        found = sorted(self.daemons, key=str.encode)
        return [self.daemons[each] for each in found if each.encode() > after_id.encode()][
            :limit_count
        ]

    async def list_pools(
        self, *, after_key: bytes = b"", limit_count: int = LIMIT_COUNT
    ) -> list[tuple[bytes, Pool]]:
        """List counters behind one, in order of their keys."""
        found = [(key, self.pools[key]) for key in sorted(self.pools) if key > after_key]
        return found[:limit_count]

    async def list_shares(
        self,
        *,
        daemon_id: str = "",
        counter_key: bytes = b"",
        after: tuple[bytes, str] = (b"", ""),
        limit_count: int = LIMIT_COUNT,
    ) -> list[tuple[bytes, str, Share]]:
        """List who holds what, of one daemon or one counter if asked, behind (key, daemon)."""
        behind = (after[0], after[1].encode())
        if daemon_id:
            behind = (behind[0], daemon_id.encode())
        elif counter_key:
            behind = (counter_key, behind[1])
        found = [
            (key, owner, self.shares[key, owner])
            for key, owner in sorted(self.shares, key=lambda each: (each[0], each[1].encode()))
            if (not daemon_id or owner == daemon_id)
            and (not counter_key or key == counter_key)
            and (key, owner.encode()) > behind
        ]
        return found[:limit_count]

    async def sum_unused(self, tags: Collection[bytes], *, after_ns: int) -> dict[str, int]:
        """Sum up what each daemon may still use of budgets, in windows that end after then."""
        unused: dict[str, int] = {}
        for (key, daemon_id), share in self.shares.items():
            left = presumed(share.stand)
            if left and keys.tag_of(key) in tags and keys.split_counter_key(key)[0] > after_ns:
                unused[daemon_id] = unused.get(daemon_id, 0) + left
        return unused

    async def overdue_holders(
        self, keys: Collection[bytes], *, ended_before_ns: int
    ) -> list[tuple[str, bytes]]:
        """List who holds some of these counters, and whose tenure ended before then."""
        found = [
            (daemon_id, key)
            for (key, daemon_id), share in self.shares.items()
            if key in keys
            and share.stand.amount > share.stand.settled
            and daemon_id in self.daemons
            and self.daemons[daemon_id].tenure_ends_ns < ended_before_ns
        ]
        return sorted(found, key=lambda each: (each[0].encode(), each[1]))[:100]

    # ---- logs and usage -------------------------------------------------------------------------

    async def append_audit(self, records: Sequence[AuditRecord]) -> None:
        """Append audit records."""
        self.audit += records

    async def list_audit(
        self, *, since_ns: int = 0, limit_count: int = LIMIT_COUNT
    ) -> list[tuple[int, AuditRecord]]:
        """List audit records with their sequence, newest first."""
        found = [each for each in enumerate(self.audit, start=1) if each[1].at_ns >= since_ns]
        return sorted(found, key=lambda each: (-each[1].at_ns, -each[0]))[:limit_count]

    async def list_alerts(
        self, *, since_ns: int = 0, limit_count: int = LIMIT_COUNT
    ) -> list[tuple[int, Alert]]:
        """List alerts with their sequence, newest first."""
        found = [each for each in enumerate(self.alerts, start=1) if each[1].raised_ns >= since_ns]
        return sorted(found, key=lambda each: (-each[1].raised_ns, -each[0]))[:limit_count]

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
        unknown = check_dimensions([*by, *(where or {})])
        if unknown:
            raise InvalidAsk(f"usage is not summed by {', '.join(unknown)}")
        sums: dict[tuple[Any, ...], list[int]] = {}
        for row in hourly_rows(self.usage, self._wall_ns()):
            whole = -(-since_ns // HOUR_NS) * HOUR_NS <= row["hour_ns"] < until_ns
            if whole and all(row[name] == value for name, value in (where or {}).items()):
                group = sums.setdefault(tuple(row[name] for name in by), [0] * len(MEASURES))
                for place, name in enumerate(MEASURES):
                    group[place] += row[name]
        found = [
            UsageSum(
                by=dict(zip(by, key, strict=True)), **dict(zip(MEASURES, measured, strict=True))
            )
            for key, measured in sums.items()
        ]
        found.sort(key=lambda each: (-each.cost_nusd, *map(str, each.by.values())))
        return found[:limit_count]

    async def list_usage(
        self, *, since_ns: int, until_ns: int, limit_count: int = LIMIT_COUNT
    ) -> list[Event]:
        """List usage events settled in `[since_ns, until_ns)` with their daemon, newest first."""
        found = [each for each in self.usage if since_ns <= each[1].settled_ns < until_ns]
        found.sort(key=lambda each: (each[1].settled_ns, each[0], each[1].sequence), reverse=True)
        return found[:limit_count]

    # ---- notices --------------------------------------------------------------------------------

    async def tell_drill(self, words: Sequence[DrillWord]) -> bool:
        """Tell every replica that listens now, in this order."""
        for word in words:
            self._tell(Notice(topic=Topic.DRILL, word=word))
        return True

    async def notices(self) -> AsyncIterator[Notice]:
        """Yield what is told, for ever; ALL first."""
        told: asyncio.Queue[Notice] = asyncio.Queue()
        self._listeners.append(told)
        try:
            yield Notice(topic=Topic.ALL)
            while True:
                yield await told.get()
        finally:
            self._listeners.remove(told)

    def _tell(self, notice: Notice) -> None:
        for told in self._listeners:
            told.put_nowait(notice)
