"""`policy apply`, `history` and `rollback`: the policies that a coordinator published."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import grpc
import typer
from rich.console import RenderableType
from rich.text import Text

from costd.cli import connection, options, render
from costd.cli.document import emit
from costd.cli.exits import ExitCode, Failure
from costd.cli.sources import read_file
from costd.cli.times import moment
from costd.errors import InvalidPolicy
from costd.policy import load_policy
from costd.wire.pb import fleet_control_pb2 as pb

COLUMNS: Final = (">number", "revision", "published", "actor", ">daemons", "note")

Note = Annotated[str, typer.Option("--note", "-m", help="What changed, and why.")]


def apply(
    policy: Annotated[Path, typer.Argument(metavar="FILE", help="A policy file.")],
    *,
    note: Note = "",
    after: Annotated[
        int,
        typer.Option(
            metavar="NUMBER", min=0, help="Only if this is the newest by now; 0: whatever is."
        ),
    ] = 0,
    actor: options.Actor,
    control: options.Coordinator,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Publish a policy: it is in force in the whole fleet at once. A bad one changes nothing."""
    _check(policy, as_json=as_json)
    request = pb.PublishPolicyRequest(
        yaml=read_file(str(policy)), actor=actor, note=note, after_number=after
    )
    with connection.coordinator(control) as coordinator:
        try:
            published = coordinator.fleet.PublishPolicy(request)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            # Another version may know better than ours what is valid.
            raise Failure(f"the coordinator: {error.details()}", ExitCode.POLICY) from error
    _show(published, as_json=as_json, utc=utc)


def history(
    *,
    limit: options.Limit = 50,
    control: options.Coordinator,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Show every policy that was published, the newest first, and how many daemons have it."""
    with connection.coordinator(control) as coordinator:
        answer = coordinator.fleet.ListPolicies(pb.ListPoliciesRequest(limit_count=limit))
    if as_json:
        emit(answer)
    else:
        view = policies_view(answer.policies, utc=utc, truncated=answer.truncated)
        render.console().print(view)


def rollback(
    number: Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="From `policy history`.")],
    *,
    note: Note = "",
    actor: options.Actor,
    control: options.Coordinator,
    as_json: options.Json = False,
    utc: options.Utc = False,
) -> None:
    """Publish an earlier policy again, under a new number."""
    request = pb.RollbackPolicyRequest(number=number, actor=actor, note=note)
    with connection.coordinator(control) as coordinator:
        published = coordinator.fleet.RollbackPolicy(request)
    _show(published, as_json=as_json, utc=utc)


def policies_view(
    versions: Iterable[pb.PolicyVersion], *, utc: bool, truncated: bool = False
) -> RenderableType:
    """Make a table of published policies; the first row is in force."""
    rows = [
        (
            Text(f"{each.number:,}", style="" if at else "bold"),
            each.revision,
            moment(each.published_ns, utc=utc),
            each.actor,
            f"{each.daemons_count:,}" if each.daemons_count else "",
            each.note,
        )
        for at, each in enumerate(versions)
    ]
    nothing = "no policy was ever published"
    return render.listing(COLUMNS, rows, nothing=nothing, truncated=truncated)


def _check(path: Path, *, as_json: bool) -> None:
    """Find what is wrong with a file before anybody is asked: here its lines are known."""
    try:
        load_policy(path)
    except InvalidPolicy as error:
        if as_json:
            emit({"valid": False, "problems": str(error).splitlines()})
            raise typer.Exit(ExitCode.POLICY) from error
        raise Failure(str(error), ExitCode.POLICY) from error


def _show(published: pb.PolicyVersion, *, as_json: bool, utc: bool) -> None:
    if as_json:
        emit(published)
        return
    at = moment(published.published_ns, utc=utc)
    told = f"policy {published.number} revision {published.revision}, in force since {at}"
    render.console().print(render.plain(told, "green"))
