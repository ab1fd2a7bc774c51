"""`status`: how the daemon is."""

from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from costd.cli import connection, options, render
from costd.cli.document import emit
from costd.cli.times import moment, span
from costd.model.money import format_nusd
from costd.wire.pb import control_pb2 as pb

VERDICT_STYLES = {"allow": "green", "degrade": "yellow", "deny": "red"}


def status(
    *, control: options.Control, as_json: options.Json = False, utc: options.Utc = False
) -> None:
    """Show how the daemon is: policy, money out, kill switches, decisions."""
    with connection.control(control) as daemon:
        answer = daemon.GetStatus(pb.GetStatusRequest())
    if as_json:
        emit(answer)
    else:
        render.console().print(status_view(answer, utc=utc))


def status_view(answer: pb.Status, *, utc: bool) -> RenderableType:
    """Lay a status out."""
    parts: list[RenderableType] = [render.fields(_fields(answer, utc=utc))]
    if answer.decisions:
        parts += [Text(), decisions_table(answer.decisions)]
    return Group(*parts)


def _fields(answer: pb.Status, *, utc: bool) -> Iterator[tuple[str, render.Cell]]:
    yield "costd", answer.version
    running = span(answer.now_ns - answer.started_ns)
    yield "started", f"{moment(answer.started_ns, utc=utc)} ({running} ago)"
    yield "policy", f"{answer.policy_path} {answer.policy_revision}".strip()
    if answer.policy_error:
        yield "policy refused", render.lines(answer.policy_error, "bold red")
    if answer.kill_file_error:
        yield "kill file refused", render.lines(answer.kill_file_error, "bold red")
    yield "catalogue", answer.catalogue_version
    yield "data", f"{answer.data_dir} {answer.durability}".strip()
    reserved = format_nusd(answer.reserved_nusd)
    yield "reserved", f"{reserved} in {answer.open_reservations_count:,} open reservations"
    exposure = format_nusd(answer.exposure_nusd)
    unknown = answer.unknown_ceiling_count
    yield "exposure", f"{exposure} beyond that" + f", {unknown:,} without a ceiling" * bool(unknown)
    yield "sessions", f"{answer.sessions_attached_count:,} attached"
    yield "allowances", allowances_text(answer)
    yield "kill switches", kills_text(answer.kills_engaged_count)


def allowances_text(answer: pb.Status) -> str:
    """Write how many allowances are out, and what of open ones is drawn."""
    if not answer.allowances_open_count + answer.allowances_draining_count:
        return "none out"
    granted = format_nusd(answer.allowances_granted_nusd)
    drawn = format_nusd(answer.allowances_drawn_nusd)
    draining = answer.allowances_draining_count
    return (
        f"{answer.allowances_open_count:,} open ({granted} granted, {drawn} drawn)"
        + f", {draining:,} draining" * bool(draining)
    )


def kills_text(engaged_count: int) -> Text:
    """Write how many kill switches are engaged; any is loud."""
    if engaged_count:
        return Text(f"{engaged_count} engaged", style="bold white on red")
    return Text("none engaged")


def split_decisions(decisions: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Turn counts by `verdict/task_class` into class → verdict → count."""
    split: dict[str, dict[str, int]] = {}
    for name in sorted(decisions):
        verdict, _, task_class = name.partition("/")
        split.setdefault(task_class, {})[verdict.lower()] = decisions[name]
    return split


def decisions_table(decisions: Mapping[str, int], heading: str = "") -> RenderableType:
    """Make a table of decisions by class and verdict."""
    rows: list[tuple[render.Cell, ...]] = [
        (task_class or "(none)", *(_count(by_verdict, verdict) for verdict in VERDICT_STYLES))
        for task_class, by_verdict in split_decisions(decisions).items()
    ]
    return render.table((heading or "task class", ">allow", ">degrade", ">deny"), rows)


def _count(by_verdict: Mapping[str, int], verdict: str) -> Text:
    count = by_verdict.get(verdict, 0)
    return Text(f"{count:,}", style=VERDICT_STYLES[verdict] if count else "dim")
