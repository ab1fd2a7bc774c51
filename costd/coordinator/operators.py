"""What of Control a coordinator answers: whatever concerns the whole fleet."""

from typing import Final

from costd import __version__
from costd.clock import Clock
from costd.coordinator.killbook import KillBook
from costd.coordinator.lendable import limit_of
from costd.coordinator.reception import Reception
from costd.coordinator.redeemed import redeemed_grants
from costd.coordinator.store import DIMENSIONS, CoordinatorStore
from costd.engine import keys
from costd.engine.degrade import utilisation_bp
from costd.engine.rules import BudgetRule
from costd.errors import BudgetNotFound, InvalidAsk
from costd.model.events import AuditRecord
from costd.model.lease import EMPTY_POOL, Pool
from costd.model.time import NEVER_NS, NS_PER_S
from costd.wire import control, kills
from costd.wire.pb import control_pb2 as pb

ROWS_MAX: Final = 1_000
PAGE_COUNT: Final = 1_000
EVERYTHING_NS: Final = 365 * 86_400 * NS_PER_S

_COLUMNS: Final = (
    "settled", "reserved", "overrun", "granted", "lowered", "late", "unadmitted", "shadow",
)  # fmt: skip


class ControlService:
    """Answers operators; one coroutine per RPC: `(request, caller) -> response`."""

    def __init__(
        self, store: CoordinatorStore, reception: Reception, book: KillBook, clock: Clock, name: str
    ) -> None:
        self._store = store
        self._reception = reception
        self._book = book
        self._clock = clock
        self._name = name
        self._started_ns = clock.now().wall_ns

    async def GetStatus(self, request: pb.GetStatusRequest, caller: str) -> pb.Status:  # noqa: N802, ARG002 - the RPC's name
        """How this coordinator is."""
        now = self._clock.now()
        policy = self._reception.published
        return pb.Status(
            version=__version__,
            name=self._name,
            policy_revision=policy.rules.policy.revision,
            policy_path=f"policy {policy.message.number}",
            started_ns=self._started_ns,
            now_ns=now.wall_ns,
            kills_engaged_count=sum(
                switch.engaged(now.steady_ns) for switch in self._book.switches.values()
            ),
            sessions_attached_count=len(self._reception.attached),
        )

    async def ListBudgets(  # noqa: N802
        self,
        request: pb.ListBudgetsRequest,
        caller: str,  # noqa: ARG002
    ) -> pb.ListBudgetsResponse:
        """Every counter of every fleet budget, the fullest first."""
        rules = self._reception.published.rules
        if request.budget and all(
            rule.budget.budget_id != request.budget for rule in rules.budgets.values()
        ):
            raise BudgetNotFound(f"no budget {request.budget!r} here; `costctl budgets` lists them")
        now_ns = self._clock.now().wall_ns
        rows, seen = [], set()
        after = b"" if request.include_ended else now_ns.to_bytes(8, "big")
        while True:
            page = await self._store.list_pools(after_key=after, limit_count=PAGE_COUNT)
            for key, pool in page:
                end_ns, tag, per = keys.split_counter_key(key)
                rule = rules.budgets.get(tag)
                if rule is not None and (
                    not request.budget or rule.budget.budget_id == request.budget
                ):
                    seen.add(tag)
                    rows.append(_budget_row(rule, pool, end_ns, keys.shown(per), now_ns))
            if len(page) < PAGE_COUNT:
                break
            after = page[-1][0]
        for tag, rule in rules.budgets.items():
            if tag not in seen and rule.is_shared and request.budget in {"", rule.budget.budget_id}:
                end_ns = rule.window(now_ns)[1]
                rows.append(_budget_row(rule, EMPTY_POOL, end_ns, "", now_ns))
        rows.sort(key=lambda row: (-row.utilisation_bp, row.budget, row.key))
        kept = _limit(request.limit_count)
        return pb.ListBudgetsResponse(budgets=rows[:kept], truncated=len(rows) > kept)

    async def ListUsage(  # noqa: N802
        self,
        request: pb.ListUsageRequest,
        caller: str,  # noqa: ARG002
    ) -> pb.ListUsageResponse:
        """Usage events of all daemons, or their sums in whole hours."""
        now_ns, kept = self._clock.now().wall_ns, _limit(request.limit_count)
        until_ns = request.until_ns or now_ns + EVERYTHING_NS
        if not request.group_by:
            if request.where:
                raise InvalidAsk("where: single events of a fleet are not filtered; group them by")
            events = await self._store.list_usage(
                since_ns=request.since_ns, until_ns=until_ns, limit_count=kept + 1
            )
            return pb.ListUsageResponse(
                events=[event for _, event in events[:kept]], truncated=len(events) > kept
            )
        sums = await self._store.sum_usage(
            since_ns=request.since_ns,
            until_ns=until_ns,
            by=list(request.group_by),
            where=dict(request.where),
            limit_count=kept + 1,
        )
        groups = [
            pb.UsageGroup(
                by={name: _word(name, value) for name, value in each.by.items()},
                calls_count=each.calls_count,
                cost_nusd=each.cost_nusd,
                prompt_tokens=each.prompt_tokens,
                cached_tokens=each.cached_tokens,
                output_tokens=each.output_tokens,
                reasoning_tokens=each.reasoning_tokens,
                retry_count=each.retry_count,
            )
            for each in sums[:kept]
        ]
        return pb.ListUsageResponse(groups=groups, truncated=len(sums) > kept)

    async def ListAlerts(  # noqa: N802
        self,
        request: pb.ListAlertsRequest,
        caller: str,  # noqa: ARG002
    ) -> pb.ListAlertsResponse:
        """Alerts, the newest first."""
        kept = _limit(request.limit_count)
        rows = await self._store.list_alerts(since_ns=request.since_ns, limit_count=kept + 1)
        return pb.ListAlertsResponse(
            alerts=[control.alert_to_pb(sequence, alert) for sequence, alert in rows[:kept]],
            truncated=len(rows) > kept,
        )

    async def ListAudit(  # noqa: N802
        self,
        request: pb.ListAuditRequest,
        caller: str,  # noqa: ARG002
    ) -> pb.ListAuditResponse:
        """Audit records, the newest first."""
        kept = _limit(request.limit_count)
        rows = await self._store.list_audit(since_ns=request.since_ns, limit_count=kept + 1)
        return pb.ListAuditResponse(
            records=[control.audit_to_pb(sequence, record) for sequence, record in rows[:kept]],
            truncated=len(rows) > kept,
        )

    async def EngageKill(self, request: pb.EngageKillRequest, caller: str) -> pb.KillSwitch:  # noqa: N802
        """Engage a kill switch in the whole fleet, with the database or without."""
        known = self._book.get(request.kill_id) if request.kill_id else None
        tiers = self._reception.published.rules.tier_index
        switch = kills.engaged_from_pb(
            request, known, tiers=tiers, caller=caller, now=self._clock.now()
        )
        if switch is not known:
            detail = f"{switch.mode} for {switch.scope}: {switch.reason}"
            await self._book.put(
                switch,
                _audit("kill_engaged", switch.actor, switch.kill_id, detail, switch.engaged_ns),
            )
        return kills.kill_to_pb(switch, engaged=True)

    async def ReleaseKill(self, request: pb.ReleaseKillRequest, caller: str) -> pb.KillSwitch:  # noqa: N802
        """Release a kill switch in the whole fleet."""
        known = self._book.get(request.kill_id)
        switch = kills.released_from_pb(request, known, caller=caller, now=self._clock.now())
        if switch is not known:
            await self._book.put(
                switch,
                _audit(
                    "kill_released",
                    switch.released_by,
                    switch.kill_id,
                    request.reason,
                    switch.released_ns,
                ),
            )
        return kills.kill_to_pb(switch, engaged=False)

    async def ListKills(  # noqa: N802
        self,
        request: pb.ListKillsRequest,
        caller: str,  # noqa: ARG002
    ) -> pb.ListKillsResponse:
        """Kill switches, the newest first."""
        steady_ns = self._clock.now().steady_ns
        found = sorted(self._book.switches.values(), key=lambda switch: -switch.engaged_ns)
        return pb.ListKillsResponse(
            kills=[
                kills.kill_to_pb(switch, engaged=switch.engaged(steady_ns))
                for switch in found
                if request.include_released or switch.engaged(steady_ns)
            ]
        )

    async def ListGrants(  # noqa: N802
        self,
        request: pb.ListGrantsRequest,
        caller: str,  # noqa: ARG002
    ) -> pb.ListGrantsResponse:
        """Override grants that the fleet redeemed, and who did."""
        after_ns = 0 if request.include_expired else self._clock.now().wall_ns
        grants = await redeemed_grants(self._store, after_ns=after_ns)
        return pb.ListGrantsResponse(grants=grants)

    async def GetPolicy(self, request: pb.GetPolicyRequest, caller: str) -> pb.Policy:  # noqa: N802, ARG002
        """The policy in force in the fleet."""
        message, rules = self._reception.published
        return pb.Policy(
            revision=message.revision,
            path=f"policy {message.number}",
            yaml=message.yaml,
            loaded_ns=message.published_ns,
            critical_classes=[
                each.name for each in rules.policy.task_classes.values() if each.critical
            ],
        )


def _budget_row(
    rule: BudgetRule, pool: Pool, end_ns: int, shown: str, now_ns: int
) -> pb.BudgetStatus:
    row = pb.BudgetStatus(
        budget=rule.budget.budget_id,
        key=shown,
        unit=rule.budget.unit,
        window=rule.budget.window.kind,
        window_start_ns=pool.start_ns or rule.window(now_ns)[0],
        window_end_ns=0 if end_ns >= NEVER_NS else end_ns,
        reserve=rule.budget.reserve,
        reserve_used=pool.reserve_used,
        active=rule.budget.active,
        in_policy=True,
    )
    for column in _COLUMNS:
        setattr(row, column, getattr(pool, column))
    if rule.limit is not None:
        row.limit = limit_of(rule, topped_up=pool.topped_up)
        row.utilisation_bp = utilisation_bp(pool.used, row.limit)
        reached = [step.at_bp for step in rule.budget.steps if step.at_bp is not None]
        row.threshold_bp = max((at for at in reached if at <= row.utilisation_bp), default=0)
    return row


def _audit(action: str, actor: str, subject: str, detail: str, at_ns: int) -> AuditRecord:
    return AuditRecord(at_ns=at_ns, actor=actor, action=action, subject=subject, detail=detail)


def _word(name: str, value: str | int) -> str:
    return str(value) if name in DIMENSIONS else ""


def _limit(count: int) -> int:
    return min(count, 100 * ROWS_MAX) if count > 0 else ROWS_MAX
