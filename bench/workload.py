"""What is asked in every measurement: one policy, one kind of ask."""

import random
from collections.abc import Iterator
from typing import Final

from costd.clock import SystemClock
from costd.daemon.books.ledger import Ledger
from costd.model.ask import Ask
from costd.policy import parse_policy
from costd.store.port import Store
from costd.wire.pb import admission_pb2 as pb

MATCHED_BUDGETS: Final = ("all-month", "project-month", "user-month", "tokens-day")
RULE_AMOUNTS: Final = (7_000_000, 7_000_000, 7_000_000, 1_600, 1, 1_600)
"""What one ask adds to each rule that matches it: 3 budgets in nano-USD, 1 in tokens, 2 rates."""
USERS_COUNT: Final = 100
"""How many users ask, where nothing is said of keys."""

_POLICY: Final = """\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
  economy: {models: [openai/gpt-4o-mini]}
task_classes:
  draft: {max_output_tokens: 1000}
  security_review: {critical: true, min_tier: premium}
default_task_class: draft
default_tier: premium
budgets:
  - {id: all-month, window: month}
  - id: project-month
    match: {project: "*"}
    per: project
    window: month
    limit: $9,000,000
    reserve: 10%
  - id: user-month
    per: user
    window: month
    limit: $1,000,000
    steps:
      - {at: 50%, do: [alert]}
      - {at: 80%, do: [tier_down, {max_output_tokens: 256}]}
      - {at: 95%, do: [deny]}
  - {id: tokens-day, window: day, limit: "9,000,000,000,000 tokens"}
rates:
  - {id: calls, limit: "10,000,000 requests per minute"}
  - {id: user-tokens, per: user, limit: "1,000,000,000 tokens per minute"}
"""

_UNHURRIED: Final = {
    "10,000,000 requests per minute": "100,000,000,000 requests per minute",
    "1,000,000,000 tokens per minute": "10,000,000,000,000 tokens per minute",
}
_OTHER_LABELS: Final = ("project", "team", "user", "agent_type")


def policy_text(*, unmatched_count: int = 0) -> str:
    """Write the policy: 4 budgets and 2 rates match every ask, and so many budgets match none.

    Those that match none look at labels that every ask has, each at another value.
    """
    unmatched = "".join(
        f"  - {{id: other-{index}, match: {{{_OTHER_LABELS[index % 4]}: other-{index}}}, "
        f"window: month, limit: $100}}\n"
        for index in range(unmatched_count)
    )
    return _POLICY.replace("rates:\n", f"{unmatched}rates:\n")


def unhurried_policy_text() -> str:
    """Write the same policy with rates that a busy loop in one process cannot reach."""
    text = policy_text()
    for hurried, unhurried in _UNHURRIED.items():
        assert hurried in text
        text = text.replace(hurried, unhurried)
    return text


def open_ledger(store: Store, *, unmatched_count: int = 0) -> Ledger:
    """Put the policy in force over a store."""
    policy = parse_policy(policy_text(unmatched_count=unmatched_count), "bench policy")
    return Ledger(store, policy, SystemClock())


class Asks:
    """Makes asks without end, each with an id of its own; the seed draws their users."""

    def __init__(self, seed: int, *, users_count: int = USERS_COUNT) -> None:
        self._random = random.Random(seed)
        self._users_count = users_count
        self._prefix = f"bench-{seed}-{self._random.getrandbits(48):012x}"
        self._made_count = 0

    def model(self, count: int) -> list[Ask]:
        """Make asks as the ledger takes them."""
        return [
            Ask(
                ask_id=ask_id,
                task_class="draft",
                labels=labels,
                provider="openai",
                model="gpt-4o",
                prompt_tokens=1_200,
                max_output_tokens=400,
            )
            for ask_id, labels in self._drawn(count)
        ]

    def wire(self, count: int) -> list[pb.AdmitRequest]:
        """Make asks as clients send them."""
        return [
            pb.AdmitRequest(
                ask_id=ask_id,
                task_class="draft",
                labels=labels,
                provider="openai",
                model="gpt-4o",
                prompt_tokens=1_200,
                max_output_tokens=400,
            )
            for ask_id, labels in self._drawn(count)
        ]

    def _drawn(self, count: int) -> Iterator[tuple[str, dict[str, str]]]:
        for _ in range(count):
            self._made_count += 1
            user = user_name(self._random.randrange(self._users_count))
            labels = {
                "project": "api",
                "team": "platform",
                "user": user,
                "agent_type": "coder",
                "run": f"run-{self._made_count % 50}",
            }
            yield f"{self._prefix}-{self._made_count:09d}", labels


def user_name(index: int) -> str:
    """Name a user; all names are of one length."""
    return f"u{index:07d}"
