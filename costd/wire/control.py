"""What operators, and a coordinator, are told of the books: model → proto, field by field."""

from costd.model.events import Alert, AuditRecord, UsageEvent
from costd.model.grant import GrantUse
from costd.model.reservation import Reservation
from costd.wire.admission import price_source_to_pb, usage_to_pb
from costd.wire.pb import control_pb2 as pb


def reservation_to_pb(held: Reservation, budgets: list[str]) -> pb.ReservationStatus:
    """Write a reservation for operators."""
    decision = held.decision
    return pb.ReservationStatus(
        reservation_id=held.reservation_id.hex(),
        ask_id=held.ask.ask_id,
        caller=held.caller,
        state=int(held.state),  # type: ignore[arg-type]
        task_class=held.ask.task_class,
        labels=held.ask.labels,
        tier=decision.tier,
        provider=decision.provider,
        model=decision.model,
        hold_nusd=held.hold_nusd,
        ceiling_nusd=held.ceiling_nusd,
        reported_nusd=held.reported_nusd,
        cost_nusd=held.cost_nusd,
        admitted_ns=held.admitted_ns,
        expires_ns=held.expires_ns,
        budgets=budgets,
    )


def usage_event_to_pb(sequence: int, event: UsageEvent) -> pb.UsageEvent:
    """Write a usage event."""
    message = pb.UsageEvent(
        sequence=sequence,
        reservation_id=event.reservation_id.hex(),
        ask_id=event.ask.ask_id,
        task_class=event.ask.task_class,
        labels=event.ask.labels,
        tier=event.tier,
        provider=event.provider,
        model=event.model,
        cost_kind=event.ask.cost_kind or "llm_call",
        usage=usage_to_pb(event.usage) if event.usage else None,
        cost_nusd=event.cost_nusd,
        hold_nusd=event.hold_nusd,
        admitted_ns=event.admitted_ns,
        settled_ns=event.settled_ns,
        duration_ns=event.duration_ns,
        outcome=int(event.outcome),  # type: ignore[arg-type]
        retry_count=event.retry_count,
        reason=event.reason,  # type: ignore[arg-type]
        closed_as=event.closed_as,
        calls_count=event.calls_count,
        verdict=event.verdict,  # type: ignore[arg-type]
    )
    if event.price is not None:
        price_source_to_pb(message.price, event.price, event.price_id)
    return message


def alert_to_pb(sequence: int, alert: Alert) -> pb.Alert:
    """Write an alert."""
    return pb.Alert(
        sequence=sequence,
        raised_ns=alert.raised_ns,
        kind=alert.kind,
        rule=alert.rule,
        key=alert.key,
        threshold_bp=alert.threshold_bp,
        utilisation_bp=alert.utilisation_bp,
        message=alert.message,
        amount_nusd=alert.amount_nusd,
    )


def audit_to_pb(sequence: int, record: AuditRecord) -> pb.AuditRecord:
    """Write an audit record."""
    return pb.AuditRecord(
        sequence=sequence,
        at_ns=record.at_ns,
        actor=record.actor,
        action=record.action,
        subject=record.subject,
        detail=record.detail,
        count=record.count,
        task_class=record.task_class,
        reason=record.reason,  # type: ignore[arg-type]
    )


def grant_use_to_pb(use: GrantUse) -> pb.GrantStatus:
    """Write what has been used of an override grant."""
    return pb.GrantStatus(
        grant_id=use.grant_id,
        subject=use.subject,
        issuer=use.issuer,
        uses_count=use.uses_count,
        uses_max_count=use.uses_max_count,
        used_nusd=use.used_nusd,
        amount_nusd=use.amount_nusd,
        expires_ns=use.expires_ns,
    )
