"""Usage events on their way to the coordinator: in order, at least once, trimmed once stored.

No I/O: batches go out by the function given at `connected`, receipts come in.
"""

from collections.abc import Callable
from itertools import islice
from typing import Final

from costd.daemon.books.ledger import Ledger
from costd.engine import keys
from costd.engine.changes import Changes, Family
from costd.model.time import NS_PER_S
from costd.wire.control import usage_event_to_pb
from costd.wire.pb import control_pb2
from costd.wire.pb import fleet_pb2 as pb

EVENTS_COUNT_MAX: Final = 500
"""In one batch; about 200 bytes each."""
BATCHES_AHEAD: Final = 4
"""So many batches are sent before the first is receipted, so that no round trip is waited for."""
SEND_EVERY_NS: Final = NS_PER_S
"""A batch that is not full waits so long behind the one before: each is a transaction."""

_META_KEY: Final = b"outbox"


class Outbox:
    """The daemon's usage events, as far as the coordinator has not stored them."""

    def __init__(self, ledger: Ledger, *, count_max: int = 0) -> None:
        """Take up where the last run was; with more than `count_max` waiting, no ask is admitted.

        Units:   0 for no bound: the disk is one.
        """
        self._ledger = ledger
        ledger.usage_waiting_max = count_max
        raw = ledger.store.get(Family.META, _META_KEY)
        self.stored_sequence = int.from_bytes(raw, "big") if raw else 0
        ledger.usage_stored_sequence = self.stored_sequence
        """This event and all before it are stored at the coordinator."""
        self._sent_sequence = 0
        self._sent_ns = 0
        self._send: Callable[[pb.UsageBatch], None] | None = None
        self._epoch = 0

    @property
    def waiting_count(self) -> int:
        """Events that are not stored yet."""
        return self._ledger.usage_waiting_count

    def first_sequence(self) -> int:
        """The oldest event that is still here, or else the next that will be."""
        return self._first_from(0) or self._ledger.totals.usage_seq + 1

    def _first_from(self, sequence: int) -> int:
        start, end = keys.sequence_key(sequence), keys.sequence_key(keys.SEQUENCES_END_NS)
        found = next(iter(self._ledger.store.scan(Family.USAGE, start, end)), None)
        return int.from_bytes(found[0], "big") if found else 0

    def connected(
        self, send: Callable[[pb.UsageBatch], None], epoch: int, stored_sequence: int
    ) -> None:
        """Send by this function, from behind what is stored."""
        self._send, self._epoch = send, epoch
        self._sent_sequence, self._sent_ns = stored_sequence, 0
        self._keep(stored_sequence)

    def renumber(self, kept: int, stored: int) -> None:
        """Move events behind those that are stored and that a power failure took from these books.

        Shape:   `kept` is the newest that survived it, `stored` the newest at the coordinator.
        Errors:  StoreUnavailable; nothing is moved then.
        """
        if stored > kept:
            self._move(kept, stored)

    def close_gap(self, stored: int) -> None:
        """Move events up to those that are stored where everybody has lost some between.

        Shape:   a power failure took them from these books, and a database that was restored has
                 forgotten them; it would wait for them for ever.
        Errors:  StoreUnavailable; nothing is moved then.
        """
        following = self._first_from(stored + 1)
        is_lost = not following and self._ledger.totals.usage_seq > stored
        # Where nothing is left up to those, they were trimmed: the coordinator goes on behind them.
        if (is_lost or following > stored + 1) and self.first_sequence() <= stored:
            self._move(stored, stored)

    def _move(self, kept: int, stored: int) -> None:
        """Number the events behind `kept` anew, from behind `stored`."""
        ledger, changes, moved = self._ledger, Changes(), []
        end = keys.sequence_key(keys.SEQUENCES_END_NS)
        for key, event in ledger.store.scan(Family.USAGE, keys.sequence_key(kept + 1), end):
            changes.put(Family.USAGE, key, None)
            moved.append(event)
        ledger.totals.usage_seq = stored
        # Not as `changes.usage`: nothing was used by this, and it must not be counted again.
        ledger.totals.number(changes.puts, Family.USAGE, moved)
        if not changes.puts:
            changes.put(Family.USAGE, end, None)  # nothing to move; the number is kept all the same
        ledger.commit(changes)

    def disconnected(self) -> None:
        """Send nothing."""
        self._send = None

    def tick(self) -> None:
        """Send what has not been sent."""
        if self._send is None:
            return
        last = self._ledger.totals.usage_seq
        now_ns = self._ledger.clock.now().steady_ns
        is_early = self._sent_ns > 0 and now_ns - self._sent_ns < SEND_EVERY_NS
        if is_early and last - self._sent_sequence < EVENTS_COUNT_MAX:
            return
        while (
            self._sent_sequence < last
            and self._sent_sequence - self.stored_sequence < BATCHES_AHEAD * EVENTS_COUNT_MAX
        ):
            start = keys.sequence_key(self._sent_sequence + 1)
            end = keys.sequence_key(last + 1)
            rows = self._ledger.store.scan(Family.USAGE, start, end)
            events: list[control_pb2.UsageEvent] = []
            for key, event in islice(rows, EVENTS_COUNT_MAX):
                sequence = int.from_bytes(key, "big")
                if sequence != self._sent_sequence + len(events) + 1:
                    break
                events.append(usage_event_to_pb(sequence, event))
            if events:
                self._send(pb.UsageBatch(epoch=self._epoch, events=events))
                self._sent_sequence, self._sent_ns = events[-1].sequence, now_ns
                continue
            if self.stored_sequence == self._sent_sequence:
                self.close_gap(self.stored_sequence)
            if self._ledger.totals.usage_seq == last:
                return  # what is before the gap is not stored yet
            last = self._ledger.totals.usage_seq

    def receipted(self, receipt: pb.UsageReceipt) -> None:
        """Note what is stored."""
        if receipt.epoch == self._epoch:
            self._keep(receipt.sequence)

    def _keep(self, sequence: int) -> None:
        if sequence == self.stored_sequence:
            return
        self.stored_sequence = self._ledger.usage_stored_sequence = sequence
        raw = sequence.to_bytes(8, "big")
        self._ledger.store.commit([(Family.META, _META_KEY, raw)])
