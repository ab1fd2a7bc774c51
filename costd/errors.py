"""Everything costd raises, with whether a retry can help.

One place maps these to gRPC statuses: `costd.wire.status`. A refusal (verdict DENY) is not here:
it is an answer, not an error.
"""

from typing import ClassVar


class CostdError(Exception):
    """Base of every error costd raises on purpose.

    Each message says what was wrong, where, and what to do about it.
    """

    retryable: ClassVar[bool] = False


class InvalidAsk(CostdError):
    """A request breaks a rule of its fields; names the field."""


class InvalidPolicy(CostdError):
    """A policy cannot be used; names file, line and path."""


class Unauthenticated(CostdError):
    """The caller did not say who it is."""


class NotPermitted(CostdError):
    """The caller may not claim this class or label, or make this call."""


class ReservationNotFound(CostdError):
    """No reservation has this id, or it was forgotten after its retention."""


class BudgetNotFound(CostdError):
    """No budget or kill switch has this id."""


class IdReused(CostdError):
    """The id was used before with other fields; names the first field that differs."""


class ReservationClosed(CostdError):
    """The reservation was closed in a way that forbids this move."""


class StillSpending(CostdError):
    """A daemon may still spend what is to be reclaimed from it."""


class Overloaded(CostdError):
    """The daemon itself is too busy; never a budget."""

    retryable = True


class NotReady(CostdError):
    """The daemon is starting or stopping."""

    retryable = True


class StaleEpoch(CostdError):
    """A message of a fleet stream that is over; the daemon enrols anew."""


class LateEnrol(StaleEpoch):
    """An Enrol from before what its daemon has said since, in `epoch`."""

    def __init__(self, message: str, epoch: int) -> None:
        super().__init__(message)
        self.epoch = epoch


class CoordinatorUnavailable(CostdError):
    """The coordinator or its database cannot be reached, or writes nothing for now."""

    retryable = True


class StoreUnavailable(CostdError):
    """The store refused a read or write (disk full, another daemon on the directory)."""

    retryable = True


class StoreCorrupt(CostdError):
    """The store cannot be understood: damaged, or written by a newer costd."""


class InvariantBroken(CostdError):
    """A rule of the books does not hold; a bug in costd."""
