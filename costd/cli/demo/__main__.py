"""`python -m costd.cli.demo`: what `make demo` runs."""

import io
import json
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from costd.cli import render
from costd.cli.demo.fleet import perform as fleet_demo
from costd.cli.demo.fleet import screen as fleet_screen
from costd.cli.demo.outcome import Outcome
from costd.cli.demo.perform import perform
from costd.cli.demo.rerun import Plan, rerun
from costd.cli.demo.screen import DarkScreen, LiveScreen, PlainScreen, Screen
from costd.cli.demo.stage import DemoFailed, work_folder
from costd.cli.demo.trace import read_trace
from costd.cli.program import Command

ROOT = Path(__file__).resolve().parents[3]
QUICKSTART = ROOT / "policies" / "quickstart.yaml"
TRACE_POLICY = Path(__file__).with_name("trace.yaml")
NOT_RIGHT = 1
COULD_NOT_RUN = 2
SEEDS = 1_000_000


def demo(
    *,
    trace: Annotated[
        Path | None,
        typer.Option(help="Replay this CSV: TIMESTAMP, ContextTokens, GeneratedTokens."),
    ] = None,
    serial: Annotated[
        bool,
        typer.Option("--serial", help="Replay one call at a time and foretell every verdict."),
    ] = False,
    limit: Annotated[int, typer.Option(min=0, help="Replay only so many calls; 0 is all.")] = 0,
    seconds: Annotated[
        float, typer.Option(min=1, max=3600, help="Compress the trace to about this long.")
    ] = 40,
    seed: Annotated[int | None, typer.Option(help="Draw as a run that printed this seed.")] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=16, help="Processes that play the agents.")
    ] = min(4, max(2, os.cpu_count() or 2)),
    fleet: Annotated[
        int,
        typer.Option(min=0, max=32, help="Let so many daemons race for one budget, and be killed."),
    ] = 0,
    keep: Annotated[
        Path | None, typer.Option(help="Keep journals, logs and policy in this directory.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Run a daemon under a few hundred agents, watch it live, and check its books to the end.

    With --fleet N: so many daemons and a coordinator, which are killed and cut off meanwhile.

    Exit codes: 0 all happened and the ledger adds up, 1 not so, 2 could not run.
    """
    if trace is None and (serial or limit):
        raise typer.BadParameter("goes with --trace FILE.csv", param_hint="--serial, --limit")
    if fleet == 1 or (fleet and trace):
        raise typer.BadParameter(
            "a fleet has two daemons or more, and replays no trace", param_hint="--fleet"
        )
    seed = secrets.randbelow(SEEDS) if seed is None else seed
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # bars and ticks are not worth an error
    console = render.console()
    redraws = console.is_terminal and not console.is_dumb_terminal
    outcome: Outcome | fleet_demo.Outcome
    try:
        rows = read_trace(trace, limit) if trace else []
        with work_folder(keep) as folder:
            if not as_json:
                print(f"seed {seed}; --seed {seed} draws the same calls again", flush=True)  # noqa: T201
            if fleet:
                outcome = fleet_demo.perform(
                    folder,
                    fleet_screen.screen(console, redraws=redraws, dark=as_json),
                    seed=seed,
                    daemons_count=fleet,
                )
            elif trace:
                plan = Plan(
                    trace=trace, rows=rows, limit_count=limit, seed=seed,
                    seconds=seconds, serial=serial, workers_count=workers,
                )  # fmt: skip
                outcome = rerun(
                    folder, TRACE_POLICY, _screen(console, redraws=redraws, dark=as_json), plan
                )
            else:
                outcome = perform(
                    folder,
                    QUICKSTART,
                    _screen(console, redraws=redraws, dark=as_json),
                    seed=seed,
                    workers_count=workers,
                )
    except DemoFailed as failed:
        typer.echo(f"demo: {failed}", err=True)
        raise typer.Exit(COULD_NOT_RUN) from failed
    except KeyboardInterrupt as interrupted:
        raise typer.Exit(130) from interrupted
    _tell(outcome, as_json=as_json)
    raise typer.Exit(0 if outcome.passed else NOT_RIGHT)


def _screen(console: Console, *, redraws: bool, dark: bool) -> Screen:
    if dark:
        return DarkScreen()
    return LiveScreen(console) if redraws else PlainScreen(console)


def _tell(outcome: Outcome | fleet_demo.Outcome, *, as_json: bool) -> None:
    if as_json:
        json.dump(outcome.document(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        outcome.print(render.console())


def main() -> None:
    """Run the demo; told to end, it takes its daemon and workers along."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=Command)(demo)
    app(prog_name="demo")


if __name__ == "__main__":
    main()
