"""One request to admit."""

import msgspec

from costd.model.labels import (
    LABEL_COUNT_MAX,
    LABEL_KEY_LENGTH_MAX,
    LABEL_VALUE_LENGTH_MAX,
    NO_LABEL,
    RESERVED_KEYS,
)
from costd.model.money import HOLD_MAX_NUSD, format_nusd

ASK_ID_LENGTH_MIN = 16
ASK_ID_LENGTH_MAX = 128
NAME_LENGTH_MAX = 256
ACCEPTABLE_COUNT_MAX = 64
TOKENS_MAX = 10**12
"""Far beyond any model, small enough that tokens × price stays a sensible amount."""


TOKEN_FIELDS = {"input_tokens": "prompt_tokens", "output_tokens": "max_output_tokens"}
"""Catalogue units that have a field of their own on an ask."""


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request to admit; the fields are those of `costd.v1.AdmitRequest`.

    `grant_digest` stands for the override grant's bytes, so that a replay can be compared
    without storing a signed permission.
    """

    ask_id: str
    task_class: str = ""
    labels: dict[str, str] = {}
    estimated_cost_nusd: int | None = None
    prompt_tokens: int | None = None
    max_output_tokens: int | None = None
    provider: str = ""
    model: str = ""
    tier: str = ""
    acceptable_models: tuple[str, ...] = ()
    grant_digest: str = ""
    ttl_ns: int = 0
    batch: bool = False
    cost_kind: str = ""
    units: dict[str, int] = {}


def ask_problem(ask: Ask, *, id_field: str = "ask_id") -> str | None:
    """Name the first field that breaks a rule, and the rule; None for a sound ask.

    `id_field` is what the caller knows the id as: a record's ask has the record's.
    """
    if not ASK_ID_LENGTH_MIN <= len(ask.ask_id) <= ASK_ID_LENGTH_MAX:
        return (
            f"{id_field} has {len(ask.ask_id)} characters; it must have "
            f"{ASK_ID_LENGTH_MIN} to {ASK_ID_LENGTH_MAX} (make a UUIDv7)"
        )
    problem = _names_problem(ask, id_field) or (_units_problem(ask.units) if ask.units else None)
    if problem:
        return problem
    if ask.estimated_cost_nusd is not None:
        if ask.estimated_cost_nusd < 0:
            return f"estimated_cost_nusd is {ask.estimated_cost_nusd}; it must not be negative"
        problem = hold_problem(ask.estimated_cost_nusd)
        if problem:
            return f"estimated_cost_nusd is {problem}"
    for name, count in (
        ("prompt_tokens", ask.prompt_tokens),
        ("max_output_tokens", ask.max_output_tokens),
    ):
        if count is not None and not 0 <= count <= TOKENS_MAX:
            return f"{name} is {count}; it must lie in 0 … {TOKENS_MAX}"
    if ask.ttl_ns < 0:
        return "ttl is negative"
    if len(ask.acceptable_models) > ACCEPTABLE_COUNT_MAX:
        return f"acceptable_models has more than {ACCEPTABLE_COUNT_MAX} entries"
    return labels_problem(ask.labels)


def hold_problem(hold_nusd: int) -> str | None:
    """Say why one call cannot hold so much; None if it can."""
    if hold_nusd <= HOLD_MAX_NUSD:
        return None
    return (
        f"{hold_nusd} nano-USD; one call can hold at most {HOLD_MAX_NUSD} "
        f"({format_nusd(HOLD_MAX_NUSD)})"
    )


def _names_problem(ask: Ask, id_field: str) -> str | None:
    """Name the first text that is too long or cannot be printed, and so cannot be part of a key."""
    if not ask.acceptable_models and not ask.units:
        # Nearly every ask passes here: what is short and sound together is so in each part.
        names = ask.ask_id + ask.task_class + ask.provider + ask.model + ask.tier + ask.cost_kind
        if len(names) <= NAME_LENGTH_MAX and names.isprintable():
            return None
    for field, name in (
        (id_field, ask.ask_id),
        ("task_class", ask.task_class),
        ("provider", ask.provider),
        ("model", ask.model),
        ("tier", ask.tier),
        ("cost_kind", ask.cost_kind),
        *(("acceptable_models", name) for name in ask.acceptable_models),
        *(("units", name) for name in ask.units),
    ):
        problem = name_problem(field, name)
        if problem:
            return problem
    return None


def _units_problem(units: dict[str, int]) -> str | None:
    """Name the first unit that has a field of its own, or a count that is out of range."""
    for unit, count in units.items():
        if not 0 <= count <= TOKENS_MAX:
            return f"units[{unit}] is {count}; it must lie in 0 … {TOKENS_MAX}"
        if unit in TOKEN_FIELDS:
            return f"units[{unit}]: {TOKEN_FIELDS[unit]} is its field; set that instead"
    return None


def name_problem(field: str, name: str) -> str | None:
    """Say what is wrong with a name, which is stored, shown, and part of keys; None for nothing."""
    if len(name) > NAME_LENGTH_MAX:
        return f"{field} has more than {NAME_LENGTH_MAX} characters"
    if not name.isprintable():
        return f"{field} has characters that cannot be printed: {name!r}"
    return None


def labels_problem(labels: dict[str, str]) -> str | None:
    """Name the first label that breaks a rule; None for sound labels."""
    # As with the names: nearly always all of them together are short and sound.
    names, values = "".join(labels), "".join(labels.values())
    if (
        len(names) <= LABEL_KEY_LENGTH_MAX
        and len(values) <= LABEL_VALUE_LENGTH_MAX
        and "" not in labels
        and NO_LABEL not in values
        and RESERVED_KEYS.isdisjoint(labels)
        and names.isprintable()
        and values.isprintable()
    ):
        return None
    if len(labels) > LABEL_COUNT_MAX:
        return f"labels has {len(labels)} entries; at most {LABEL_COUNT_MAX} are allowed"
    for key, value in labels.items():
        if not key or len(key) > LABEL_KEY_LENGTH_MAX:
            return f"labels: key {key[:80]!r} must have 1 to {LABEL_KEY_LENGTH_MAX} characters"
        if len(value) > LABEL_VALUE_LENGTH_MAX:
            return f"labels[{key}] has more than {LABEL_VALUE_LENGTH_MAX} characters"
        if value == NO_LABEL:
            return f"labels[{key}] is {NO_LABEL!r}, which stands for no label; leave it out"
        if key in RESERVED_KEYS:
            return f"labels[{key}]: {key} has a field of its own; set that instead"
        if not value.isprintable() or not key.isprintable():
            return f"labels[{key!r}] has characters that cannot be printed"
    return None
