"""A daemon's reports to its coordinator: what each names, and which have no receipt yet."""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from costd.daemon.books.bookkeeping import Bookkeeping
from costd.model.lease import Stand

STANDS_COUNT_MAX: Final = 500
"""In one report; storing so many takes a few hundredths of a second."""

Stands = list[tuple[bytes, Stand]]
"""How this daemon stands on counters, by their keys."""


class Reports:
    """Those of one stream; requests are counted with them."""

    def __init__(self, books: Bookkeeping) -> None:
        self._books = books
        self.sequence = 0
        """Of the newest message."""
        self.sent_ns = 0
        """When the newest report was sent."""
        self._sent: dict[int, tuple[int, Stands]] = {}
        """Those without a receipt: when they were sent, and what they said."""
        self._named_last = b""
        """The counter at which the newest ended."""
        self.told: dict[bytes, Stand] = {}
        """What was receipted, in the end; whoever has acted on that takes it out. A full disk may
        forbid it, and nobody tells it again."""

    @property
    def has_unreceipted(self) -> bool:
        """Whether some have no receipt yet."""
        return bool(self._sent)

    def begin_stream(self) -> None:
        """Forget what was said: the whole truth is told now."""
        self._sent.clear()
        self.told.clear()
        self._books.fleet_changed.clear()

    def end_stream(self) -> None:
        """Have what has no receipt told again."""
        self._books.fleet_changed.update(key for _, said in self._sent.values() for key, _ in said)
        self._sent.clear()

    def begin_epoch(self) -> None:
        """Count messages anew."""
        self.sequence = 0

    def next_sequence(self) -> int:
        """Number a message."""
        self.sequence += 1
        return self.sequence

    def next_stands(self) -> Stands:
        """Choose what a report names, of what changed, and read how it stands."""
        books = self._books
        named = _in_turn(books.fleet_changed, self._named_last)
        self._named_last = named[-1] if named else b""
        books.fleet_changed.difference_update(named)
        return [(key, books.stand(key)) for key in named]

    def send(self, stands: Stands, now_ns: int) -> int:
        """Number a report that is sent now, and wait for its receipt."""
        self.sent_ns = now_ns
        self._sent[self.next_sequence()] = (now_ns, stands)
        return self.sequence

    def receipt(self, sequence: int) -> int | None:
        """Take a receipt, of all up to this one; returns when it was sent.

        Shape:   None if nothing waits for it.
        Ensures: what they said is in `told`.
        """
        if sequence not in self._sent:
            return None
        sent_ns = 0
        for each in [each for each in self._sent if each <= sequence]:
            sent_ns, said = self._sent.pop(each)
            self.told.update(said)
        return sent_ns


def _in_turn(changed: Iterable[bytes], last: bytes) -> list[bytes]:
    """Choose what a report names, from where the last one ended: more may change than it holds."""
    ordered = sorted(changed)
    start = bisect_right(ordered, last)
    return (ordered[start:] + ordered[:start])[:STANDS_COUNT_MAX]
