"""The messages of `Attach` ↔ the values that the books of allowances work with."""

from collections.abc import Iterator

from costd.engine.allot import Allotment
from costd.engine.draws import Ended
from costd.errors import InvalidAsk
from costd.model.allowance import Allowance, Sums
from costd.model.price import Price
from costd.model.reservation import ReservationState
from costd.model.time import NS_PER_S
from costd.wire.convert import decision_to_pb, report_from_pb, reservation_id_from_text
from costd.wire.pb import admission_pb2 as pb


def drawn_from_pb(report: pb.Report) -> Iterator[tuple[bytes, Sums]]:
    """Read how far allowances have been drawn.

    Errors:  InvalidAsk.
    """
    for drawn in report.drawn:
        yield (
            reservation_id_from_text(drawn.allowance_id),
            _sums(drawn.calls_count, drawn.amount_nusd, drawn.tokens_count, "drawn"),
        )


def ended_from_pb(report: pb.Report) -> Iterator[Ended]:
    """Read the calls that ended.

    Errors:  InvalidAsk.
    """
    labels = [{}, *(dict(each.labels) for each in report.labels)]
    for settlement in report.settlements:
        if not 0 <= settlement.labels_index < len(labels):
            raise InvalidAsk(
                f"labels_index {settlement.labels_index} names no labels of its report"
            )
        yield Ended(
            allowance_id=reservation_id_from_text(settlement.allowance_id),
            ask_id=settlement.ask_id,
            held=_sums(1, settlement.hold_nusd, settlement.tokens_count, "settlement"),
            report=report_from_pb(settlement),
            cost_known=settlement.HasField("cost_nusd"),
            voided=settlement.voided,
            labels=labels[settlement.labels_index],
            cost_kind=settlement.cost_kind,
            prompt_tokens=(
                settlement.prompt_tokens if settlement.HasField("prompt_tokens") else None
            ),
            max_output_tokens=(
                settlement.max_output_tokens if settlement.HasField("max_output_tokens") else None
            ),
        )


def allowance_to_pb(
    allowance: Allowance,
    allotment: Allotment,
    *,
    lifetime_ns: int,
    output_tokens_default: int | None,
) -> pb.Allowance:
    """Write an allowance for its client."""
    held = allotment.answer.reservation
    decision = allotment.answer.decision
    template = decision_to_pb(decision, ReservationState.HELD, replayed=False)
    template.source = "allowance"
    template.ask_id = template.reservation_id = ""
    template.hold_nusd = template.expires_ns = 0
    template.ClearField("ceiling_nusd")
    granted = allowance.granted
    message = pb.Allowance(
        allowance_id=allowance.allowance_id.hex(),
        decision=template,
        amount_nusd=granted.amount_nusd,
        calls_count=granted.calls_count,
        output_tokens_default=output_tokens_default,
        output_tokens_max=decision.directives.max_output_tokens,
        slot=allowance.slot,
        serial=allowance.serial,
    )
    assert held is not None
    if allotment.counts_tokens:
        message.tokens_count = granted.tokens_count
    _duration(message.lifetime, lifetime_ns)
    _duration(message.call_ttl, allowance.call_ttl_ns)
    price = allotment.answer.price
    if price is not None:
        _price_table(message, price)
    return message


def _price_table(message: pb.Allowance, price: Price) -> None:
    if price.context_window is not None:
        message.context_window = price.context_window
    linear = price.linear()
    if linear is None:
        return
    table = message.price_table
    table.scale, table.per_request = linear.scale, linear.per_request
    for above, of_input, of_output in linear.bands:
        table.bands.add(above_tokens=above, input=of_input, output=of_output)


def _duration(message: object, span_ns: int) -> None:
    message.seconds, message.nanos = divmod(span_ns, NS_PER_S)  # type: ignore[attr-defined]


def _sums(calls_count: int, amount_nusd: int, tokens_count: int, what: str) -> Sums:
    """Read how much was drawn.

    Errors:  InvalidAsk for a negative sum.
    """
    if min(calls_count, amount_nusd, tokens_count) < 0:
        raise InvalidAsk(f"{what}: calls_count, amount_nusd and tokens_count must not be negative")
    return Sums(calls_count, amount_nusd, tokens_count)
