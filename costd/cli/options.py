"""Options that several commands share, and how their values are read."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from pydantic_core import PydanticCustomError

from costd.cli.address import (
    ADDRESS_VARIABLE,
    CONTROL_VARIABLE,
    default_address,
    default_control_address,
    default_coordinator_address,
)
from costd.cli.identifiers import operator
from costd.cli.times import read_moment_ns
from costd.model.money import usd_to_nusd
from costd.policy.amounts import read_count, read_duration_ns


def reader(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Let a reader's ValueError become the message of a usage error."""

    def parse(text: Any) -> Any:
        if not isinstance(text, str):  # a default that is already a value
            return text
        try:
            return read(text)
        except ValueError as error:
            raise PydanticCustomError("value", "{problem}", {"problem": str(error)}) from error

    return parse


def pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """Read repeated `key=value` options; the same key twice is an error."""
    read: dict[str, str] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(f"{text!r} is not key=value", param_hint=option)
        if key.strip() in read:
            raise typer.BadParameter(f"{key.strip()!r} is given twice", param_hint=option)
        read[key.strip()] = value
    return read


def counts(texts: Sequence[str] | None, option: str) -> dict[str, int]:
    """Read repeated `unit=count` options."""
    read = {}
    for unit, text in pairs(texts, option).items():
        try:
            read[unit] = read_count(text)
        except ValueError as error:
            raise typer.BadParameter(f"{unit}: {error}", param_hint=option) from error
    return read


def money(*names: str, about: str) -> Any:
    """Make an option that reads dollars."""
    return _option(names, usd_to_nusd, "DOLLARS", f"{about} (0.02 or '$0.02').")


def duration(*names: str, about: str) -> Any:
    """Make an option that reads a length of time."""
    return _option(names, read_duration_ns, "TIME", f"{about} (90s, 10m, 1h30m).")


def count(*names: str, about: str) -> Any:
    """Make an option that reads a whole number."""
    return _option(names, read_count, "COUNT", f"{about} (512, 10k).")


def when(*names: str, about: str) -> Any:
    """Make an option that reads a moment."""
    return _option(names, read_moment_ns, "WHEN", f"{about} (10m ago: 10m, or a date).")


def _option(names: Sequence[str], read: Callable[[str], Any], metavar: str, about: str) -> Any:
    return typer.Option(*names, parser=reader(read), metavar=metavar, help=about)


Address = Annotated[
    str,
    typer.Option(
        "--address",
        "--socket",
        envvar=ADDRESS_VARIABLE,
        default_factory=default_address,
        help="Where agents ask: unix:PATH, PATH or HOST:PORT.",
        show_default=False,
    ),
]
Control = Annotated[
    str,
    typer.Option(
        "--control",
        envvar=CONTROL_VARIABLE,
        default_factory=default_control_address,
        help="Where operators ask: unix:PATH, PATH or HOST:PORT.",
        show_default=False,
    ),
]
Coordinator = Annotated[
    str,
    typer.Option(
        "--control",
        envvar=CONTROL_VARIABLE,
        default_factory=default_coordinator_address,
        help="Where operators ask a coordinator: unix:PATH, PATH or HOST:PORT.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document for programs.")]
Utc = Annotated[bool, typer.Option("--utc", help="Show times in UTC, not in the local zone.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Show at most this many.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="Repeatable.")
]
Since = Annotated[int | None, when("--since", about="From then on")]
TaskClass = Annotated[
    str, typer.Option("--class", "-c", help="Task class; the policy's default if empty.")
]
Provider = Annotated[str, typer.Option(help="As the price catalogue spells it: openai, anthropic…")]
Model = Annotated[str, typer.Option("--model", "-m", help="As the provider spells it.")]
Units = Annotated[
    list[str] | None,
    typer.Option("--unit", metavar="UNIT=COUNT", help="Another unit: web_searches=3. Repeatable."),
]
Caller = Annotated[str, typer.Option(help="Who asks; ask ids are unique per caller.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; goes into the audit.")]
Actor = Annotated[
    str, typer.Option(default_factory=operator, show_default=False, help="Who; you, if not given.")
]
