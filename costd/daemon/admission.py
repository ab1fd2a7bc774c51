"""The Admission service: parse, ask the ledger, reply. Sync; the server wraps it."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from google.protobuf.message import Message

from costd.daemon.books.ledger import Admitted, Ledger
from costd.daemon.fleet.patience import Patience
from costd.engine.extend import Extended
from costd.engine.rules import BudgetRule
from costd.errors import InvalidAsk
from costd.model.ask import Ask
from costd.model.decision import Directives, Reason
from costd.model.kill import KillSwitch
from costd.model.lease import Wanting
from costd.model.usage import Usage
from costd.wire import admission as wire
from costd.wire.pb import admission_pb2 as pb

Reply = Message | Coroutine[Any, Any, Message]
"""An answer, or what will become one where the coordinator has to be asked."""


class AdmissionService:
    """Answers agents; one method per RPC: `(request, caller) -> response`.

    Errors:  those of `costd.errors`, which the server maps to statuses.
    """

    def __init__(self, ledger: Ledger, patience: Patience | None = None) -> None:
        self._ledger = ledger
        self._patience = patience
        """Who waits for leases; None where there is no coordinator."""

    def Admit(self, request: pb.AdmitRequest, caller: str) -> Reply:  # noqa: N802 - the RPC's name
        """Decide an ask."""
        ask, grant = wire.ask_from_pb(request), request.override_grant
        return self.decide(ask, caller=caller, grant=grant, tell=_decision)

    def decide(
        self, ask: Ask, *, caller: str, grant: str, tell: Callable[[Admitted], Message]
    ) -> Reply:
        """Decide an ask, and answer as `tell` writes it; at once, or once leases are there."""
        ledger = self._ledger
        if self._patience is None:
            return tell(ledger.admit(ask, caller=caller, grant=grant))
        decide = partial(ledger.admit, ask, caller=caller, grant=grant)
        if not grant:
            return self._patience.decide(decide, tell=tell)
        # First what the ask lacks itself, so that no grant is redeemed that is not needed.
        with_grant = partial(decide, grant_may_wait=True)

        def by_grant(*, may_wait: bool) -> Admitted | Wanting:
            return decide(grant_may_wait=may_wait)

        return self._patience.decide(with_grant, by_grant, tell=tell)

    def Explain(self, request: pb.AdmitRequest, caller: str) -> pb.Explanation:  # noqa: N802
        """Decide without consuming, and show how."""
        explanation = self._ledger.explain(
            wire.ask_from_pb(request), caller=caller, grant=request.override_grant
        )
        return wire.explanation_to_pb(explanation)

    def Settle(self, request: pb.SettleRequest, caller: str) -> pb.Settlement:  # noqa: N802, ARG002
        """Close a reservation at its cost."""
        report = wire.report_from_pb(request)
        closed = self._ledger.settle(
            wire.reservation_id_from_text(request.reservation_id),
            usage=report.usage,
            cost_nusd=report.cost_nusd if request.HasField("cost_nusd") else None,
            report=report,
        )
        return wire.settlement_to_pb(closed.reservation, replayed=closed.replayed, late=closed.late)

    def Void(self, request: pb.VoidRequest, caller: str) -> pb.Settlement:  # noqa: N802, ARG002
        """Close a reservation at zero."""
        closed = self._ledger.void(wire.reservation_id_from_text(request.reservation_id))
        return wire.settlement_to_pb(closed.reservation, replayed=closed.replayed, late=False)

    def Extend(self, request: pb.ExtendRequest, caller: str) -> Reply:  # noqa: N802, ARG002
        """Enlarge a running call's reservation."""
        usage: Usage | None = None
        if request.HasField("usage_so_far"):
            usage = wire.usage_from_pb(request.usage_so_far)
        reservation_id = wire.reservation_id_from_text(request.reservation_id)
        ttl_ns = wire.duration_ns(request, "ttl")

        def decide(*, may_wait: bool) -> Extended | Wanting:
            return self._ledger.extend(
                reservation_id,
                additional_cost_nusd=request.additional_cost_nusd,
                additional_output_tokens=request.additional_output_tokens,
                ttl_ns=ttl_ns,
                usage_so_far=usage,
                may_wait=may_wait,
            )

        if self._patience is not None:
            return self._patience.decide(decide, tell=_extension)
        result = decide(may_wait=False)
        assert not isinstance(result, Wanting), "what may not wait is decided"
        return _extension(result)

    def Record(self, request: pb.RecordRequest, caller: str) -> pb.Settlement:  # noqa: N802
        """Charge what nobody asked for."""
        if request.happened_ns < 0:
            raise InvalidAsk("happened_ns must not be negative; 0 means now")
        closed = self._ledger.record(
            wire.record_ask_from_pb(request),
            wire.report_from_pb(request),
            caller=caller,
            happened_ns=request.happened_ns,
            cost_known=request.HasField("cost_nusd"),
        )
        return wire.settlement_to_pb(closed.reservation, replayed=closed.replayed, late=closed.late)


def _decision(admitted: Admitted) -> pb.Decision:
    return wire.decision_to_pb(admitted.decision, admitted.state, replayed=admitted.replayed)


def _extension(result: Extended) -> pb.Extension:
    held = result.reservation
    message = pb.Extension(
        reservation_id=held.reservation_id.hex(),
        extended=result.reason is Reason.OK,
        reason=int(result.reason),  # type: ignore[arg-type]
        hold_nusd=held.hold_nusd,
        expires_ns=held.expires_ns,
        reported_nusd=held.reported_nusd,
    )
    if result.reason is not Reason.OK:
        wire.directives_to_pb(message.directives, Directives(stop=True))
    if isinstance(result.refused_by, BudgetRule):
        message.binding.rule, message.binding.kind = result.refused_by.budget.budget_id, "budget"
    elif isinstance(result.refused_by, KillSwitch):
        message.binding.rule, message.binding.kind = result.refused_by.kill_id, "kill_switch"
    return message
