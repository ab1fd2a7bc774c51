"""`settle`, `void` and `record`: tell the daemon what a call really cost."""

from enum import StrEnum
from typing import Annotated

import typer

from costd.cli import connection, options, render
from costd.cli.decisions import settlement_view
from costd.cli.document import emit
from costd.cli.identifiers import uuid7
from costd.wire.pb import admission_pb2 as pb


class OutcomeChoice(StrEnum):
    """How a call ended."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"


OUTCOMES = {
    OutcomeChoice.OK: pb.OUTCOME_OK,
    OutcomeChoice.ERROR: pb.OUTCOME_ERROR,
    OutcomeChoice.CANCELLED: pb.OUTCOME_CANCELLED,
    OutcomeChoice.TIMEOUT: pb.OUTCOME_TIMEOUT,
}

Reservation = Annotated[str, typer.Argument(metavar="RESERVATION", help="Its id, from `admit`.")]
ActualCost = Annotated[int | None, options.money("--cost", about="What it cost")]
PromptTokens = Annotated[int | None, options.count(about="Tokens in, cached ones included")]
CachedTokens = Annotated[int | None, options.count(about="Of these, read from the cache")]
CacheWriteTokens = Annotated[int | None, options.count(about="Of these, written to the cache")]
OutputTokens = Annotated[int | None, options.count(about="Tokens out, reasoning included")]
ReasoningTokens = Annotated[int | None, options.count(about="Of these, reasoning")]
Took = Annotated[int | None, options.duration("--duration", about="How long the call took")]
Ended = Annotated[OutcomeChoice, typer.Option(help="How the call ended.")]
Retries = Annotated[int, typer.Option("--retries", min=0, help="How often it was retried.")]


def settle(
    reservation: Reservation,
    *,
    cost: ActualCost = None,
    prompt_tokens: PromptTokens = None,
    cached_tokens: CachedTokens = None,
    cache_write_tokens: CacheWriteTokens = None,
    output_tokens: OutputTokens = None,
    reasoning_tokens: ReasoningTokens = None,
    unit: options.Units = None,
    duration: Took = None,
    outcome: Ended = OutcomeChoice.OK,
    retries: Retries = 0,
    provider: options.Provider = "",
    model: options.Model = "",
    address: options.Address,
    as_json: options.Json = False,
) -> None:
    """Close a reservation at what the call cost: its usage, or the amount itself."""
    request = pb.SettleRequest(
        reservation_id=reservation,
        cost_nusd=cost,
        outcome=OUTCOMES[outcome],
        retry_count=retries,
        provider=provider,
        model=model,
        usage=_usage(
            unit,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            cache_write_tokens=cache_write_tokens,
            output_tokens=output_tokens,
            reasoning_tokens=reasoning_tokens,
        ),
    )
    _require_cost(request)
    if duration is not None:
        request.duration.FromNanoseconds(duration)
    with connection.admission(address) as daemon:
        _show(daemon.Settle(request), as_json=as_json)


def void(
    reservation: Reservation, *, address: options.Address, as_json: options.Json = False
) -> None:
    """Close a reservation at zero, because the call never left."""
    with connection.admission(address) as daemon:
        _show(daemon.Void(pb.VoidRequest(reservation_id=reservation)), as_json=as_json)


def record(
    *,
    task_class: options.TaskClass = "",
    label: options.Labels = None,
    provider: options.Provider = "",
    model: options.Model = "",
    cost: ActualCost = None,
    prompt_tokens: PromptTokens = None,
    cached_tokens: CachedTokens = None,
    cache_write_tokens: CacheWriteTokens = None,
    output_tokens: OutputTokens = None,
    reasoning_tokens: ReasoningTokens = None,
    unit: options.Units = None,
    happened: Annotated[int | None, options.when(about="When it was")] = None,
    duration: Took = None,
    outcome: Ended = OutcomeChoice.OK,
    retries: Retries = 0,
    cost_kind: Annotated[str, typer.Option(help="llm_call, embedding, image…")] = "",
    batch: Annotated[bool, typer.Option("--batch", help="Price it as a batch call.")] = False,
    record_id: Annotated[str, typer.Option(help="Your id for it; a new UUIDv7 if empty.")] = "",
    caller: options.Caller = "",
    address: options.Address,
    as_json: options.Json = False,
) -> None:
    """Charge spend that nobody asked for: batch jobs, backfills, calls made while failing open."""
    request = pb.RecordRequest(
        record_id=record_id or uuid7(),
        task_class=task_class,
        labels=options.pairs(label, "--label"),
        provider=provider,
        model=model,
        cost_nusd=cost,
        happened_ns=happened,
        outcome=OUTCOMES[outcome],
        retry_count=retries,
        cost_kind=cost_kind,
        batch=batch,
        usage=_usage(
            unit,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            cache_write_tokens=cache_write_tokens,
            output_tokens=output_tokens,
            reasoning_tokens=reasoning_tokens,
        ),
    )
    _require_cost(request)
    if duration is not None:
        request.duration.FromNanoseconds(duration)
    with connection.admission(address) as daemon:
        answer = daemon.Record(request, metadata=connection.identity(caller))
        _show(answer, as_json=as_json)


def _usage(unit: list[str] | None, **tokens: int | None) -> pb.Usage | None:
    """Make the usage if any was given: absent means unknown, zero means zero."""
    units = options.counts(unit, "--unit")
    if not units and all(count is None for count in tokens.values()):
        return None
    return pb.Usage(units=units, **tokens)


def _require_cost(request: pb.SettleRequest | pb.RecordRequest) -> None:
    if request.HasField("usage") == request.HasField("cost_nusd"):
        raise typer.BadParameter(
            "give either --cost or the usage (--prompt-tokens, --output-tokens, --unit …)"
        )


def _show(settlement: pb.Settlement, *, as_json: bool) -> None:
    if as_json:
        emit(settlement)
    else:
        render.console().print(settlement_view(settlement))
