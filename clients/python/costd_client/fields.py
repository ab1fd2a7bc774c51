"""Keyword arguments of the clients' methods, for type checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RareFields(TypedDict, total=False):
    """Keyword arguments of `admit` that few calls have."""

    ask_id: str | None
    acceptable_models: Sequence[str]
    override_grant: str
    ttl_s: float | None
    batch: bool
    cost_kind: str
    units: Mapping[str, int]


class AskFields(RareFields, total=False):
    """Keyword arguments of `admit`, `call` and `explain`; all may be left out."""

    task_class: str
    model: str
    provider: str
    tier: str
    prompt_tokens: int | None
    max_output_tokens: int | None
    estimated_cost_nusd: int | None
    labels: Mapping[str, str] | None


class SettleFields(TypedDict, total=False):
    """Keyword arguments of `settle` and `record` beside a provider's usage object."""

    cost_nusd: int | None
    prompt_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    units: Mapping[str, int]
