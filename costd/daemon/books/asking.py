"""What an ask must be before it is decided, and what its caller may claim."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from costd.engine import candidates as offers
from costd.engine import keys
from costd.engine.rules import Rules
from costd.errors import InvalidAsk, NotPermitted
from costd.model.ask import Ask, ask_problem
from costd.model.policy import TaskClass
from costd.model.reservation import ALLOWANCE_PREFIX, Reservation
from costd.pricing import usage_problem

ANY_CLASS = "*"


class Trust(NamedTuple):
    """What the daemon's own settings say of its callers."""

    name: str = "costd"
    """The daemon's name, an audience of override grants."""
    labels_fixed: dict[str, str] = {}  # noqa: RUF012 - never written
    claims: frozenset[str] = frozenset()
    """Critical task classes that callers may claim; `*` for any."""


def checked(
    ask: Ask,
    caller: str,
    *,
    trust: Trust,
    rules: Rules,
    find: Callable[[bytes], Reservation | None],
    id_field: str = "ask_id",
    is_allowance: bool = False,
) -> tuple[Ask, TaskClass]:
    """Check an ask and fill in what it leaves out: fixed labels, and its task class.

    Errors:  InvalidAsk, NotPermitted.
    """
    problem = ask_problem(ask, id_field=id_field)
    if not problem and not is_allowance and ask.ask_id.startswith(ALLOWANCE_PREFIX):
        problem = f"{id_field} begins like an allowance's ({ALLOWANCE_PREFIX!r}); make a UUIDv7"
    if ask.units and not problem:
        problem = usage_problem({"input_tokens": 0, "output_tokens": 0, **ask.units})
    if problem:
        raise InvalidAsk(problem)
    for key, value in trust.labels_fixed.items():
        if ask.labels.get(key, value) != value:
            raise NotPermitted(
                f"labels[{key}] is fixed to {value!r} by this daemon; the ask claims "
                f"{ask.labels[key]!r}"
            )
    if trust.labels_fixed:
        ask = msgspec.structs.replace(ask, labels={**ask.labels, **trust.labels_fixed})
    if not ask.task_class:
        # A repeated ask is of the class it had, whatever the policy's default is by now.
        stored = find(keys.reservation_id(caller, ask.ask_id))
        if stored is not None:
            ask = msgspec.structs.replace(ask, task_class=stored.ask.task_class)
    task_class = offers.task_class_of(rules, ask)
    if not ask.task_class:
        ask = msgspec.structs.replace(ask, task_class=task_class.name)
    if task_class.critical and not {ANY_CLASS, task_class.name} & trust.claims:
        raise NotPermitted(
            f"task class {task_class.name!r} is critical and this daemon's callers may not "
            "claim it; add it to the daemon's `claims` setting"
        )
    return ask, task_class
