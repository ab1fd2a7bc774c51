"""`costd`: run a daemon, a coordinator, or both.

Exit codes: 0 stopped, 1 could not run, 2 bad settings or policy.

Each program lies in a module of its own, which is imported when it is run: a daemon alone needs no
PostgreSQL driver, neither in memory nor installed.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import typer
from typer.main import get_command

from costd import __version__
from costd.cli.program import Command, Group, needing

PROGRAMS: Final = {
    "serve": (
        "costd.cli.serve",
        "Run the daemon until SIGTERM or SIGINT; SIGHUP reads the policy file again.",
    ),
    "coordinator": (
        "costd.cli.coordinator",
        "Run a coordinator, which shares budgets among daemons, until SIGTERM or SIGINT.",
    ),
    "injector": (
        "costd.cli.injector",
        "Run the admission webhook that puts sidecars into pods, until SIGTERM or SIGINT.",
    ),
    "health": (
        "costd.cli.health",
        "Exit with 0 if a daemon or coordinator serves; else with 1, and a line that says why not.",
    ),
    "drain": (
        "costd.cli.drain",
        "Wait until nobody uses a daemon any more, which serves on meanwhile.",
    ),
    "up": (
        "costd.cli.up",
        "Run a coordinator and a daemon on this machine, until SIGTERM or SIGINT.",
    ),
}
"""Where each lies, and the first line of its help, so that a list of them imports none."""


class _Programs(Group):
    """Imports a program once it is known which is meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the arguments name."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in PROGRAMS else command, rest


def load(name: str) -> Any:
    """Import one of the programs as a command.

    Errors: ends the process where a package that the program needs is not installed.
    """
    with needing(name), _uncollected():
        function = getattr(import_module(PROGRAMS[name][0]), name)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, cls=Command)(function)
    return get_command(single)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the collector out: what is imported stays, and walking it takes a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _make_app() -> typer.Typer:
    made = typer.Typer(
        cls=_Programs,
        name="costd",
        help="Decide, before an AI agent calls a language model, whether that call may happen. "
        "`costd COMMAND --help` says what a command reads, which signals it knows and how it ends; "
        "costctl asks and steers what runs.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    for name, (_, about) in PROGRAMS.items():
        made.command(name, cls=Command, help=about)(lambda: None)
    made.command(cls=Command)(version)
    return made


def version() -> None:
    """Print the version."""
    typer.echo(f"costd {__version__}")


app = _make_app()


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
