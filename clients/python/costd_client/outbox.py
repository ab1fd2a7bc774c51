"""What the daemon has yet to hear, delivered in the background once it answers again."""

from __future__ import annotations

import logging
import os
import random
import threading
import weakref
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from costd_client.spool import Entry, Spool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger("costd_client")

WAIT_S_FIRST = 0.1
WAIT_S_MAX = 5.0
REJECTED_COUNT_MAX = 1_000


class Delivery(Enum):
    """How the delivery of one entry went."""

    DONE = "done"
    UNREACHABLE = "unreachable"
    FAILED = "failed"
    REJECTED = "rejected"


class Pending(NamedTuple):
    """How much waits: requests to deliver, calls still running, requests the daemon refused."""

    queued_count: int
    held_count: int
    rejected_count: int


class Outbox:
    """A bounded queue with one background thread, started when there is something to deliver.

    Ensures: nothing that costs money is dropped silently. `hold` refuses when full, so that the
             call is refused; a request that the daemon rejects for good is kept in `rejected`
             and logged as an error. Every request is safe to deliver twice.
    """

    def __init__(
        self,
        deliver: Callable[[Entry], Delivery],
        *,
        capacity_count: int = 10_000,
        folder: Path | None = None,
    ) -> None:
        self._deliver = deliver
        self._capacity_count = capacity_count
        self._folder = folder
        # Reentrant: a stream may be dropped, and settle, while this thread holds the lock.
        self._changed = threading.Condition(threading.RLock())
        self.rejected: list[Entry] = []
        self._begin()
        _LIVE.add(self)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._queue: dict[str, Entry] = {}
        self._held: dict[str, Entry] = {}
        self._thread: threading.Thread | None = None
        self._closing = False
        self._awake = False
        self._spool = Spool(self._folder) if self._folder else None
        if self._spool:
            with self._changed:
                self._queue = {entry.entry_id: entry for entry in self._spool.adopt()}

    def _after_fork(self) -> None:
        """Start empty in a forked child; what waits stays the parent's to deliver."""
        if self._pid == os.getpid():
            return
        self._changed = threading.Condition(threading.RLock())
        self._begin()
        self.start()

    def abandon(self) -> None:
        """Close what a forked child inherits of the spool: it would keep it locked."""
        if self._spool:
            self._spool.abandon()
            self._spool = None

    def start(self) -> None:
        """Deliver what was adopted; from here on `deliver` is called."""
        with self._changed:
            self._start()

    @property
    def pending(self) -> Pending:
        """How much waits now."""
        self._after_fork()
        with self._changed:
            return Pending(len(self._queue), len(self._held), len(self.rejected))

    def hold(self, entry: Entry) -> bool:
        """Keep a place for a call that goes out undecided; False if there is none.

        Ensures: should the process die before `put` or `drop`, a spool charges this entry.
        """
        self._after_fork()
        with self._changed:
            if self._closing or len(self._queue) + len(self._held) >= self._capacity_count:
                return False
            if self._spool:
                try:
                    self._spool.write("hold", entry)
                except OSError as error:
                    log.warning("costd: cannot write the spool, so the call is refused: %s", error)
                    return False
            self._held[entry.entry_id] = entry
            return True

    def put(self, entry: Entry, *, droppable: bool = False) -> bool:
        """Queue an entry, in the place held under its id if there is one; False if full.

        `droppable` marks what costs nobody money if it is lost. Everything else has a hold that
        expires at the daemon, or a place kept by `hold`; up to twice the capacity is taken.
        """
        self._after_fork()
        with self._changed:
            if self._closing:
                log.warning(
                    "costd: %s %s came after close and is not sent", entry.method, entry.entry_id
                )
                return False
            held = self._held.pop(entry.entry_id, None) is not None
            room = self._capacity_count if droppable else 2 * self._capacity_count
            if not held and len(self._queue) + len(self._held) >= room:
                return False
            self._queue[entry.entry_id] = entry
            self._write("put", entry)
            self._start()
            return True

    def drop(self, entry_id: str) -> None:
        """Give back the place held for a call that was not made after all."""
        self._after_fork()
        with self._changed:
            entry = self._held.pop(entry_id, None)
            if entry is not None:
                self._write("done", entry)

    def wake(self) -> None:
        """Deliver now: the daemon has just answered something else."""
        self._after_fork()
        if self._queue:
            with self._changed:
                self._awake = True
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything queued is delivered; False if it was not in time."""
        self.wake()
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue, timeout_s)

    def close(self, timeout_s: float) -> Pending:
        """Deliver what can be delivered in time, and stop.

        Ensures: calls that were never closed are charged what they asked for; what is left stays
                 in the spool if there is one, else it is logged.
        """
        self._after_fork()
        with self._changed:
            for entry in list(self._held.values()):
                self.put(entry)
        self.flush(timeout_s)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with self._changed:  # the thread may still be about to write
            left = self.pending
            spool, self._spool = self._spool, None
            if spool:
                spool.close(keep=bool(left.queued_count))
        if left.queued_count:
            kept = "kept in the spool" if self._folder else "lost with this process"
            log.warning("costd: %d calls were not recorded; %s", left.queued_count, kept)
        return left

    def _write(self, op: str, entry: Entry) -> None:
        if self._spool is None:
            return
        try:
            if op == "reject":
                self._spool.reject(entry)
                return
            self._spool.write(op, entry)
            if not self._queue and not self._held:
                self._spool.forget_all()
        except OSError as error:
            log.warning("costd: cannot write the spool: %s", error)

    def _start(self) -> None:
        if self._queue and self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self._run, name="costd-outbox", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        wait_s = WAIT_S_FIRST
        while (entry := self._next()) is not None:
            try:
                delivery = self._deliver(entry)
            except Exception:
                # Whatever it was, the others have to be delivered.
                log.exception("costd: %s %s cannot be delivered", entry.method, entry.entry_id)
                delivery = Delivery.FAILED
            self._finish(entry, delivery)
            if delivery in (Delivery.DONE, Delivery.REJECTED):
                wait_s = WAIT_S_FIRST
                continue
            with self._changed:
                self._changed.wait_for(
                    lambda: self._awake or self._closing, wait_s * (0.5 + _jitter() / 2)
                )
                self._awake = False
            wait_s = min(wait_s * 2, WAIT_S_MAX)

    def _next(self) -> Entry | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if self._closing:
                return None
            return next(iter(self._queue.values()))

    def _finish(self, entry: Entry, delivery: Delivery) -> None:
        with self._changed:
            if delivery is Delivery.UNREACHABLE:
                return
            if self._queue.get(entry.entry_id) is not entry:
                return  # replaced meanwhile by what is known now
            del self._queue[entry.entry_id]
            if delivery is Delivery.FAILED:
                self._queue[entry.entry_id] = entry  # behind the others
                return
            if delivery is Delivery.REJECTED:
                log.error(
                    "costd refused %s %s for good; it is in Client.outbox.rejected",
                    entry.method,
                    entry.entry_id,
                )
                self.rejected = [*self.rejected, entry][-REJECTED_COUNT_MAX:]
                self._write("reject", entry)
            self._write("done", entry)
            self._changed.notify_all()


def _jitter() -> float:
    return random.random()  # noqa: S311 - spreads retries, guards nothing


_LIVE: weakref.WeakSet[Outbox] = weakref.WeakSet()


def _after_fork() -> None:
    for outbox in list(_LIVE):
        outbox.abandon()


os.register_at_fork(after_in_child=_after_fork)
