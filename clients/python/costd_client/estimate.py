"""Estimates how many tokens a text is, without a tokenizer.

Counts runs of characters by script and charges each run what byte-pair vocabularies make of it,
leaning upward: an estimate that is too low admits what a budget cannot pay for. The package's
README ("Estimates") states how far off it is, measured against real vocabularies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_RUN = re.compile(
    r"(?P<opaque>[A-Za-z0-9+/=]{60,})"  # base64, keys, hashes
    r"|(?P<long>[A-Z]?[a-z]{9,})"  # rare or compound words are split
    r"|(?P<word>[A-Z]?[a-z]+)"  # a word, or one hump of a camelCase name
    r"|(?P<upper>[A-Z]+(?![a-z]))"
    r"|(?P<digits>[0-9]+)"
    r"|(?P<space> +)"
    r"|(?P<break>[\t\r\n]+)"
    r"|(?P<repeat>(?P<same>[!-/:-@\[-`{-~])(?P=same){2,})"
    r"|(?P<mark>[!-/:-@\[-`{-~])"
    r"|(?P<latin>[\u00a0-\u024f\u1e00-\u1eff])"
    r"|(?P<greek>[\u0370-\u03ff\u1f00-\u1fff]+)"
    r"|(?P<cyrillic>[\u0400-\u052f]+)"
    r"|(?P<semitic>[\u0530-\u08ff]+)"
    r"|(?P<punctuation>[\u2000-\u206f\u3000-\u303f\uff00-\uff65])"
    r"|(?P<cjk>[\u3040-\u30ff\u31f0-\u4dbf\u4e00-\u9fff\uf900-\ufaff])"
    r"|(?P<hangul>[\uac00-\ud7af])"
    r"|(?P<other>.)",
    re.DOTALL,
)

# Hundredths of a token, so that the sum is exact: fixed part for a run, part for each character.
_COST_CENTI: dict[str, tuple[int, int]] = {
    "opaque": (0, 75),
    "long": (40, 20),
    "word": (62, 12),
    "upper": (50, 25),
    "digits": (75, 45),
    "space": (0, 1),
    "break": (65, 10),
    "repeat": (60, 15),
    "mark": (90, 0),
    "latin": (150, 0),
    "greek": (20, 100),
    "cyrillic": (40, 50),
    "semitic": (30, 95),
    "punctuation": (100, 0),
    "cjk": (120, 0),
    "hangul": (140, 0),
}
_COST_CENTI_BY_UTF8_BYTES = (0, 100, 110, 150, 300)
"""Scripts and emoji that vocabularies hardly know fall back to bytes."""

MESSAGE_TOKENS = 8
"""What a chat message adds for its role and delimiters; providers document 3 to 7."""

IMAGE_TOKENS = 1_600
"""What an image costs at most at the sizes providers scale them to, where they say so."""

_MEDIA_TYPES = frozenset({"image", "image_url", "input_image"})
_OPAQUE_KEYS = frozenset({"data", "image_url", "file_data", "url", "signature"})
_OPAQUE_CHARACTERS_PER_TOKEN = 3


def estimate(content: Any) -> int:
    """Estimate the tokens of a text, a list of chat messages, or a provider's content blocks.

    Shape:   pure; takes str, bytes, mappings, lists and objects with `model_dump`, nested.
    Ensures: at least 1 for any text that is not empty; grows with its input.
    """
    if hasattr(content, "model_dump"):
        content = content.model_dump(exclude_none=True)
    match content:
        case None:
            return 0
        case str():
            return _text_tokens(content)
        case bytes():
            return -(-len(content) // _OPAQUE_CHARACTERS_PER_TOKEN)
        case Mapping():
            return _mapping_tokens(content)
        case Iterable():
            return sum(estimate(part) for part in content)
        case _:
            return _text_tokens(str(content))


def estimate_schema(tools: Any) -> int:
    """Estimate the tokens of tool definitions and response schemas, which providers rewrite."""
    return _text_tokens(json.dumps(tools, default=_dumped, ensure_ascii=False)) if tools else 0


def _text_tokens(text: str) -> int:
    centi = 0
    for run in _RUN.finditer(text):
        kind = run.lastgroup or "other"
        if kind == "other":
            bytes_count = len(run.group().encode(errors="replace"))
            centi += _COST_CENTI_BY_UTF8_BYTES[bytes_count]
        else:
            fixed, each = _COST_CENTI[kind]
            centi += fixed + each * (run.end() - run.start())
    return -(-centi // 100)


def _mapping_tokens(content: Mapping[str, Any]) -> int:
    if content.get("type") in _MEDIA_TYPES:
        return IMAGE_TOKENS
    tokens = MESSAGE_TOKENS if "role" in content else 0
    for key, value in content.items():
        if key in {"role", "type"}:
            continue
        if key in _OPAQUE_KEYS and isinstance(value, str):
            tokens += -(-len(value) // _OPAQUE_CHARACTERS_PER_TOKEN)
        else:
            tokens += estimate(value)
    return tokens


def _dumped(value: Any) -> Any:
    return value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else str(value)
