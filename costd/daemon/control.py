"""The Control service: what operators see and do at one daemon. The server wraps it."""

import heapq
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

from costd import __version__
from costd.daemon import views
from costd.daemon.books.ledger import Ledger
from costd.daemon.books.refusals import HOUR_NS
from costd.daemon.books.switches import engaged
from costd.daemon.clients import drill
from costd.daemon.clients.desk import Desk
from costd.engine import keys
from costd.engine.changes import Family
from costd.errors import BudgetNotFound, InvalidAsk, ReservationNotFound
from costd.model.kill import KillSwitch
from costd.model.reservation import Reservation, ReservationState
from costd.model.time import NS_PER_S
from costd.pricing import CATALOGUE_VERSION
from costd.wire import admission, control, kills
from costd.wire.pb import control_pb2 as pb

ROWS_MAX = 1_000
_TEXT_LENGTH_MAX = 1_024


class PolicySource(Protocol):
    """Where the policy in force came from; implemented by `costd.daemon.reload`."""

    path: str
    text: str
    error: str
    loaded_ns: int

    def reload(self, actor: str) -> None:
        """Read the file again. Errors: InvalidPolicy; the old policy stays in force."""
        ...


class ControlService:
    """Answers operators; one method per RPC: `(request, caller) -> response`.

    Sync, but for the drill, which waits for clients.
    """

    def __init__(
        self,
        ledger: Ledger,
        source: PolicySource,
        desk: Desk,
        *,
        data_dir: str = "",
        durability: str = "",
        flush: drill.Flush | None = None,
        kill_file_problem: Callable[[], str] = str,
    ) -> None:
        self._ledger = ledger
        self._desk = desk
        self._source = source
        self._started_ns = ledger.clock.now().wall_ns
        self._data_dir = data_dir
        self._durability = durability
        self._flush = flush
        self._kill_file_problem = kill_file_problem

    def GetStatus(self, request: pb.GetStatusRequest, caller: str) -> pb.Status:  # noqa: N802, ARG002 - the RPC's name
        """How the daemon is."""
        ledger, totals, now = self._ledger, self._ledger.totals, self._ledger.clock.now()
        decisions: dict[str, int] = {}
        for (verdict, task_class, _), count in ledger.tally.items():
            name = f"{views.VERDICTS[verdict]}/{task_class}"
            decisions[name] = decisions.get(name, 0) + count
        out = views.outstanding(self._desk)
        return pb.Status(
            version=__version__,
            name=ledger.trust.name,
            policy_revision=ledger.rules.policy.revision,
            policy_path=self._source.path,
            policy_error=self._source.error,
            kill_file_error=self._kill_file_problem(),
            started_ns=self._started_ns,
            now_ns=now.wall_ns,
            open_reservations_count=totals.open_count,
            reserved_nusd=totals.reserved_nusd,
            exposure_nusd=totals.exposure_nusd,
            unknown_ceiling_count=totals.unknown_ceiling_count,
            kills_engaged_count=engaged(ledger.kills, now),
            decisions=decisions,
            catalogue_version=CATALOGUE_VERSION,
            data_dir=self._data_dir,
            durability=self._durability,
            sessions_attached_count=len(self._desk.attached),
            allowances_open_count=out.open_count,
            allowances_draining_count=out.draining_count,
            allowances_granted_nusd=out.granted_nusd,
            allowances_drawn_nusd=out.drawn_nusd,
        )

    def ListBudgets(self, request: pb.ListBudgetsRequest, caller: str) -> pb.ListBudgetsResponse:  # noqa: N802, ARG002
        """Every counter of every budget, the fullest first."""
        if request.budget and not views.knows_budget(self._ledger, request.budget):
            raise BudgetNotFound(f"no budget {request.budget!r} here; `costctl budgets` lists them")
        rows = views.budgets(self._ledger, request.budget, include_ended=request.include_ended)
        kept = _limit(request.limit_count)
        return pb.ListBudgetsResponse(budgets=rows[:kept], truncated=len(rows) > kept)

    def ListReservations(  # noqa: N802
        self,
        request: pb.ListReservationsRequest,
        caller: str,  # noqa: ARG002
    ) -> pb.ListReservationsResponse:
        """Open reservations, and closed ones that are still remembered."""
        ledger, kept = self._ledger, _limit(request.limit_count)
        found: Iterator[Reservation]
        if request.reservation_id:
            identity = admission.reservation_id_from_text(request.reservation_id)
            # Past the store's cache, which belongs to the thread that writes.
            rows_of_one = ledger.store.scan(Family.RESERVATIONS, identity, identity + b"\0")
            found = (held for _, held in rows_of_one)
        else:
            found = (
                held
                for _, held in ledger.store.scan(Family.RESERVATIONS)
                if request.include_closed or held.state is ReservationState.HELD
            )
        rows = list(islice(found, kept + 1))
        return pb.ListReservationsResponse(
            reservations=[
                control.reservation_to_pb(held, views.budget_names(ledger, held))
                for held in rows[:kept]
            ],
            truncated=len(rows) > kept,
        )

    def ListUsage(self, request: pb.ListUsageRequest, caller: str) -> pb.ListUsageResponse:  # noqa: N802, ARG002
        """Usage events, or their sums by any label."""
        return views.usage(self._ledger, request, _limit(request.limit_count))

    def ListAlerts(self, request: pb.ListAlertsRequest, caller: str) -> pb.ListAlertsResponse:  # noqa: N802, ARG002
        """Alerts, the newest first."""
        rows, truncated = self._newest(Family.ALERTS, request, "raised_ns", control.alert_to_pb)
        return pb.ListAlertsResponse(alerts=rows, truncated=truncated)

    def ListAudit(self, request: pb.ListAuditRequest, caller: str) -> pb.ListAuditResponse:  # noqa: N802, ARG002
        """Audit records, the newest first; denials as counts per hour."""
        rows, truncated = self._newest(Family.AUDIT, request, "at_ns", control.audit_to_pb)
        return pb.ListAuditResponse(records=rows, truncated=truncated)

    def EngageKill(self, request: pb.EngageKillRequest, caller: str) -> pb.KillSwitch:  # noqa: N802
        """Engage a kill switch; the same id twice is one switch."""
        ledger, now = self._ledger, self._ledger.clock.now()
        known = self._kill(request.kill_id)
        switch = kills.engaged_from_pb(
            request, known, tiers=ledger.rules.tier_index, caller=caller, now=now
        )
        if switch is not known:
            detail = f"{switch.mode} for {switch.scope}: {switch.reason}"
            ledger.put_kill(switch, action="kill_engaged", actor=switch.actor, detail=detail)
        return kills.kill_to_pb(switch, engaged=True)

    def ReleaseKill(self, request: pb.ReleaseKillRequest, caller: str) -> pb.KillSwitch:  # noqa: N802
        """Release a kill switch; releasing it again changes nothing."""
        ledger, now = self._ledger, self._ledger.clock.now()
        known = self._kill(request.kill_id)
        switch = kills.released_from_pb(request, known, caller=caller, now=now)
        if switch is not known:
            ledger.put_kill(
                switch, action="kill_released", actor=switch.released_by, detail=request.reason
            )
        return kills.kill_to_pb(switch, engaged=False)

    def _kill(self, kill_id: str) -> KillSwitch | None:
        found: KillSwitch | None = self._ledger.store.get(Family.KILLS, kill_id.encode())
        return found if kill_id else None

    async def Drill(self, request: pb.DrillRequest, caller: str) -> pb.DrillReport:  # noqa: N802
        """Measure how long a kill switch takes to reach everyone; nobody is stopped."""
        kills.check_texts(actor=request.actor, reason=request.reason)
        kills.check_scope(request.scope)
        timeout_ns = admission.duration_ns(request, "timeout")
        if not request.HasField("timeout"):
            timeout_ns = drill.TIMEOUT_NS
        if not 0 < timeout_ns <= drill.TIMEOUT_NS_MAX:
            most_s = drill.TIMEOUT_NS_MAX // NS_PER_S
            raise InvalidAsk(f"timeout must be more than 0 and at most {most_s} seconds")
        order = drill.Order(
            scope=kills.scope_from_pb(dict(request.scope)),
            actor=request.actor or caller or "unknown",
            reason=request.reason,
            timeout_ns=timeout_ns,
        )
        return await drill.run(order, self._ledger, self._desk, self._flush)

    def ListKills(self, request: pb.ListKillsRequest, caller: str) -> pb.ListKillsResponse:  # noqa: N802, ARG002
        """Kill switches, the newest first."""
        steady_ns = self._ledger.clock.now().steady_ns
        switches = [switch for _, switch in self._ledger.store.scan(Family.KILLS)]
        switches.sort(key=lambda switch: -switch.engaged_ns)
        return pb.ListKillsResponse(
            kills=[
                kills.kill_to_pb(switch, engaged=switch.engaged(steady_ns))
                for switch in switches
                if request.include_released or switch.engaged(steady_ns)
            ]
        )

    def ListGrants(self, request: pb.ListGrantsRequest, caller: str) -> pb.ListGrantsResponse:  # noqa: N802, ARG002
        """Override grants that were redeemed here."""
        uses = (use for _, use in self._ledger.store.scan(Family.GRANTS))
        return pb.ListGrantsResponse(grants=list(map(control.grant_use_to_pb, uses)))

    def ListAllowances(  # noqa: N802
        self,
        request: pb.ListAllowancesRequest,
        caller: str,  # noqa: ARG002
    ) -> pb.ListAllowancesResponse:
        """Allowances that are out, the largest first."""
        kept = _limit(request.limit_count)
        rows = list(islice(views.allowances(self._ledger, self._desk), kept + 1))
        return pb.ListAllowancesResponse(allowances=rows[:kept], truncated=len(rows) > kept)

    def RevokeAllowance(  # noqa: N802
        self, request: pb.RevokeAllowanceRequest, caller: str
    ) -> pb.RevokeAllowanceResponse:
        """Revoke an allowance; revoking it again, or one that drains, changes nothing."""
        ledger, desk = self._ledger, self._desk
        identity = admission.reservation_id_from_text(request.allowance_id, "allowance_id")
        kills.check_texts(actor=request.actor, reason=request.reason)
        row = views.allowance(ledger, desk, identity)
        if row is None:
            raise ReservationNotFound(
                f"no allowance {identity.hex()} is out; `costctl allowances` lists those that are"
            )
        if row.state == pb.ALLOWANCE_STATE_OPEN:
            what = f"{row.task_class} on {row.provider}/{row.model} of {row.caller or 'a client'}"
            detail = f"{what}: {request.reason}" if request.reason else what
            actor = request.actor or caller or "unknown"
            # The record first: nobody revokes without one.
            ledger.audit(actor, "allowance_revoked", identity.hex(), detail)
            desk.revoke(identity)
            row.state = pb.ALLOWANCE_STATE_REVOKED
        return pb.RevokeAllowanceResponse(allowance=row)

    def GetPolicy(self, request: pb.GetPolicyRequest, caller: str) -> pb.Policy:  # noqa: N802, ARG002
        """The policy in force, as it was read."""
        return self._policy()

    def ReloadPolicy(self, request: pb.ReloadPolicyRequest, caller: str) -> pb.Policy:  # noqa: N802
        """Read the policy file again now."""
        self._source.reload(request.actor or caller or "unknown")
        return self._policy()

    def _policy(self) -> pb.Policy:
        return pb.Policy(
            revision=self._ledger.rules.policy.revision,
            path=self._source.path,
            yaml=self._source.text,
            loaded_ns=self._source.loaded_ns,
            critical_classes=[
                each.name
                for each in self._ledger.rules.policy.task_classes.values()
                if each.critical
            ],
        )

    def _newest(
        self, family: Family, request: Any, field: str, to_pb: Callable[[int, Any], Any]
    ) -> tuple[list[Any], bool]:
        """Read a log backwards until it is older than asked for."""
        kept = _limit(request.limit_count)
        rows: list[Any] = []
        # Denial counts stand behind the sequenced records; each is read newest first, so that a
        # storm of the one does not hide the other.
        store, end = self._ledger.store, keys.sequence_key(keys.SEQUENCES_END_NS)
        newest = heapq.merge(
            store.scan(family, end=end, reverse=True),
            store.scan(family, end, reverse=True),
            key=lambda row: -getattr(row[1], field),
        )
        # Within its hour a denial count stands where its digest says, not where its time does.
        hour_ns = request.since_ns - request.since_ns % HOUR_NS
        for key, record in newest:
            if getattr(record, field) < hour_ns:
                break
            if getattr(record, field) < request.since_ns:
                continue
            if len(rows) == kept:
                return rows, True
            sequence = int.from_bytes(key[:8], "big") if views.is_sequence(key) else 0
            rows.append(to_pb(sequence, record))
        return rows, False


def _limit(count: int) -> int:
    return min(count, 100 * ROWS_MAX) if count > 0 else ROWS_MAX
