"""How policies write names, patterns, selectors and steps: text → checked values."""

import re
from base64 import urlsafe_b64decode
from typing import Any, NamedTuple

from costd.model.labels import LABEL_KEY_LENGTH_MAX, LABEL_VALUE_LENGTH_MAX, Match
from costd.model.policy import ModelRef
from costd.policy.amounts import as_text, read_count, read_positive
from costd.policy.problems import show

TEXT_LENGTH_MAX = 1_000
TIERS_DOWN_MAX = 16
ED25519_KEY_BYTES = 32
MODEL_HINT = "write provider/model, like openai/gpt-5"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", re.ASCII)
_MODEL = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._:/@+-]+", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z0-9._*-]+/[A-Za-z0-9._:/@+*-]+", re.ASCII)

_BASE64 = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

FLAGS = ("compression", "cache", "batch", "switch_provider", "economy", "deny", "halt", "alert")
"""Actions of a step that are one word, each a field of `Step`."""


class Action(NamedTuple):
    """One thing a step does: a field of `Step` and its value."""

    field: str
    value: int | bool


def read_id(value: Any) -> str:
    """Read a name that metrics, keys and the command line can carry."""
    text = as_text(value, "write a name like team-month")
    if _ID.fullmatch(text) is None:
        raise ValueError(
            f"{show(text)} is not a name; use up to 64 letters, digits and . _ : - "
            "beginning with a letter or digit"
        )
    return text


def read_text(value: Any) -> str:
    """Read a sentence for people; folded YAML text becomes one line."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("has no text; write a sentence, or leave the line out")
    text = " ".join(value.split())
    if len(text) > TEXT_LENGTH_MAX or not text.isprintable():
        raise ValueError(f"must be printable and at most {TEXT_LENGTH_MAX} characters; shorten it")
    return text


def read_url(value: Any) -> str:
    """Read a link."""
    text = as_text(value, "write a link like https://example.com/upgrade")
    if not text.startswith(("https://", "http://")) or not text.isprintable() or " " in text:
        raise ValueError(f"{show(text)} is not a link; begin it with https://")
    return text


def read_model(value: Any) -> ModelRef:
    """Read one model, `provider/model`."""
    text = as_text(value, MODEL_HINT)
    if _MODEL.fullmatch(text) is None:
        raise ValueError(f"{show(text)} does not name one model; {MODEL_HINT}")
    provider, _, model = text.partition("/")
    return ModelRef(provider, model)


def read_pattern(value: Any) -> str:
    """Read a pattern over models, `provider/model` where `*` stands for any characters."""
    text = as_text(value, "write a pattern like openai/* or */gpt-5*")
    if _PATTERN.fullmatch(text) is None:
        hint = "write provider/model with * for anything, like openai/* or */gpt-5*"
        raise ValueError(f"{show(text)} is not a pattern of models; {hint}")
    return text


def read_label_key(value: Any) -> str:
    """Read the key of a label or fact."""
    text = as_text(value, "write a label's key like project")
    if not 0 < len(text) <= LABEL_KEY_LENGTH_MAX or not text.isprintable() or " " in text:
        raise ValueError(
            f"{show(text)} is not a label's key; use 1 to {LABEL_KEY_LENGTH_MAX} "
            "printable characters without spaces"
        )
    return text


def read_label_keys(value: Any) -> list[str]:
    """Read `user` or `[user, model]`."""
    keys = [read_label_key(key) for key in (value if isinstance(value, list) else [value])]
    if not keys or len(set(keys)) < len(keys):
        raise ValueError("must name each label once; write user or [user, model]")
    return keys


def read_label_value(value: Any) -> str:
    """Read one value of a label, as it is written."""
    text = as_text(value, "write a label's value like api")
    if not 0 < len(text) <= LABEL_VALUE_LENGTH_MAX or not text.isprintable():
        raise ValueError(
            f"{show(text)} is not a label's value; use 1 to {LABEL_VALUE_LENGTH_MAX} "
            "printable characters"
        )
    if "*" in text:
        raise ValueError(
            f'{show(text)}: a condition has no patterns; list the values, or write "*" alone '
            "for any value"
        )
    return text


def read_condition(value: Any) -> Match:
    """Read what a selector asks of one key; the key itself is filled in by the caller.

    Shape:   `api`, `[api, web]`, `"*"` (any value), and `{not: …}` of each.
    """
    negated = False
    if isinstance(value, dict):
        if set(value) != {"not"}:
            raise ValueError("a mapping here has one key, not; write {not: api} or {not: [a, b]}")
        negated, value = True, value["not"]
    if value == "*":
        return Match("", negated=negated)
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError('is an empty list, which nothing can meet; list values or write "*"')
    return Match("", frozenset(read_label_value(each) for each in values), negated)


def read_action(value: Any) -> Action:
    """Read one entry of a step's `do`."""
    known = (
        f"{', '.join(FLAGS)}, quiet, tier_down, "
        "{tiers_down: 2}, {max_output_tokens: 512} or {max_retries: 1}"
    )
    if isinstance(value, dict) and len(value) == 1:
        name, amount = next(iter(value.items()))
        if name in {"max_output_tokens", "tiers_down"}:
            number = read_positive(amount)
            if name == "tiers_down" and number > TIERS_DOWN_MAX:
                raise ValueError(f"tiers_down is at most {TIERS_DOWN_MAX}; write economy instead")
            return Action(name, number)
        if name == "max_retries":
            return Action(name, read_count(amount))
        raise ValueError(f"{show(name)} is not an action with an amount; use {known}")
    if value == "tier_down":
        return Action("tiers_down", 1)
    if value == "quiet":
        return Action("alert", value=False)
    if isinstance(value, str) and value in FLAGS:
        return Action(value, value=True)
    raise ValueError(f"{show(value)} is not an action; use {known}")


def read_unknown_price(value: Any) -> ModelRef | None:
    """Read `deny`, or `{assume: provider/model}`."""
    if value == "deny":
        return None
    if isinstance(value, dict) and set(value) == {"assume"}:
        return read_model(value["assume"])
    raise ValueError(f"{show(value)}: write deny or {{assume: openai/gpt-5}}")


def read_public_key(value: Any) -> str:
    """Read a raw Ed25519 public key: 32 bytes in base64url, padding optional."""
    text = as_text(value, "write the key that `costctl override keygen` printed").rstrip("=")
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4)) if _BASE64.fullmatch(text) else b""
    except ValueError:
        raw = b""
    if len(raw) != ED25519_KEY_BYTES:
        raise ValueError(
            f"is not a raw Ed25519 public key ({ED25519_KEY_BYTES} bytes in base64url); "
            "write the key that `costctl override keygen` printed"
        )
    return text


def read_release(value: Any) -> str:
    """Read which kill switch to release; `*` is every engaged one."""
    return "*" if value == "*" else read_id(value)
