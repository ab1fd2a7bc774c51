"""Labels say who asks and what for; selectors are predicates over them."""

from collections.abc import Mapping

import msgspec

RESERVED_KEYS = frozenset({"provider", "model", "tier", "task_class"})
"""Keys of an ask's facts that its labels may not use."""

CANDIDATE_KEYS = frozenset({"provider", "model", "tier"})
"""Facts that differ from candidate to candidate."""

NO_LABEL = "(none)"
"""Stands for a missing label in counters' keys, and so may not be a label's value."""

LABEL_COUNT_MAX = 64
LABEL_KEY_LENGTH_MAX = 64
LABEL_VALUE_LENGTH_MAX = 256

Facts = Mapping[str, str]
"""An ask's labels with task_class, provider, model and tier of one candidate."""


class Match(msgspec.Struct, frozen=True):
    """One condition on one key: its value is one of these, or any where none are given."""

    key: str
    values: frozenset[str] = frozenset()
    negated: bool = False

    def holds(self, facts: Facts) -> bool:
        """Tell whether the facts meet this condition; an absent key meets only a negated one."""
        value = facts.get(self.key)
        if value is None:
            return self.negated
        return (not self.values or value in self.values) is not self.negated


class Selector(msgspec.Struct, frozen=True):
    """All of its matches hold; the empty selector selects everything."""

    matches: tuple[Match, ...] = ()

    def holds(self, facts: Facts) -> bool:
        """Tell whether every match holds."""
        return all(match.holds(facts) for match in self.matches)

    @property
    def names_candidate(self) -> bool:
        """Whether a failing rule with this selector rejects a candidate, not the whole ask."""
        return any(match.key in CANDIDATE_KEYS for match in self.matches)

    def __str__(self) -> str:
        """Write it the way policies do: `project=api, user!=root`."""
        written = [
            f"{match.key}{'!' * match.negated}={'|'.join(sorted(match.values)) or '*'}"
            for match in self.matches
        ]
        return ", ".join(written) or "everything"
