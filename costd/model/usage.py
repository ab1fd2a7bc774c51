"""What a call used, as the provider measured it."""

from enum import IntEnum

import msgspec

from costd.model.money import AMOUNT_MAX

NAME_SHOWN_MAX = 80


USAGE_FIELDS = {
    "input_tokens": "prompt_tokens",
    "cache_read_tokens": "cached_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "output_tokens": "output_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
}
"""Catalogue units that have a field of their own."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Measured units. None means unknown, zero means zero.

    `prompt_tokens` includes cached and cache-write tokens, `output_tokens` includes reasoning.
    `units` holds every other unit under its catalogue name (input_audio_tokens, web_searches,
    audio_seconds, …).
    """

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    units: dict[str, int] = {}

    @property
    def total_tokens(self) -> int:
        """LLM tokens in and out together."""
        return (self.prompt_tokens or 0) + (self.output_tokens or 0)

    def counts(self) -> dict[str, int]:
        """Every known unit by its catalogue name."""
        named = {
            "input_tokens": self.prompt_tokens,
            "cache_read_tokens": self.cached_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "output_tokens": self.output_tokens,
            "output_reasoning_tokens": self.reasoning_tokens,
        }
        return {name: count for name, count in named.items() if count is not None} | self.units

    def negative(self) -> "Usage":
        """The same figures below zero, which take these out of a sum; what is unknown stays so."""
        figures = {name: getattr(self, name) for name in self.__struct_fields__ if name != "units"}
        return Usage(
            **{name: None if count is None else -count for name, count in figures.items()},
            units={unit: -count for unit, count in self.units.items()},
        )

    def problem(self) -> str | None:
        """Say what is wrong with these figures, None if nothing is."""
        figures = {
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "output_tokens": self.output_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            **{f"units[{name[:NAME_SHOWN_MAX]}]": count for name, count in self.units.items()},
        }
        for name, count in figures.items():
            if count is not None and not 0 <= count <= AMOUNT_MAX:
                return f"usage.{name} is {count}; it must lie in 0 … {AMOUNT_MAX}"
        if (unit := next((unit for unit in self.units if unit in USAGE_FIELDS), None)) is not None:
            return (
                f"usage.units[{unit}]: {USAGE_FIELDS[unit]} is the field for it; set that instead"
            )
        if (self.cached_tokens or 0) + (self.cache_write_tokens or 0) > (self.prompt_tokens or 0):
            return (
                "usage.cached_tokens + cache_write_tokens exceed prompt_tokens, which includes them"
            )
        if (self.reasoning_tokens or 0) > (self.output_tokens or 0):
            return "usage.reasoning_tokens exceed output_tokens, which include them"
        return None


class CallOutcome(IntEnum):
    """How a call ended. Numbers are those of `costd.v1.Outcome`."""

    UNSPECIFIED = 0
    OK = 1
    ERROR = 2
    CANCELLED = 3
    TIMEOUT = 4
