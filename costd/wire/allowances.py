"""The messages of `Attach` ↔ the values that the books of allowances work with."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from costd.engine.allot import Allotment
from costd.engine.draws import Ended
from costd.engine.resolve import Report
from costd.errors import InvalidAsk
from costd.model.allowance import Allowance, Sums
from costd.model.price import Price
from costd.model.reservation import ReservationState
from costd.model.time import NS_PER_S
from costd.wire.admission import decision_to_pb, report_from_pb, reservation_id_from_text
from costd.wire.pb import admission_pb2 as pb

_Entry = TypeVar("_Entry")
_Value = TypeVar("_Value")

REPORT_ENTRIES_MAX: Final = 1_000
"""Of each kind in one report; booking so many takes some hundredths of a second, in which nobody
else is answered."""


class Read(NamedTuple):
    """A report as the books work with it."""

    drawn: list[tuple[bytes, Sums]]
    ended: list[Ended]
    returned: list[bytes]
    problems: list[str]
    """What could not be read, for people."""


def read_report(report: pb.Report) -> Read:
    """Read a report; what makes no sense of it keeps nothing else from being booked.

    Errors:  InvalidAsk for a report that is too long.
    """
    for name, entries in (
        ("draws", report.drawn),
        ("settlements", report.settlements),
        ("labels", report.labels),
        ("returns", report.returned_allowance_ids),
    ):
        if len(entries) > REPORT_ENTRIES_MAX:
            raise InvalidAsk(
                f"report {report.sequence} has {len(entries)} {name}; send at most "
                f"{REPORT_ENTRIES_MAX} {name} in one"
            )
    problems: list[str] = []
    labels = [{}, *(dict(each.labels) for each in report.labels)]
    return Read(
        list(_readable(_drawn, report.drawn, problems)),
        list(_readable(lambda each: _ended(each, labels), report.settlements, problems)),
        list(_readable(_returned, report.returned_allowance_ids, problems)),
        problems,
    )


def _readable(
    read: Callable[[_Entry], _Value], entries: Iterable[_Entry], problems: list[str]
) -> Iterator[_Value]:
    """Yield what can be read, and tell what cannot."""
    for entry in entries:
        try:
            yield read(entry)
        except InvalidAsk as error:
            problems.append(f"{error}; it was not booked")


def _drawn(drawn: pb.Drawn) -> tuple[bytes, Sums]:
    what = f"draws of allowance {drawn.allowance_id[:80]!r}"
    return (
        _allowance_id(drawn.allowance_id),
        _sums(drawn.calls_count, drawn.amount_nusd, drawn.tokens_count, what),
    )


def _returned(allowance_id: str) -> bytes:
    return _allowance_id(allowance_id)


def _ended(settlement: pb.DrawSettlement, labels: Sequence[dict[str, str]]) -> Ended:
    """Read a call that ended.

    Errors:  InvalidAsk where it does not say what it drew from what; with anything else that is
             wrong it is charged at its hold.
    """
    what = f"call {settlement.ask_id[:80]!r}"
    allowance_id = _allowance_id(settlement.allowance_id, f"{what}: ")
    ended = Ended(
        allowance_id=allowance_id,
        ask_id=settlement.ask_id,
        held=_sums(1, settlement.hold_nusd, settlement.tokens_count, what),
        report=Report(cost_nusd=0),
        cost_known=settlement.HasField("cost_nusd"),
        voided=settlement.voided,
        cost_kind=settlement.cost_kind,
        prompt_tokens=settlement.prompt_tokens if settlement.HasField("prompt_tokens") else None,
        max_output_tokens=(
            settlement.max_output_tokens if settlement.HasField("max_output_tokens") else None
        ),
    )
    try:
        report = report_from_pb(settlement)
    except InvalidAsk as error:
        return msgspec.structs.replace(ended, problem=str(error))
    index = settlement.labels_index
    if not 0 <= index < len(labels):
        return msgspec.structs.replace(
            ended, problem=f"labels_index {index} names no labels of its report"
        )
    return msgspec.structs.replace(ended, report=report, labels=labels[index])


def _allowance_id(text: str, what: str = "") -> bytes:
    try:
        return reservation_id_from_text(text, "allowance_id")
    except InvalidAsk as error:
        raise InvalidAsk(f"{what}{error}") from error


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
