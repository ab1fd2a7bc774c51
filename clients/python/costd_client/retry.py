"""When to try again, and when to give up."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

BACKOFF_S_FIRST = 0.02
BACKOFF_S_MAX = 0.5
ATTEMPTS_COUNT_MAX = 64
"""Beyond any deadline in use; the deadline is what ends a patient request."""

UNREACHABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        # Said by a daemon that stops with the request in its hands: a client that cancels by
        # itself gets an exception of its runtime, not this.
        grpc.StatusCode.CANCELLED,
    }
)
"""No decision could be had; the only statuses that a fail mode applies to."""

RETRYABLE = UNREACHABLE | {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED}
"""Asking again may help; every request is safe to repeat by its id."""

_NEVER_LEFT = ("failed to connect", "connections to all backends failing", "name resolution")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one request: which it is (from 1), when the first began, when all must end."""

    number: int
    now_s: float
    deadline_s: float

    @property
    def timeout_s(self) -> float:
        """How long this try may take."""
        return max(self.deadline_s - self.now_s, 0.001)


def backoff_s(attempt: Attempt, *, jitter: float, attempts_count_max: int) -> float | None:
    """Say how long to wait before the next try; None to give up.

    Shape:   pure; doubles from 20 ms to 500 ms, then a share of it between a half and all.
    Units:   `jitter` in [0, 1).
    Ensures: the next try still has time before the deadline.
    """
    if attempt.number >= attempts_count_max:
        return None
    longest = min(BACKOFF_S_FIRST * 2 ** (attempt.number - 1), BACKOFF_S_MAX)
    wait = longest * (0.5 + jitter / 2)
    return wait if attempt.now_s + wait < attempt.deadline_s else None


def may_have_arrived(code: grpc.StatusCode, details: str) -> bool:
    """Tell whether a request that failed so may have reached the daemon after all."""
    if code in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}:
        return True
    said = details.lower()
    return code is grpc.StatusCode.UNAVAILABLE and not any(text in said for text in _NEVER_LEFT)
