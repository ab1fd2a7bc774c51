"""What is told of an ask that waits for leases: a span, or nothing."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from costd.model.trace import NO_TRACE, Trace


class Wait(Protocol):
    """One wait; implemented by spans, and by what does nothing where traces go nowhere."""

    @property
    def trace(self) -> Trace:
        """What the coordinator's span is to follow."""
        ...

    def asked_with(self, trace: Trace) -> None:
        """Note in whose trace the request goes that is waited for."""
        ...

    def ended(self, how: str) -> None:
        """Note what it came to: decided, timed_out, or not_asked."""
        ...


class Waits(Protocol):
    """Begins waits."""

    def __call__(self, counters_count: int) -> AbstractContextManager[Wait]:
        """Begin one, for so many counters."""
        ...


class _Untraced:
    """A wait that nobody is told of."""

    trace = NO_TRACE

    def asked_with(self, trace: Trace) -> None:
        """Do nothing."""

    def ended(self, how: str) -> None:
        """Do nothing."""


_UNTRACED = _Untraced()


@contextmanager
def untraced(counters_count: int) -> Iterator[Wait]:
    """Wait without a word."""
    del counters_count
    yield _UNTRACED
