"""Flags that a command takes because its program has settings of those names."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from costd.configuration import Configured


def takes_settings(
    program: type[Configured],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for each setting; it is handed those that were written, by name.

    The setting itself says what it means and checks its value.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        flags = [_flag(program, name) for name in program.model_fields]

        @wraps(command)
        def run(**given: Any) -> None:
            settings = {name: given.pop(name) for name in program.model_fields}
            written = {name: value for name, value in settings.items() if value is not None}
            command(written, **given)

        every = [*flags, *own]
        run.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {each.name: each.annotation for each in every}
        return run

    return decorate


def _flag(program: type[Configured], name: str) -> inspect.Parameter:
    field = program.model_fields[name]
    kind: Any = bool if field.annotation is bool else str
    option = typer.Option(f"--{name.replace('_', '-')}", help=field.description, show_default=False)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )
