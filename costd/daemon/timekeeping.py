"""The steady clock, kept over restarts."""

import msgspec

from costd.clock import Stopped, SystemClock
from costd.engine.changes import Family
from costd.store.port import Store

_KEY = b"clock"


class _Saved(Stopped, frozen=True):
    """Where the clock was, and whether the run that wrote it wrote nothing after it."""

    is_last: bool = False


class Timekeeper:
    """Starts the clock where the store says it stopped, and writes down where it is.

    A daemon that is killed goes on from what was saved last; the time since then counts as time
    stopped. What it gained by starting is saved at once: were the wall clock set back and the
    daemon killed meanwhile, the next would start a day before what this one has promised.
    Errors:  StoreUnavailable.
    """

    def __init__(self, store: Store, *, boot_id: str | None = None) -> None:
        """Go on from what is saved; `boot_id` stands in for the host's own in tests."""
        self._store = store
        raw = store.get(Family.META, _KEY)
        saved = msgspec.msgpack.decode(raw, type=_Saved) if raw else None
        self.clock = SystemClock(saved=saved, boot_id=boot_id)
        self.rebooted = saved is not None and not self.clock.same_boot
        """Whether the host was started anew since the last run, or may have been."""
        self.stopped_cleanly = saved is None or saved.is_last
        """Whether the last run ended in good order, so that nothing it wrote is missing."""
        self.save()
        # Else a power failure could bring back what a clean stop wrote, as if this had not run.
        store.sync()

    def save(self) -> None:
        """Write down what time it is.

        Errors: StoreUnavailable.
        """
        self._write(is_last=False)

    def stop(self) -> None:
        """Write down what time it is, as the last thing that this run writes.

        Errors: StoreUnavailable.
        """
        self._write(is_last=True)

    def _write(self, *, is_last: bool) -> None:
        at = self.clock.stopped()
        saved = _Saved(at.wall_ns, at.steady_ns, at.boot_id, at.elapsed_ns, is_last)
        self._store.commit([(Family.META, _KEY, msgspec.msgpack.encode(saved))])
