"""`usage`: what was spent on what."""

from typing import Annotated

import typer
from rich.console import RenderableType

from costd.cli import connection, options, render
from costd.cli.decisions import model_name, reason_word
from costd.cli.document import emit
from costd.cli.times import moment, span
from costd.model.money import format_nusd
from costd.wire.pb import control_pb2 as pb

EVENT_COLUMNS = (
    "settled", "class", "model", ">cost", ">held", ">in", ">out", ">took", "closed as", "reason",
    "labels",
)  # fmt: skip
GROUP_COLUMNS = (">calls", ">cost", ">tokens in", ">cached", ">tokens out", ">reasoning")


def usage(
    *,
    by: Annotated[
        str, typer.Option(metavar="KEY,KEY", help="Sum by labels, model, task_class, reason…")
    ] = "",
    where: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only these. Repeatable.")
    ] = None,
    since: options.Since = None,
    until: Annotated[int | None, options.when(about="Up to then")] = None,
    limit: options.Limit = 50,
    control: options.Control,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Show what was spent: single calls, or sums `--by project,task_class`."""
    keys = [key.strip() for key in by.split(",") if key.strip()]
    request = pb.ListUsageRequest(
        group_by=keys,
        where=options.pairs(where, "--where"),
        since_ns=since,
        until_ns=until,
        limit_count=limit,
    )
    with connection.control(control) as daemon:
        answer = daemon.ListUsage(request)
    if as_json:
        emit(answer)
    else:
        view = _groups(answer, keys) if keys else _events(answer, utc=utc)
        render.console().print(view)


def _groups(answer: pb.ListUsageResponse, keys: list[str]) -> RenderableType:
    rows = [
        (
            *(group.by.get(key, "") for key in keys),
            f"{group.calls_count:,}",
            format_nusd(group.cost_nusd),
            f"{group.prompt_tokens:,}",
            f"{group.cached_tokens:,}",
            f"{group.output_tokens:,}",
            f"{group.reasoning_tokens:,}",
        )
        for group in sorted(answer.groups, key=lambda group: -group.cost_nusd)
    ]
    columns = (*keys, *GROUP_COLUMNS)
    return render.listing(columns, rows, nothing="nothing was spent", truncated=answer.truncated)


def _events(answer: pb.ListUsageResponse, *, utc: bool) -> RenderableType:
    rows = [_row(event, utc=utc) for event in answer.events]
    return render.listing(
        EVENT_COLUMNS, rows, nothing="nothing was spent", truncated=answer.truncated
    )


def _row(event: pb.UsageEvent, *, utc: bool) -> tuple[render.Cell, ...]:
    measured = event.usage
    return (
        moment(event.settled_ns, utc=utc),
        event.task_class,
        model_name(event.provider, event.model, event.tier),
        format_nusd(event.cost_nusd),
        format_nusd(event.hold_nusd),
        f"{measured.prompt_tokens:,}" if measured.HasField("prompt_tokens") else "",
        f"{measured.output_tokens:,}" if measured.HasField("output_tokens") else "",
        span(event.duration_ns) if event.duration_ns else "",
        event.closed_as,
        reason_word(event.reason) if event.reason else "",
        render.mapping(event.labels.items()),
    )
