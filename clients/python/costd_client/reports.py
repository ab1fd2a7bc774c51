"""What the daemon has to hear of draws: numbered reports, kept until they are acknowledged."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from costd_client.drawn import write_end
from costd_client.pb import admission_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costd_client.allowance import Allowance
    from costd_client.drawn import Drawn, End
    from costd_client.journal import Journal

log = logging.getLogger("costd_client")

REPORT_NS = 25_000_000
"""How long a report waits for more to say; the protocol allows twice as much."""

DRAWS_NS = 1_000_000_000
"""How long draws alone wait to be told of, where the daemon reads them in the client's page."""

SETTLEMENTS_COUNT = 200
"""The most in one report, by the protocol, so that booking one never takes long."""

BYTES = 1_000_000
"""About the most in one report; gRPC refuses messages of four times as much."""

UNACKNOWLEDGED_COUNT_MAX = 64
"""Reports under way; more would only wait at the daemon."""

Rest = tuple[tuple[str, str], ...]


class Reports:
    """Settlements that wait, and reports under way.

    Ensures: each settlement stands in exactly one report, and each report keeps its number until
             it is acknowledged, however often it is sent. Of an allowance's sums the later
             report holds the larger ones.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal
        # Appended to by any thread at any moment, so nothing but one atomic append may happen.
        self.queue: deque[tuple[Drawn, End]] = deque()
        self._unacknowledged: deque[pb.Report] = deque()
        self._unacknowledged_settlements_count = 0
        self.heard_count = 0
        """How many settlements the daemon has acknowledged."""
        self._sent_count = 0
        """How many of the unacknowledged were sent on this stream."""
        self._sequence = 0
        self._made_ns: int | None = None
        self._confirms = 0
        """A generation that the next report, made at once, has to name; 0: none."""
        self._lost: list[str] = []
        """Allowances to return that never came: the stream that carried them broke."""

    @property
    def settlements_count(self) -> int:
        """How many settlements the daemon has not acknowledged."""
        return len(self.queue) + self._unacknowledged_settlements_count

    @property
    def is_quiet(self) -> bool:
        """Whether the daemon has acknowledged everything."""
        return not (self.queue or self._unacknowledged or self._lost)

    def is_due(self, *, at_once: bool) -> bool:
        """Whether a report need not wait for more to say."""
        enough = 1 if at_once else SETTLEMENTS_COUNT
        room = len(self._unacknowledged) < UNACKNOWLEDGED_COUNT_MAX
        return room and (bool(self._lost) or len(self.queue) >= enough)

    def unsent(self) -> list[pb.Report]:
        """Take the reports that this stream has not carried yet, in order."""
        waiting = list(self._unacknowledged)[self._sent_count :]
        self._sent_count = len(self._unacknowledged)
        return waiting

    def make(
        self,
        allowances: Iterable[Allowance],
        over: list[Allowance],
        now_ns: int,
        *,
        draws_ns: int = REPORT_NS,
        at_once: bool = False,
    ) -> bool:
        """Write the next report if it is time and there is something to say.

        Shape:   takes what it says out of the queue and out of `over`; draws alone are told of
                 once `draws_ns` have passed.
        """
        if len(self._unacknowledged) >= UNACKNOWLEDGED_COUNT_MAX:
            return False
        waits_ns = REPORT_NS if self.queue else draws_ns
        early = self._made_ns is not None and now_ns - self._made_ns < waits_ns
        if early and not over and not self._confirms and not self.is_due(at_once=at_once):
            return False
        report = pb.Report(sequence=self._sequence + 1, generation=self._confirms)
        # Settlements first: the sums read afterwards include their draws.
        self._write_settlements(report)
        for allowance in (*allowances, *over):
            _write_drawn(report, allowance)
        report.returned_allowance_ids.extend(allowance.allowance_id for allowance in over)
        report.returned_allowance_ids.extend(self._lost)
        over.clear()
        self._lost.clear()
        says = report.drawn or report.settlements or report.returned_allowance_ids
        if not says and not self._confirms:
            return False
        self._confirms = 0
        if self._journal is not None:
            self._journal.numbered(report)
        self._sequence += 1
        self._made_ns = now_ns
        self._unacknowledged.append(report)
        self._unacknowledged_settlements_count += len(report.settlements)
        return True

    def acknowledge(self, sequence: int) -> None:
        """Forget the reports up to this one."""
        while self._unacknowledged and self._unacknowledged[0].sequence <= sequence:
            report = self._unacknowledged.popleft()
            self._unacknowledged_settlements_count -= len(report.settlements)
            self.heard_count += len(report.settlements)
            self._sent_count = max(self._sent_count - 1, 0)
        if self._journal is not None:
            self._journal.heard(sequence, self._unacknowledged, self.queue)

    def learn(self, generation: pb.Generation) -> int:
        """Have a generation confirmed where that was asked for; returns its number."""
        if generation.confirm or self._confirms:
            self._confirms = generation.generation
        return generation.generation

    def say(self, drawn: Drawn, end: End) -> None:
        """Queue how a call ended."""
        if self._journal is None:
            self.queue.append((drawn, end))
        else:
            self._journal.ended(drawn, end, self.queue)

    def resume(self, booked: int, unnamed: Iterable[str]) -> bool:
        """Have everything behind the last booked report sent on a new stream.

        Shape:   False where the daemon knows of fewer reports than it acknowledged, or of more
                 than were made: then what is left is numbered on from those it knows. Of the
                 allowances that nobody named, those that no report returns are returned.
        """
        self._sent_count = 0
        known = self._sequence - len(self._unacknowledged) <= booked <= self._sequence
        if known:
            self.acknowledge(booked)
        returned = {one for report in self._unacknowledged for one in report.returned_allowance_ids}
        # Other books may have open what was drawn and returned long ago: let them presume it.
        self._lost = [one for one in unnamed if known and one not in returned]
        for number, report in enumerate(self._unacknowledged, booked + 1):
            report.sequence = number
            if self._journal is not None and not known:
                self._journal.numbered(report)
        self._sequence = booked + len(self._unacknowledged)
        return known

    def _write_settlements(self, report: pb.Report) -> None:
        indexes: dict[Rest, int] = {(): 0}
        size_bytes = 0
        while self.queue and len(report.settlements) < SETTLEMENTS_COUNT and size_bytes < BYTES:
            drawn, end = self.queue.popleft()
            try:
                settlement = write_end(drawn, end)
            except Exception:
                # The others must not be lost with it; nobody will hear more of this one.
                log.exception("costd: how %s ended cannot be told; it is charged", drawn.ask_id)
                self.heard_count += 1
                continue
            rest = drawn.facts.rest
            if rest not in indexes:
                indexes[rest] = len(indexes)
                report.labels.add(labels=dict(rest))
                size_bytes += report.labels[-1].ByteSize()
            settlement.labels_index = indexes[rest]
            size_bytes += settlement.ByteSize()
            report.settlements.append(settlement)


def _write_drawn(report: pb.Report, allowance: Allowance) -> None:
    sums = allowance.sums()
    if sums == allowance.reported:
        return
    allowance.reported = sums
    report.drawn.add(
        allowance_id=allowance.allowance_id,
        calls_count=sums.calls_count,
        amount_nusd=sums.amount_nusd,
        tokens_count=sums.tokens_count,
    )
