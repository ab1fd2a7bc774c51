"""What the commands of both programs are made with.

Their help says what to write: a flag takes no value, so none is shown beside it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

COULD_NOT_RUN: Final = 1
BAD_SETTINGS: Final = 2
"""Exit codes of `costd`."""


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """End `costd` with what to install where the block imports a package that is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "costd").partition(".")[0] == "costd":
            raise
        end(f"{extra} needs more packages: pip install 'costd[{extra}]'", BAD_SETTINGS)


def end(error: Exception | str, exit_code: int) -> NoReturn:
    """Say on standard error why `costd` cannot go on, a line each, and end it."""
    for line in str(error).splitlines():
        typer.echo(f"costd: {line}", err=True)
    raise typer.Exit(exit_code) from (error if isinstance(error, Exception) else None)


class Command(TyperCommand):
    """One command."""

    def get_params(self, ctx: Any) -> list[Any]:
        """List the parameters as help and parser see them."""
        return _flags_bare(super().get_params(ctx))


class Group(TyperGroup):
    """A command of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """List the parameters as help and parser see them."""
        return _flags_bare(super().get_params(ctx))


def _flags_bare(params: Iterable[Any]) -> list[Any]:
    """Take `<bool>` away, which typer writes beside flags too."""
    listed = list(params)
    for each in listed:
        if isinstance(each, TyperOption) and each.is_flag and each.metavar is None:
            each.metavar = ""
    return listed
