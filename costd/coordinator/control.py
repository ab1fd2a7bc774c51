"""What operators see and do at a coordinator, for the whole fleet. The server wraps it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Final, Protocol

from costd.clock import Clock
from costd.coordinator import top_ups
from costd.coordinator.drills import TIMEOUT_NS, TIMEOUT_NS_MAX, Drills
from costd.coordinator.killbook import KillBook
from costd.coordinator.reception import Reception
from costd.coordinator.rows import Daemon, Rows, Share
from costd.coordinator.store import CoordinatorStore, Instance, PolicyText
from costd.engine import keys, lend
from costd.engine.rules import BudgetRule
from costd.errors import BudgetNotFound, CoordinatorUnavailable, InvalidAsk
from costd.model.events import AuditRecord
from costd.model.time import NEVER_NS, NS_PER_S
from costd.wire.admission import duration_ns
from costd.wire.pb import fleet_control_pb2 as fpb

ROWS_MAX: Final = 1_000
PAGE_COUNT: Final = 1_000
ELSEWHERE_S: Final = 1.0
"""How long a drill waits for the database to tell who was heard of lately."""


class Publish(Protocol):
    """Puts a policy's text in force in the fleet; implemented by the coordinator's host."""

    def __call__(
        self, yaml: str, *, actor: str, note: str, after_number: int
    ) -> Awaitable[PolicyText]:
        """Check, store, tell everybody. Errors: InvalidPolicy, InvalidAsk."""
        ...


class FleetControlService:
    """Answers operators of a fleet; one coroutine per RPC: `(request, caller) -> response`."""

    def __init__(
        self,
        store: CoordinatorStore,
        reception: Reception,
        kills: KillBook,
        clock: Clock,
        publish: Publish,
        *,
        drills: Drills,
    ) -> None:
        self._store = store
        self._reception = reception
        self._kills = kills
        self._clock = clock
        self._publish = publish
        self._drills = drills

    # ---- daemons and leases ------------------------------------------------------------------

    async def ListDaemons(  # noqa: N802 - the RPC's name
        self,
        request: fpb.ListDaemonsRequest,
        caller: str,  # noqa: ARG002
    ) -> fpb.ListDaemonsResponse:
        """Every daemon, those that need looking after first."""
        now_ns = self._clock.now().wall_ns
        daemons = await self._all_daemons()
        unused = await self._unused_nusd()
        rows = [
            self._daemon_row(daemon, unused.get(daemon.daemon_id, 0), now_ns) for daemon in daemons
        ]
        rows.sort(key=_trouble)
        kept = _limit(request.limit_count)
        return fpb.ListDaemonsResponse(
            daemons=rows[:kept],
            truncated=len(rows) > kept,
            overspend_bound_nusd=sum(row.overspend_bound_nusd for row in rows),
            policy_number=self._reception.published.message.number,
            kills_version=self._kills.version,
            coordinators=map(_coordinator_row, await self._store.list_instances()),
        )

    async def ListLeases(  # noqa: N802
        self,
        request: fpb.ListLeasesRequest,
        caller: str,  # noqa: ARG002
    ) -> fpb.ListLeasesResponse:
        """Who holds how much of which budget, the largest unused first."""
        if request.budget:
            self._rule(request.budget)
        daemons = {each.daemon_id: each for each in await self._all_daemons()}
        wanted = self._daemon_named(request.daemon, daemons).daemon_id if request.daemon else ""
        rows = []
        # Of a window that ended only who asks for it reads, and there may be many.
        after = b"" if request.include_ended else self._clock.now().wall_ns.to_bytes(8, "big")
        async for key, daemon_id, share in self._shares(wanted, after):
            row = self._lease_row(key, daemon_id, share, daemons.get(daemon_id))
            if request.budget and row.budget != request.budget:
                continue
            if not request.include_ended and 0 < row.window_end_ns <= self._clock.now().wall_ns:
                continue
            rows.append(row)
        rows.sort(key=lambda row: (-row.unused, row.budget, row.key, row.daemon))
        kept = _limit(request.limit_count)
        return fpb.ListLeasesResponse(leases=rows[:kept], truncated=len(rows) > kept)

    async def ReclaimLeases(  # noqa: N802
        self, request: fpb.ReclaimLeasesRequest, caller: str
    ) -> fpb.ReclaimLeasesResponse:
        """Take back what a daemon that will never come back may still spend."""
        daemons = {each.daemon_id: each for each in await self._all_daemons()}
        daemon = self._daemon_named(request.daemon, daemons)
        if not request.reason:
            raise InvalidAsk("reason is empty; say why nobody will ever hear of this daemon again")
        tag = self._rule(request.budget).tag if request.budget else None
        held = [
            (key, share)
            async for key, _, share in self._shares(daemon.daemon_id)
            if lend.presumed(share.stand) and tag in {None, keys.tag_of(key)}
        ]
        leases = [self._lease_row(key, daemon.daemon_id, share, daemon) for key, share in held]
        if not held:
            return fpb.ReclaimLeasesResponse()
        now_ns = self._clock.now().wall_ns
        actor = request.actor or caller or "unknown"

        def work(rows: Rows) -> None:
            exchange = self._reception.exchange(rows, now_ns)
            amount = exchange.reclaim(daemon.daemon_id, [key for key, _ in held])
            detail = f"{len(held)} leases, {amount} in their units: {request.reason}"
            rows.audit.append(
                AuditRecord(
                    at_ns=now_ns,
                    actor=actor,
                    action="leases_reclaimed",
                    subject=daemon.name,
                    detail=detail,
                )
            )

        await self._store.transact(
            work, daemon_ids=[daemon.daemon_id], keys=[key for key, _ in held]
        )
        return fpb.ReclaimLeasesResponse(
            leases=leases,
            reclaimed_nusd=sum(row.unused for row in leases if row.unit == "nusd"),
        )

    async def TopUpBudget(  # noqa: N802
        self, request: fpb.TopUpBudgetRequest, caller: str
    ) -> fpb.TopUpBudgetResponse:
        """Add to a budget's limit for the window in force; the same id again changes nothing."""
        return await top_ups.top_up(
            self._store,
            self._rule(request.budget),
            request,
            actor=request.actor or caller or "unknown",
            now_ns=self._clock.now().wall_ns,
        )

    # ---- policy ------------------------------------------------------------------------------

    async def PublishPolicy(  # noqa: N802
        self, request: fpb.PublishPolicyRequest, caller: str
    ) -> fpb.PolicyVersion:
        """Put a policy in force in the whole fleet."""
        published = await self._publish(
            request.yaml,
            actor=request.actor or caller or "unknown",
            note=request.note,
            after_number=request.after_number,
        )
        return _version(published)

    async def ListPolicies(  # noqa: N802
        self,
        request: fpb.ListPoliciesRequest,
        caller: str,  # noqa: ARG002
    ) -> fpb.ListPoliciesResponse:
        """Every policy that was published, the newest first."""
        daemons = await self._all_daemons()
        kept = _limit(request.limit_count)
        if request.number:
            found = await self._policy_numbered(request.number)
            return fpb.ListPoliciesResponse(policies=[_version(found, daemons, with_text=True)])
        found_all = await self._store.policy_history(limit_count=kept + 1)
        return fpb.ListPoliciesResponse(
            policies=[_version(each, daemons) for each in found_all[:kept]],
            truncated=len(found_all) > kept,
        )

    async def RollbackPolicy(  # noqa: N802
        self, request: fpb.RollbackPolicyRequest, caller: str
    ) -> fpb.PolicyVersion:
        """Publish an earlier policy again, under a new number."""
        earlier = await self._policy_numbered(request.number)
        published = await self._publish(
            earlier.yaml,
            actor=request.actor or caller or "unknown",
            note=request.note or f"back to {earlier.number}",
            after_number=0,
        )
        return _version(published)

    async def DrillFleet(  # noqa: N802
        self, request: fpb.DrillFleetRequest, caller: str
    ) -> fpb.FleetDrillReport:
        """Measure how long a kill switch takes to reach everyone, with the database or without."""
        timeout_ns = duration_ns(request, "timeout") or TIMEOUT_NS
        if timeout_ns > TIMEOUT_NS_MAX:
            raise InvalidAsk(f"timeout is more than {TIMEOUT_NS_MAX // NS_PER_S} s")
        asking = asyncio.create_task(self._living_ids())
        # The drill is not about the database, and does not wait for one that stands still.
        report, _ = await asyncio.gather(
            self._drills.run(timeout_ns), asyncio.wait({asking}, timeout=ELSEWHERE_S)
        )
        if asking.done():
            living_ids = asking.result()
            if living_ids is not None:
                drilled_ids = {row.daemon_id for row in report.daemons}
                report.elsewhere_count = len(living_ids - drilled_ids)
        asking.cancel()
        told = f"{report.confirmed_count} of {report.daemons_count} daemons"
        await self._kills.note(
            AuditRecord(
                at_ns=self._clock.now().wall_ns,
                actor=request.actor or caller or "unknown",
                action="kill_drilled",
                subject=report.drill_id,
                detail=f"{told} confirmed; {request.reason}" if request.reason else told,
            )
        )
        return report

    # ---- inside ------------------------------------------------------------------------------

    async def _living_ids(self) -> set[str] | None:
        """Find who was heard within his tenure; None where the database cannot tell."""
        try:
            daemons = await self._all_daemons()
        except CoordinatorUnavailable:
            return None
        now_ns = self._clock.now().wall_ns
        return {each.daemon_id for each in daemons if each.tenure_ends_ns > now_ns}

    async def _all_daemons(self) -> list[Daemon]:
        found: list[Daemon] = []
        while True:
            after = found[-1].daemon_id if found else ""
            page = await self._store.list_daemons(after_id=after, limit_count=PAGE_COUNT)
            found += page
            if len(page) < PAGE_COUNT:
                return found

    async def _shares(
        self, daemon_id: str = "", after_key: bytes = b""
    ) -> AsyncIterator[tuple[bytes, str, Share]]:
        after = after_key, ""
        while True:
            page = await self._store.list_shares(
                daemon_id=daemon_id, after=after, limit_count=PAGE_COUNT
            )
            for row in page:
                yield row
            if len(page) < PAGE_COUNT:
                return
            after = page[-1][0], page[-1][1]

    async def _unused_nusd(self) -> dict[str, int]:
        """What each daemon may still spend of money budgets whose window is in force."""
        budgets = self._reception.published.rules.budgets
        money = [tag for tag, rule in budgets.items() if rule.budget.unit == "nusd"]
        return await self._store.sum_unused(money, after_ns=self._clock.now().wall_ns)

    def _rule(self, budget: str) -> BudgetRule:
        for rule in self._reception.published.rules.budgets.values():
            if rule.budget.budget_id == budget:
                return rule
        raise BudgetNotFound(f"no budget {budget!r} in the policy; `costctl budgets` lists them")

    def _daemon_named(self, name: str, daemons: dict[str, Daemon]) -> Daemon:
        if name in daemons:
            return daemons[name]
        named = [daemon for daemon in daemons.values() if daemon.name == name]
        if len(named) > 1:
            ids = ", ".join(daemon.daemon_id for daemon in named)
            raise InvalidAsk(f"{len(named)} daemons are called {name!r}; name one by its id: {ids}")
        if not named:
            raise BudgetNotFound(
                f"no daemon {name!r} is known: it never joined, or was forgotten; "
                "`costctl fleet` lists them"
            )
        return named[0]

    async def _policy_numbered(self, number: int) -> PolicyText:
        found = await self._store.read_policy(number)
        if found is None:
            raise BudgetNotFound(
                f"no policy {number} was published; `costctl policy history` lists them"
            )
        return found

    def _daemon_row(self, daemon: Daemon, unused_nusd: int, now_ns: int) -> fpb.DaemonStatus:
        is_over = daemon.tenure_ends_ns <= now_ns
        return fpb.DaemonStatus(
            daemon_id=daemon.daemon_id,
            name=daemon.name,
            version=daemon.version,
            attached=daemon.daemon_id in self._reception.attached or not is_over,
            epoch=daemon.epoch,
            seen_ns=daemon.seen_ns,
            tenure_ends_ns=daemon.tenure_ends_ns,
            policy_number=daemon.policy_number,
            policy_problem=daemon.policy_problem,
            clock_offset_ns=daemon.clock_offset_ns,
            outbox_count=daemon.outbox_count,
            clients_count=daemon.clients_count,
            leased_nusd=unused_nusd,
            presumed_nusd=unused_nusd if is_over else 0,
            overspend_bound_nusd=daemon.overspend_bound_nusd,
            kills_current=daemon.kills_version >= self._kills.version,
        )

    def _lease_row(
        self, key: bytes, daemon_id: str, share: Share, daemon: Daemon | None
    ) -> fpb.LeaseStatus:
        end_ns, tag, per = keys.split_counter_key(key)
        rules = self._reception.published.rules
        rule, rate = rules.budgets.get(tag), rules.shared_rates.get(tag)
        name, unit = f"(gone: {tag.hex()})", ""
        if rule is not None:
            name, unit = rule.budget.budget_id, rule.budget.unit
        elif rate is not None:
            name, unit = rate.rate.rate_id, "millionths"
        elif (grant := keys.grant_counter(key)) is not None:
            name, unit, per = "(override grant)", grant.unit, grant.grant_id
        stand = share.stand
        ends_ns = daemon.tenure_ends_ns if daemon else 0
        return fpb.LeaseStatus(
            budget=name,
            key=keys.shown(per),
            unit=unit,
            window_end_ns=0 if end_ns >= NEVER_NS else end_ns,
            daemon=daemon.name if daemon else daemon_id,
            daemon_id=daemon_id,
            amount=stand.amount,
            settled=stand.settled,
            reserved=stand.reserved,
            unused=lend.presumed(stand),
            reserve_amount=stand.reserve_amount,
            presumed=bool(lend.presumed(stand)) and ends_ns <= self._clock.now().wall_ns,
            tenure_ends_ns=ends_ns,
            lost=share.lost,
        )


def _coordinator_row(instance: Instance) -> fpb.CoordinatorStatus:
    return fpb.CoordinatorStatus(
        instance_id=instance.instance_id,
        version=instance.release,
        address=instance.address,
        seen_ns=round(instance.seen_s * NS_PER_S),
    )


def _version(
    policy: PolicyText, daemons: Sequence[Daemon] = (), *, with_text: bool = False
) -> fpb.PolicyVersion:
    return fpb.PolicyVersion(
        number=policy.number,
        revision=policy.revision,
        yaml=policy.yaml if with_text else "",
        actor=policy.actor,
        published_ns=policy.published_ns,
        note=policy.note,
        daemons_count=sum(daemon.policy_number == policy.number for daemon in daemons),
    )


def _trouble(row: fpb.DaemonStatus) -> tuple[bool, bool, int, str]:
    """Sort whoever needs looking after to the top."""
    return row.attached, not row.policy_problem, -row.presumed_nusd, row.name


def _limit(count: int) -> int:
    return min(count, 100 * ROWS_MAX) if count > 0 else ROWS_MAX
