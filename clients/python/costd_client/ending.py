"""How a call ends, read from what is known when its block is left."""

from __future__ import annotations

import asyncio
from enum import Enum

from costd_client.decision import Outcome


class Ending(Enum):
    """What leaving the block does."""

    SETTLE = "settle"
    VOID = "void"
    LEAVE = "leave"


def ending(*, usage_given: bool, voided: bool, sent: bool, error: BaseException | None) -> Ending:
    """Decide what leaving the block does.

    Shape:   pure; the table of README, "What the with block does".
    Ensures: a call that may have cost something is never voided by a forgotten line: without
             usage it stays held, and the daemon charges max(hold, reported) when it expires.
    """
    if usage_given:
        return Ending.SETTLE
    if voided:
        return Ending.VOID
    if error is None or sent or may_have_left(error):
        return Ending.LEAVE
    return Ending.VOID


def may_have_left(error: BaseException) -> bool:
    """Tell whether an exception looks like the provider had the request already."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 500:  # noqa: PLR2004 - HTTP's server errors
        return True
    return isinstance(error, TimeoutError) or "Timeout" in type(error).__name__


def outcome_of(error: BaseException | None) -> Outcome:
    """Name how a call ended from the exception that left its block."""
    if error is None:
        return Outcome.OK
    if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)):
        return Outcome.CANCELLED
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return Outcome.TIMEOUT
    return Outcome.ERROR
