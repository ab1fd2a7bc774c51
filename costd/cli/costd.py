"""`costd`: run the daemon."""

# ruff: noqa: B008  typer declares options as defaults

import asyncio
import sys
from typing import Any, Final

import typer

from costd import __version__

SETTINGS_PANEL: Final = "Settings (also COSTD_… and --config)"

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)


def _setting(name: str) -> Any:
    """Declare the flag of one setting; what it means stands with the setting."""
    from costd.daemon.settings import Settings  # noqa: PLC0415  `costd version` needs none of it

    return typer.Option(
        None,
        f"--{name.replace('_', '-')}",
        help=Settings.model_fields[name].description,
        show_default=False,
    )
