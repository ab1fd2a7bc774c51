"""`kill`, `release` and `kills`: the emergency stop."""

import secrets
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from costd.cli import connection, options, render
from costd.cli.document import emit
from costd.cli.times import moment
from costd.model.kill import KillMode
from costd.wire.pb import control_pb2 as pb

COLUMNS = ("kill switch", "state", "scope", "stops", "reason", "actor", "engaged", "releases")
INSTEAD = (
    "Every daemon can be stopped without its coordinator: at its own control socket (--control), "
    "or by its kill file"
)
STOPS = {"deny_all": "every call", "critical_only": "all but critical classes"}


def kill(
    ctx: typer.Context,
    *,
    reason: Annotated[
        str, typer.Option("--reason", "-r", help="Why; goes into the audit. Needed.")
    ] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Labels, model, tier…; all must match. Repeatable."),
    ] = None,
    mode: Annotated[KillMode | None, typer.Option(help="How far; deny_all if not given.")] = None,
    tier: Annotated[str, typer.Option(help="The best tier still allowed (mode max_tier).")] = "",
    release_after: Annotated[int | None, options.duration(about="Release itself after")] = None,
    kill_id: Annotated[str, typer.Option("--id", help="Its name; made up if not given.")] = "",
    actor: options.Actor,
    control: options.Control,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Engage a kill switch: stop calls at once. Without --scope it stops everything."""
    if ctx.invoked_subcommand is not None:
        _refuse_lost_options(ctx)
        return
    chosen = mode or (KillMode.MAX_TIER if tier else KillMode.DENY_ALL)
    if (chosen is KillMode.MAX_TIER) != bool(tier):
        raise typer.BadParameter("--mode max_tier and --tier belong together", param_hint="--tier")
    if not reason.strip():
        raise typer.BadParameter("say why; it goes into the audit", param_hint="--reason")
    request = pb.EngageKillRequest(
        kill_id=kill_id or f"kill-{secrets.token_hex(4)}",
        scope=options.pairs(scope, "--scope"),
        mode=chosen.value,
        max_tier=tier,
        reason=reason,
        actor=actor,
    )
    if release_after is not None:
        request.release_after.FromNanoseconds(release_after)
    with connection.control(control, instead=INSTEAD) as daemon:
        _show(daemon.EngageKill(request), as_json=as_json, utc=utc)


def _refuse_lost_options(ctx: typer.Context) -> None:
    """Refuse options before `drill`: they would be the kill switch's, and do nothing."""
    given = [
        f"--{name.replace('_', '-')}"
        for name in ctx.params
        if (source := ctx.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]
    if given:
        raise typer.BadParameter(
            f"write options behind it: costctl kill {ctx.invoked_subcommand} {given[0]} …",
            param_hint=given[0],
        )


def release(
    kill_id: Annotated[str, typer.Argument(metavar="KILL_SWITCH", help="Its id, from `kills`.")],
    *,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why.")] = "",
    actor: options.Actor,
    control: options.Control,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Release a kill switch; releasing it again changes nothing."""
    request = pb.ReleaseKillRequest(kill_id=kill_id, actor=actor, reason=reason)
    with connection.control(control) as daemon:
        _show(daemon.ReleaseKill(request), as_json=as_json, utc=utc)


def kills(
    *,
    released: Annotated[bool, typer.Option("--released", help="Released ones, too.")] = False,
    control: options.Control,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Show kill switches."""
    request = pb.ListKillsRequest(include_released=released)
    with connection.control(control) as daemon:
        answer = daemon.ListKills(request)
    if as_json:
        emit(answer)
    else:
        render.console().print(kills_view(answer.kills, utc=utc))


def kills_view(switches: Iterable[pb.KillSwitch], *, utc: bool) -> RenderableType:
    """Make a table of kill switches."""
    rows = [_row(switch, utc=utc) for switch in switches]
    return render.listing(COLUMNS, rows, nothing="no kill switch is engaged")


def _row(switch: pb.KillSwitch, *, utc: bool) -> tuple[render.Cell, ...]:
    engaged = Text("ENGAGED", style="bold white on red")
    state = engaged if switch.engaged else f"released by {switch.released_by}"
    return (
        switch.kill_id,
        state,
        render.mapping(switch.scope.items()) or "everything",
        STOPS.get(switch.mode) or f"tiers above {switch.max_tier}",
        switch.reason,
        switch.actor,
        moment(switch.engaged_ns, utc=utc),
        moment(switch.released_ns or switch.releases_ns, utc=utc) or "by hand",
    )


def _show(switch: pb.KillSwitch, *, as_json: bool, utc: bool) -> None:
    if as_json:
        emit(switch)
    else:
        render.console().print(kills_view([switch], utc=utc))
