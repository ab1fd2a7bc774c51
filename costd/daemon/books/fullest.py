"""Which counter of a budget stands highest, where it has one for each user, run or agent.

Metrics show that one and no other: a million users must not make a million series.
"""

from collections.abc import Sequence
from typing import Final

from costd.engine import keys
from costd.engine.changes import Family
from costd.model.counter import Counter
from costd.store.port import Put, Store

WALK_COUNT: Final = 2_000
"""Counters of an earlier run that are looked at for each reading: a few milliseconds."""
WINDOWS_MAX: Final = 1_024
"""Of all budgets together; of more than these, those that end first are forgotten."""

_PREFIX_BYTES: Final = 8 + keys.TAG_BYTES
"""Window end and budget tag; a key without `per` values has no more."""

_Noted = dict[bytes, tuple[bytes, int]]
"""By window end and budget tag: the key of the fullest counter, and how much was used of it."""


class Fullest:
    """Remembers one counter's key for each budget's window: the fullest when a call closed on it.

    Not as calls are admitted, to which this would add a microsecond; a counter that only holds is
    heard of when the first of its calls ends.

    Ensures: as many entries as windows, however many counters there are.
    Shape:   `written` and `stands` are called by the thread that writes, all else by the one
             that reads.
    """

    def __init__(self) -> None:
        self._written: _Noted = {}
        self._walked: _Noted = {}
        """The same of what was in the store before."""
        self._next: bytes | None = b""
        """Where the walk through the store goes on; None once it has ended."""

    def written(self, puts: Sequence[Put]) -> None:
        """Hear of a batch that closes calls."""
        for family, key, counter in puts:
            if family is Family.COUNTERS:
                self.stands(key, counter)

    def stands(self, key: bytes, counter: Counter | None) -> None:
        """Hear how a counter stands; one that refused an ask may have no call to close any more."""
        if len(key) > _PREFIX_BYTES and counter is not None:
            _note(self._written, key, counter)

    def walk(self, store: Store, now_ns: int) -> None:
        """Look at some more of the counters that were in the store before."""
        if self._next is None:
            return
        start = max(self._next, now_ns.to_bytes(8, "big"))
        following = None
        for seen_count, (key, counter) in enumerate(store.scan(Family.COUNTERS, start)):
            if seen_count == WALK_COUNT:
                following = key
                break
            if len(key) > _PREFIX_BYTES:
                _note(self._walked, key, counter)
        self._next = following  # only now: what could not be read is tried again

    def keys_of(self, window_prefix: bytes) -> set[bytes]:
        """Name the counters of a budget's window of which one is its fullest: none, one or two."""
        found = (self._written.get(window_prefix), self._walked.get(window_prefix))
        return {each[0] for each in found if each is not None}

    def seen(self, key: bytes, counter: Counter | None) -> None:
        """Hear how a named counter stands by now, so that a fuller one takes its place.

        Shape:   None for one that was deleted.
        """
        prefix = key[:_PREFIX_BYTES]
        for noted in (self._written, self._walked):
            if noted.get(prefix, (b"", 0))[0] != key:
                continue
            if counter is None:
                noted.pop(prefix, None)
            else:
                _note(noted, key, counter)


def _note(noted: _Noted, key: bytes, counter: Counter) -> None:
    prefix = key[:_PREFIX_BYTES]
    used, lease = counter.settled + counter.reserved, counter.lease
    if lease is not None:
        used += lease.others_used
    best = noted.get(prefix)
    if best is None:
        if len(noted) >= WINDOWS_MAX:
            for ended in sorted(noted)[: WINDOWS_MAX // 2]:
                noted.pop(ended, None)
        noted[prefix] = key, used
    elif used > best[1] or key == best[0]:
        noted[prefix] = key, used
