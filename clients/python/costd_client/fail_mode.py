"""What a client does when no decision can be had."""

from __future__ import annotations

import threading
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from costd_client.pb import admission_pb2 as pb


class FailMode(StrEnum):
    """Refuse, let every call go and record it later, or let a small fixed amount go."""

    CLOSED = "closed"
    OPEN = "open"
    SAFE = "safe"


def guess_cost_nusd(ask: pb.AdmitRequest, guess_nusd_per_1k_tokens: int | None) -> int | None:
    """Guess what an ask costs, without prices: its own estimate, else so much per 1,000 tokens.

    Ensures: rounds up; None where nothing is known, so that unknown is never free.
    """
    if ask.HasField("estimated_cost_nusd"):
        return ask.estimated_cost_nusd
    if guess_nusd_per_1k_tokens is None or not ask.HasField("prompt_tokens"):
        return None
    if not ask.HasField("max_output_tokens") and ask.cost_kind != "embedding":
        return None
    tokens = ask.prompt_tokens + ask.max_output_tokens
    return -(-tokens * guess_nusd_per_1k_tokens // 1_000)


class SafeAllowance:
    """A fixed amount that may be spent undecided until the daemon answers again; thread-safe."""

    def __init__(self, amount_nusd: int) -> None:
        if amount_nusd < 0:
            raise ValueError(f"safe_allowance_nusd is {amount_nusd}; it must be at least 0")
        self.amount_nusd = amount_nusd
        self._spent_nusd: dict[str, int] = {}
        self._total_nusd = 0
        self._lock = threading.Lock()

    @property
    def left_nusd(self) -> int:
        """What may still be spent before the daemon answers."""
        return self.amount_nusd - self._total_nusd

    def draw(self, ask_id: str, cost_nusd: int) -> bool:
        """Take the cost of one call; False, taking nothing, if less is left."""
        with self._lock:
            already = self._spent_nusd.get(ask_id, 0)
            if self._total_nusd - already + cost_nusd > self.amount_nusd:
                return False
            self._total_nusd += cost_nusd - already
            self._spent_nusd[ask_id] = cost_nusd
            return True

    def give_back(self, ask_id: str) -> None:
        """Return what a call drew that was never made."""
        with self._lock:
            self._total_nusd -= self._spent_nusd.pop(ask_id, 0)

    def refill(self) -> None:
        """Start anew, because the daemon answers again."""
        if self._total_nusd:
            with self._lock:
                self._spent_nusd.clear()
                self._total_nusd = 0
