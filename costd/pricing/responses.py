"""Reads what a call used out of a provider's JSON response body."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from math import ceil
from typing import Any, NamedTuple

import genai_prices.types as genai
from genai_prices.data_snapshot import find_provider_by_id

from costd.errors import InvalidAsk
from costd.model.usage import Usage
from costd.pricing.catalogue import find_model, providers
from costd.pricing.units import REGISTRY


class _Shape(NamedTuple):
    """A form of response body: whose API it comes from, and what its extractors are called."""

    home: str
    home_flavor: str
    flavors: tuple[str, ...]
    """Names under which other providers' extractors read this shape, the surest first."""


_CHAT = _Shape("openai", "chat", ("chat", "default"))
_RESPONSES = _Shape("openai", "responses", ("responses", "default"))
_EMBEDDINGS = _Shape("openai", "embeddings", ("embeddings",))
# Other providers' "default" reads `input_tokens` as a total, which leaves cached tokens out.
_MESSAGES = _Shape("anthropic", "default", ("anthropic",))
_GENERATE = _Shape("google", "default", ())
_CONVERSE = _Shape("aws", "default", ())

_NAMED = {
    "input_tokens": "prompt_tokens",
    "cache_read_tokens": "cached_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "output_tokens": "output_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
}


def usage_from_response(provider: str, body: Mapping[str, Any]) -> tuple[str, str, Usage]:
    """Read provider, model and usage out of a decoded response body.

    Units:   what the body states as zero stays zero, what it does not state stays unknown;
             fractions (seconds of audio) are rounded up.
    Ensures: `prompt_tokens` includes cached tokens, whichever way the provider counts them. An
             empty provider is found from the model's name, else from the body's shape. The
             model is empty where the body does not name one.
    Errors:  InvalidAsk where the body states no usage, or one that contradicts itself.
    """
    shape = _shape_of(body)
    problems: list[str] = []
    for extractor in _extractors(provider or _claimant(body, shape), shape):
        try:
            model, used = extractor.extract(body)
        except ValueError as error:
            problems.append(f"{extractor.api_flavor}: {error}")
            continue
        usage = _usage(used)
        if problem := usage.problem():
            raise InvalidAsk(f"response body: {problem}")
        model = model or ""
        return provider or _provider_of(model, shape), model, usage
    if not problems:
        raise InvalidAsk(
            "response body: its form is not known; give the whole JSON body of chat completions, "
            "responses, embeddings, messages, generateContent or converse, or name the provider"
        )
    raise InvalidAsk(f"response body: no usage in it ({'; '.join(problems)})")


def _shape_of(body: Mapping[str, Any]) -> _Shape | None:
    usage = body.get("usage")
    keys = usage.keys() if isinstance(usage, Mapping) else frozenset[str]()
    if "usageMetadata" in body:
        return _GENERATE
    if body.get("type") == "message" or "cache_read_input_tokens" in keys:
        return _MESSAGES
    if body.get("object") == "response" or "input_tokens" in keys:
        return _RESPONSES
    if "prompt_tokens" in keys:
        return _CHAT if "completion_tokens" in keys else _EMBEDDINGS
    if "inputTokens" in keys:
        return _CONVERSE
    return _CHAT if body.get("object") == "chat.completion" else None


def _extractors(provider: str, shape: _Shape | None) -> Iterator[genai.UsageExtractor]:
    """Yield what may read the body, the surest first."""
    owner = find_provider_by_id(providers(), provider) if provider else None
    known = list(owner.extractors or ()) if owner else []
    if shape is None:
        yield from known
        return
    if owner is None or owner.id != shape.home:
        for flavor in shape.flavors:
            yield from (extractor for extractor in known if extractor.api_flavor == flavor)
    # APIs are copied more faithfully than the catalogue lists; the original reads them all.
    home = next(p for p in providers() if p.id == shape.home)
    yield from (e for e in home.extractors or () if e.api_flavor == shape.home_flavor)


def _claimant(body: Mapping[str, Any], shape: _Shape | None) -> str:
    model = body.get("model")
    return _provider_of(model, shape) if isinstance(model, str) else ""


def _provider_of(model: str, shape: _Shape | None) -> str:
    found = find_model("", model) if model else None
    if found is not None:
        return found.provider.id
    return shape.home if shape else ""


def _usage(used: genai.Usage) -> Usage:
    known: dict[str, int] = {}
    units: dict[str, int] = {}
    for unit in REGISTRY.units:
        # Asking the object for what was not reported would make it guess or refuse.
        if unit not in used.__dict__:
            continue
        value = used.__dict__[unit]
        count = value if isinstance(value, int) else ceil(Decimal(repr(value)))
        if unit in _NAMED:
            known[_NAMED[unit]] = count
        else:
            units[unit] = count
    return Usage(**known, units=units)
