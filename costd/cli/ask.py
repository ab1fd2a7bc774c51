"""`admit` and `explain`: put an ask to the daemon."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import RenderableType

from costd.cli import connection, options, render
from costd.cli.decisions import decision_view, explanation_view
from costd.cli.document import emit
from costd.cli.exits import ExitCode
from costd.cli.identifiers import uuid7
from costd.cli.sources import read_text_or_file
from costd.cli.times import wall_ns
from costd.wire.pb import admission_pb2 as pb

Answer = pb.Decision | pb.Explanation


def _asking(method: str, about: str) -> Callable[..., None]:
    """Make the command that puts an ask to this method; both take the same options."""

    def command(  # one parameter an option; typer calls it by keyword
        *,
        task_class: options.TaskClass = "",
        model: options.Model = "",
        provider: options.Provider = "",
        tier: Annotated[str, typer.Option(help="Tier asked for.")] = "",
        cost: Annotated[int | None, options.money("--cost", about="Estimated cost")] = None,
        prompt_tokens: Annotated[int | None, options.count(about="Tokens going in")] = None,
        max_output_tokens: Annotated[int | None, options.count(about="At most so many out")] = None,
        label: options.Labels = None,
        accept: Annotated[
            list[str] | None,
            typer.Option(metavar="MODEL", help="This would do instead. Repeatable."),
        ] = None,
        grant: Annotated[str, typer.Option(help="Override grant: the token, or @FILE.")] = "",
        ttl: Annotated[int | None, options.duration(about="How long to hold the money")] = None,
        batch: Annotated[bool, typer.Option("--batch", help="Price it as a batch call.")] = False,
        cost_kind: Annotated[str, typer.Option(help="llm_call, embedding, image…")] = "",
        unit: options.Units = None,
        ask_id: Annotated[
            str, typer.Option(help="Your id for this ask; a new UUIDv7 if empty.")
        ] = "",
        caller: options.Caller = "",
        address: options.Address,
        as_json: options.Json = False,
        utc: options.Utc = False,
    ) -> None:
        request = pb.AdmitRequest(
            ask_id=ask_id or uuid7(),
            estimated_cost_nusd=cost,
            prompt_tokens=prompt_tokens,
            max_output_tokens=max_output_tokens,
            task_class=task_class,
            labels=options.pairs(label, "--label"),
            provider=provider,
            model=model,
            tier=tier,
            acceptable_models=accept,
            override_grant=read_text_or_file(grant),
            batch=batch,
            cost_kind=cost_kind,
            units=options.counts(unit, "--unit"),
        )
        if ttl is not None:
            request.ttl.FromNanoseconds(ttl)
        with connection.admission(address) as daemon:
            answer = getattr(daemon, method)(request, metadata=connection.identity(caller))
        _show(answer, as_json=as_json, utc=utc)

    command.__doc__ = about
    return command


def _show(answer: Answer, *, as_json: bool, utc: bool) -> None:
    """Print the answer; a denial ends the command with an exit code of its own."""
    decision = answer.decision if isinstance(answer, pb.Explanation) else answer
    if as_json:
        emit(answer)
    else:
        render.console().print(_view(answer, utc=utc))
    if decision.verdict == pb.VERDICT_DENY:
        raise typer.Exit(ExitCode.DENIED)


def _view(answer: Answer, *, utc: bool) -> RenderableType:
    now_ns = wall_ns()
    if isinstance(answer, pb.Explanation):
        return explanation_view(answer, now_ns=now_ns, utc=utc)
    return decision_view(answer, now_ns=now_ns, utc=utc)


admit = _asking("Admit", "Ask whether a call may happen; if so, its money is held.")
explain = _asking("Explain", "Show what `admit` would answer and why; nothing is held.")
