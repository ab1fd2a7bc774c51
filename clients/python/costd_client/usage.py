"""Reads what providers measured into `costd.v1.Usage`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costd_client.errors import InvalidAsk
from costd_client.pb import admission_pb2 as pb

FIELDS = frozenset(
    {"prompt_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"}
)

UNIT_PATHS: tuple[tuple[str, str, str], ...] = (
    # where the provider says it, and the catalogue's name for it
    ("prompt_tokens_details", "audio_tokens", "input_audio_tokens"),
    ("completion_tokens_details", "audio_tokens", "output_audio_tokens"),
    ("cache_creation", "ephemeral_5m_input_tokens", "cache_write_5m_tokens"),
    ("cache_creation", "ephemeral_1h_input_tokens", "cache_write_1h_tokens"),
    ("server_tool_use", "web_search_requests", "web_searches"),
)


def read_usage(usage: Any = None, **fields: Any) -> pb.Usage:
    """Read usage as a provider's SDK, a JSON body or the caller states it.

    Shape:   takes `costd.v1.Usage`, an object or mapping of OpenAI's chat, responses or
             embeddings API or of Anthropic's messages API, costd's own field names, or any
             object with one of these under `usage` (a whole response); `fields` overwrite.
    Ensures: absent stays absent, zero stays zero.
    Errors:  InvalidAsk if nothing in it is known, or a count is no whole number of at least 0.
    """
    if isinstance(usage, pb.Usage):
        read = pb.Usage()
        read.CopyFrom(usage)
    elif usage is None:
        read = pb.Usage()
    else:
        read = _read_provider(usage)
    units = fields.pop("units", None) or {}
    for name, count in fields.items():
        if name not in FIELDS:
            raise InvalidAsk(
                f"usage has no field {name}; known are {', '.join(sorted(FIELDS))} and units"
            )
        if count is not None:
            setattr(read, name, _count(name, count))
    for unit, count in units.items():
        read.units[unit] = _count(f"units[{unit}]", count)
    return read


def _read_provider(usage: Any) -> pb.Usage:
    inner = _get(usage, "usage")
    if inner is not None:
        usage = inner
    if _get(usage, "input_tokens") is not None:
        read = _read_input_output(usage)
    elif _get(usage, "prompt_tokens") is not None or _get(usage, "output_tokens") is not None:
        read = _read_prompt_completion(usage)
    else:
        raise InvalidAsk(
            f"{type(usage).__name__} states no usage that is known here; "
            "pass prompt_tokens=… and output_tokens=…, or cost_nusd=…"
        )
    for group, name, unit in UNIT_PATHS:
        count = _get(_get(usage, group), name)
        if count:
            read.units[unit] = _count(f"{group}.{name}", count)
    return read


def _read_input_output(usage: Any) -> pb.Usage:
    """Read OpenAI's responses API, or Anthropic's, whose input excludes what was cached."""
    read = pb.Usage(prompt_tokens=_count("input_tokens", _get(usage, "input_tokens")))
    output = _get(usage, "output_tokens")
    if output is not None:
        read.output_tokens = _count("output_tokens", output)
    details = _get(usage, "input_tokens_details")
    if details is None:
        cached = _get(usage, "cache_read_input_tokens")
        written = _get(usage, "cache_creation_input_tokens")
        read.prompt_tokens += (cached or 0) + (written or 0)
    else:
        cached = _get(details, "cached_tokens")
        written = _get(details, "cache_write_tokens")
    _set_details(read, cached, written)
    details = _get(usage, "output_tokens_details")
    _set_reasoning(read, _first(details, "reasoning_tokens", "thinking_tokens"))
    return read


def _read_prompt_completion(usage: Any) -> pb.Usage:
    """Read OpenAI's chat and embeddings APIs, those modelled on them, and costd's own names."""
    read = pb.Usage()
    prompt = _get(usage, "prompt_tokens")
    if prompt is not None:
        read.prompt_tokens = _count("prompt_tokens", prompt)
    output = _first(usage, "completion_tokens", "output_tokens")
    if output is not None:
        read.output_tokens = _count("output_tokens", output)
    details = _get(usage, "prompt_tokens_details")
    _set_details(
        read,
        _first(usage, "cached_tokens") if details is None else _get(details, "cached_tokens"),
        _first(usage, "cache_write_tokens")
        if details is None
        else _get(details, "cache_write_tokens"),
    )
    details = _get(usage, "completion_tokens_details")
    _set_reasoning(read, _get(usage if details is None else details, "reasoning_tokens"))
    return read


def _set_details(read: pb.Usage, cached: Any, written: Any) -> None:
    if cached is not None:
        read.cached_tokens = _count("cached_tokens", cached)
    if written is not None:
        read.cache_write_tokens = _count("cache_write_tokens", written)


def _set_reasoning(read: pb.Usage, reasoning: Any) -> None:
    if reasoning is not None:
        read.reasoning_tokens = _count("reasoning_tokens", reasoning)


def _get(container: Any, name: str) -> Any:
    if container is None:
        return None
    if isinstance(container, Mapping):
        return container.get(name)
    return getattr(container, name, None)


def _first(container: Any, *names: str) -> Any:
    return next((value for name in names if (value := _get(container, name)) is not None), None)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise InvalidAsk(f"usage.{name} is {value!r}; it must be a whole number from 0")
    return value
