"""Labels and task class for every call made inside a `with` block."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Ambient:
    """What the surrounding blocks say about the calls inside them."""

    task_class: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    override_grant: str = ""
    key: tuple[object, ...] = ()
    """The same for blocks that say the same; empty outside of any."""


_AMBIENT: ContextVar[Ambient] = ContextVar("costd_ambient", default=Ambient())  # noqa: B039 - frozen

ambient = _AMBIENT.get
"""Returns what the surrounding `labels(...)` blocks say; every call of the hot path asks."""


@contextmanager
def labels(
    *, task_class: str = "", override_grant: str = "", **values: str | int
) -> Iterator[Ambient]:
    """Add labels to every ask made inside this block, in this thread or asyncio task.

    Shape:   `with labels(run="r1", task_class="code_review"): …`; blocks nest, inner ones win.
    """
    outer = _AMBIENT.get()
    task_class = task_class or outer.task_class
    override_grant = override_grant or outer.override_grant
    inside = {**outer.labels, **{key: str(value) for key, value in values.items()}}
    inner = Ambient(
        task_class=task_class,
        override_grant=override_grant,
        labels=inside,
        key=(task_class, override_grant, *inside.items()),
    )
    token = _AMBIENT.set(inner)
    try:
        yield inner
    finally:
        _AMBIENT.reset(token)
