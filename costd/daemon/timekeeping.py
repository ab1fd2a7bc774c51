"""The steady clock, kept over restarts."""

import msgspec

from costd.clock import SystemClock
from costd.engine.changes import Family
from costd.model.time import Now
from costd.store.port import Store

_KEY = b"clock"


class Timekeeper:
    """Starts the clock where the store says it stopped, and writes down where it is.

    A daemon that is killed goes on from what was saved last; the time since then counts as time
    stopped. What it gained by starting is saved at once: were the wall clock set back and the
    daemon killed meanwhile, the next would start a day before what this one has promised.
    Errors:  StoreUnavailable.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        raw = store.get(Family.META, _KEY)
        self.clock = SystemClock(saved=msgspec.msgpack.decode(raw, type=Now) if raw else None)
        self.save()

    def save(self) -> None:
        """Write down what time it is.

        Errors: StoreUnavailable.
        """
        self._store.commit([(Family.META, _KEY, msgspec.msgpack.encode(self.clock.now()))])
