"""Commands whose help says what to write: a flag takes no value, so none is shown beside it."""

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup, TyperOption


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
