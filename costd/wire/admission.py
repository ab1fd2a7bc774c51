"""What agents ask and are answered: proto ↔ model, field by field. Nothing is decided here."""

import re
from typing import Any

from costd.engine import keys
from costd.engine.explain import CandidateReport, Explanation
from costd.engine.resolve import Report
from costd.errors import InvalidAsk
from costd.model.ask import Ask, name_problem
from costd.model.decision import NO_DIRECTIVES, Binding, Decision, Directives, WouldPass
from costd.model.price import PriceSource
from costd.model.reservation import Reservation, ReservationState
from costd.model.time import NS_PER_S
from costd.model.usage import CallOutcome, Usage
from costd.wire.pb import admission_pb2 as pb

_DURATION_S_MAX = 10 * 365 * 86_400
_RESERVATION_ID = re.compile("[0-9a-fA-F]{32}")


def ask_from_pb(request: pb.AdmitRequest) -> Ask:
    """Read an ask; the grant is represented by its digest only."""
    grant = request.override_grant
    return Ask(
        ask_id=request.ask_id,
        task_class=request.task_class,
        labels=dict(request.labels),
        estimated_cost_nusd=(
            request.estimated_cost_nusd if request.HasField("estimated_cost_nusd") else None
        ),
        prompt_tokens=request.prompt_tokens if request.HasField("prompt_tokens") else None,
        max_output_tokens=(
            request.max_output_tokens if request.HasField("max_output_tokens") else None
        ),
        provider=request.provider,
        model=request.model,
        tier=request.tier,
        acceptable_models=tuple(request.acceptable_models),
        grant_digest=keys.digest(grant).hex() if grant else "",
        ttl_ns=duration_ns(request, "ttl"),
        batch=request.batch,
        cost_kind=request.cost_kind,
        units=dict(request.units),
    )


def duration_ns(message: Any, field: str) -> int:
    """Read a duration, 0 if it is not set.

    Errors:  InvalidAsk for one that is negative or past ten years.
    """
    if not message.HasField(field):
        return 0
    duration = getattr(message, field)
    if not 0 <= duration.seconds <= _DURATION_S_MAX or not 0 <= duration.nanos < NS_PER_S:
        raise InvalidAsk(f"{field} must lie between 0 and {_DURATION_S_MAX} seconds")
    return int(duration.seconds) * NS_PER_S + int(duration.nanos)


def decision_to_pb(
    decision: Decision, state: ReservationState | None, *, replayed: bool
) -> pb.Decision:
    """Write a decision; optional parts only where they say something."""
    message = pb.Decision(
        verdict=int(decision.verdict),  # type: ignore[arg-type]
        reason=int(decision.reason),  # type: ignore[arg-type]
        ask_id=decision.ask_id,
        reservation_id=decision.reservation_id.hex(),
        tier=decision.tier,
        provider=decision.provider,
        model=decision.model,
        asked_tier=decision.asked_tier,
        hold_nusd=decision.hold_nusd,
        expires_ns=decision.expires_ns,
        tightest_budget=decision.tightest_budget,
        tightest_key=decision.tightest_key,
        utilisation_bp=decision.utilisation_bp,
        threshold_bp=decision.threshold_bp,
        policy_revision=decision.policy_revision,
        source="daemon",
    )
    if decision.ceiling_nusd is not None:
        message.ceiling_nusd = decision.ceiling_nusd
    if decision.price is not None:
        price_source_to_pb(message.price, decision.price, decision.price_id)
    if state is not None:
        message.state = int(state)  # type: ignore[assignment]
    if decision.directives != NO_DIRECTIVES:
        directives_to_pb(message.directives, decision.directives)
    if replayed:
        message.replayed = True
    _rare_fields(message, decision)
    return message


def _rare_fields(message: pb.Decision, decision: Decision) -> None:
    """Fields that a plain allow does not have."""
    if decision.binding is not None:
        binding_to_pb(message.binding, decision.binding)
    if decision.message:
        message.message = decision.message
    if decision.would_pass:
        message.would_pass.extend(map(_would_pass, decision.would_pass))
    if decision.upgrade_text or decision.upgrade_url:
        message.upgrade_text, message.upgrade_url = decision.upgrade_text, decision.upgrade_url
    if decision.grant_refusal:
        message.grant_refusal = decision.grant_refusal  # type: ignore[assignment]
    if decision.grant_id:
        message.grant_id = decision.grant_id
    if decision.shadow_verdict:
        message.shadow_verdict = decision.shadow_verdict  # type: ignore[assignment]
        message.shadow_reason = decision.shadow_reason  # type: ignore[assignment]


def _would_pass(offer: WouldPass) -> pb.WouldPass:
    return pb.WouldPass(
        tier=offer.tier, provider=offer.provider, model=offer.model, amount_nusd=offer.amount_nusd
    )


def price_source_to_pb(message: pb.PriceSource, source: PriceSource, price_id: str) -> None:
    """Write where a price is from."""
    message.source, message.version = source.source, source.version
    message.provider, message.model = source.provider, source.model
    message.price_id = price_id
    if source.assumed:
        message.assumed = True


def directives_to_pb(message: pb.Directives, directives: Directives) -> None:
    """Write directives; unset ones ask for nothing."""
    message.SetInParent()
    if directives.max_output_tokens is not None:
        message.max_output_tokens = directives.max_output_tokens
    if directives.max_retries is not None:
        message.max_retries = directives.max_retries
    message.compression, message.cache = directives.compression, directives.cache
    message.batch, message.stop = directives.batch, directives.stop


def binding_to_pb(message: pb.Binding, binding: Binding) -> None:
    """Write the rule that decided."""
    for name in binding.__struct_fields__:
        value = getattr(binding, name)
        if value is not None:
            setattr(message, name, value)


def usage_from_pb(message: pb.Usage) -> Usage:
    """Read usage; absent stays unknown, zero stays zero."""

    def known(name: str) -> int | None:
        return getattr(message, name) if message.HasField(name) else None

    return Usage(
        prompt_tokens=known("prompt_tokens"),
        cached_tokens=known("cached_tokens"),
        cache_write_tokens=known("cache_write_tokens"),
        output_tokens=known("output_tokens"),
        reasoning_tokens=known("reasoning_tokens"),
        units=dict(message.units),
    )


def usage_to_pb(usage: Usage) -> pb.Usage:
    """Write usage."""
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        units=usage.units,
    )


def report_from_pb(request: pb.SettleRequest | pb.RecordRequest | pb.DrawSettlement) -> Report:
    """Read what a caller says of a finished call; an explicit cost goes to `cost_nusd`."""
    if request.retry_count < 0:
        raise InvalidAsk(f"retry_count is {request.retry_count}; it must not be negative")
    problem = name_problem("provider", request.provider) or name_problem("model", request.model)
    if problem:
        raise InvalidAsk(problem)
    return Report(
        cost_nusd=request.cost_nusd if request.HasField("cost_nusd") else 0,
        usage=usage_from_pb(request.usage) if request.HasField("usage") else None,
        duration_ns=duration_ns(request, "duration"),
        outcome=_outcome(request.outcome),
        retry_count=request.retry_count,
        provider=request.provider,
        model=request.model,
    )


def _outcome(number: int) -> CallOutcome:
    try:
        return CallOutcome(number)
    except ValueError as error:
        said = (
            f"outcome {number} is not one of Outcome's values; a newer client needs a newer daemon"
        )
        raise InvalidAsk(said) from error


def record_ask_from_pb(request: pb.RecordRequest) -> Ask:
    """Read the ask that a record stands for; its id is the record's."""
    return Ask(
        ask_id=request.record_id,
        task_class=request.task_class,
        labels=dict(request.labels),
        provider=request.provider,
        model=request.model,
        batch=request.batch,
        cost_kind=request.cost_kind,
    )


def settlement_to_pb(closed: Reservation, *, replayed: bool, late: bool) -> pb.Settlement:
    """Write how a reservation was closed."""
    message = pb.Settlement(
        reservation_id=closed.reservation_id.hex(),
        state=int(closed.state),  # type: ignore[arg-type]
        cost_nusd=closed.cost_nusd,
        hold_nusd=closed.hold_nusd,
        overrun_nusd=max(0, closed.cost_nusd - closed.hold_nusd) if closed.admitted_as_ask else 0,
        replayed=replayed,
        late=late,
    )
    if closed.decision.price is not None:
        price_source_to_pb(message.price, closed.decision.price, closed.decision.price_id)
    return message


def reservation_id_from_text(text: str, field: str = "reservation_id") -> bytes:
    """Read a reservation's id; `field` is whose text it is.

    Errors:  InvalidAsk for text that is no id.
    """
    if not _RESERVATION_ID.fullmatch(text):
        raise InvalidAsk(f"{field} {text[:80]!r} is not one: 32 hex digits")
    return bytes.fromhex(text)


def explanation_to_pb(explanation: Explanation) -> pb.Explanation:
    """Write an explanation."""
    message = pb.Explanation(decision=decision_to_pb(explanation.decision, None, replayed=False))
    # Explaining holds nothing, so there is no reservation to name.
    message.decision.reservation_id = ""
    message.candidates.extend(map(_candidate_report, explanation.candidates))
    return message


def _candidate_report(report: CandidateReport) -> pb.CandidateReport:
    message = pb.CandidateReport(
        tier=report.tier,
        provider=report.provider,
        model=report.model,
        hold_nusd=report.hold_nusd,
        outcome=report.outcome,
        why=report.why,
    )
    for rule in report.rules:
        line = message.rules.add(passed=rule.passed, reason=int(rule.reason), note=rule.note)
        binding_to_pb(line.binding, rule.binding)
    return message
