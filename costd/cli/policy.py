"""`policy`: check, show, compare and try policies."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Group, RenderableType
from rich.text import Text

from costd.cli import connection, options, render
from costd.cli.document import emit
from costd.cli.exits import ExitCode, Failure
from costd.cli.times import moment, wall_ns
from costd.errors import InvalidPolicy
from costd.model.policy import PolicySet
from costd.policy import Change, CounterFate, diff, load_policy, policy_warnings
from costd.wire.pb import control_pb2 as pb

PolicyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A policy file.")]
FATE_STYLES = {CounterFate.NEW: "yellow", CounterFate.LEFT: "yellow"}
PARTS = ("tiers", "task_classes", "budgets", "rates", "model_rules", "prices", "grant_keys")


def check(policy: PolicyFile, *, as_json: options.Json = False) -> None:
    """Check a policy file: what is wrong ends it, what is doubtful is a warning."""
    loaded = _load(policy, as_json=as_json)
    warnings = [*policy_warnings(loaded), *_price_warnings(loaded)]
    parts = {part: len(getattr(loaded, part)) for part in PARTS}
    if as_json:
        emit(
            {
                "valid": True,
                "revision": loaded.revision,
                "counts": parts,
                "warnings": warnings,
                "problems": [],
            }
        )
        return
    console = render.console()
    contents = ", ".join(f"{n} {part.replace('_', ' ')}" for part, n in parts.items() if n)
    console.print(render.plain(f"{policy}: valid, revision {loaded.revision}", "green"))
    console.print(Text(contents or "it says nothing", style="dim"))
    for warning in warnings:
        console.print(Text.assemble(("warning: ", "yellow"), render.plain(warning)), soft_wrap=True)


def show(
    *, control: options.Control, as_json: options.Json = False, utc: options.Utc = False
) -> None:
    """Show the policy in force at the daemon, as its file was read."""
    with connection.control(control) as daemon:
        answer = daemon.GetPolicy(pb.GetPolicyRequest())
    if as_json:
        emit(answer)
        return
    console = render.console()
    console.print(render.plain(f"# {_origin(answer, utc=utc)}", "dim"))
    console.print(render.lines(answer.yaml), soft_wrap=True)


def reload(
    *,
    actor: options.Actor,
    control: options.Control,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Let the daemon read its policy file again now; a bad one changes nothing."""
    with connection.control(control) as daemon:
        answer = daemon.ReloadPolicy(pb.ReloadPolicyRequest(actor=actor))
    if as_json:
        emit(answer)
    else:
        render.console().print(render.plain(_origin(answer, utc=utc)))


def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The policy in force.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The one to come.")],
    *,
    as_json: options.Json = False,
) -> None:
    """Compare two policy files, and say which counters start anew."""
    changes = diff(_load(old, as_json=as_json), _load(new, as_json=as_json))
    if as_json:
        emit({"changes": [msgspec.to_builtins(change) for change in changes]})
        return
    console = render.console()
    if not changes:
        console.print(Text("the two policies say the same", style="dim"))
    for change in changes:
        console.print(_change_view(change), soft_wrap=True)


def try_out(
    policy: PolicyFile,
    *,
    expectations: Annotated[
        Path | None, typer.Option("--expect", help="Expected decisions; beside it if not given.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Put asks to a policy on an empty daemon in memory, and compare the decisions."""
    from costd.cli import expectations as player  # noqa: PLC0415  loads engine and catalogue

    loaded = _load(policy, as_json=as_json)
    results = player.play_file(loaded, expectations or player.expectations_path(policy))
    failed = [result for result in results if result.problems]
    if as_json:
        emit(
            {
                "passed": not failed,
                "decisions_count": len(results),
                "results": [msgspec.to_builtins(result) for result in results],
            }
        )
    else:
        render.console().print(_results_view(results), soft_wrap=True)
    if failed:
        raise typer.Exit(ExitCode.POLICY)


def _load(path: Path, *, as_json: bool) -> PolicySet:
    """Load a policy; with --json a bad one still ends in one JSON document."""
    try:
        return load_policy(path)
    except InvalidPolicy as error:
        if as_json:
            emit({"valid": False, "problems": str(error).splitlines()})
            raise typer.Exit(ExitCode.POLICY) from error
        raise Failure(str(error), ExitCode.POLICY) from error


def _origin(answer: pb.Policy, *, utc: bool) -> str:
    loaded = moment(answer.loaded_ns, utc=utc)
    return f"{answer.path} revision {answer.revision}, loaded {loaded}"


def _price_warnings(policy: PolicySet) -> list[str]:
    from costd.pricing import PriceBook, tier_warnings  # noqa: PLC0415  loads the catalogue

    return tier_warnings(policy, PriceBook(policy), wall_ns())


def _change_view(change: Change) -> RenderableType:
    style = {"added": "green", "removed": "red"}.get(change.kind, "yellow")
    name = render.plain(f" {change.section} {change.rule_id}")
    head = Text.assemble((change.kind, style), name)
    if change.counters is not CounterFate.NONE:
        head.append(f"  counters {change.counters}", style=FATE_STYLES.get(change.counters, "dim"))
    details = [render.plain(f"    {detail}") for detail in change.details]
    return Group(head, *details)


def _results_view(results: list[Any]) -> RenderableType:
    parts: list[RenderableType] = []
    scenario = ""
    for result in results:
        if result.scenario != scenario:
            scenario = result.scenario
            parts.append(render.plain(scenario, "bold"))
        mark = ("  FAIL ", "bold red") if result.problems else ("  pass ", "green")
        said = render.plain(f"line {result.line}: {result.said}")
        parts.append(Text.assemble(mark, said))
        parts += [render.plain(f"       {problem}", "red") for problem in result.problems]
    failed_count = sum(bool(result.problems) for result in results)
    style = "bold red" if failed_count else "bold green"
    parts.append(Text(f"{len(results)} decisions, {failed_count} not as expected", style=style))
    return Group(*parts)
