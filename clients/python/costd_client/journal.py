"""Keeps how drawn calls ended in a file, until the daemon has heard of it."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from costd_client.drawn import write_alone
from costd_client.lines import append, end_torn, lock, release
from costd_client.pb import admission_pb2 as pb

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from costd_client.drawn import Drawn, End

log = logging.getLogger("costd_client")

SUFFIX = ".draws"
BYTES_MAX = 8_000_000
"""A file that has grown by so much, and by as much as it needs, is written anew."""


class Journal:
    """One file of a session, locked by its process; whoever finds it unlocked tells the daemon.

    Shape:   lines of JSON: whose it is; `end`, a report of one settlement; `report`, the number
             under which settlements are sent, the last one counting; `heard`, a number up to
             which the daemon has booked them. Thread-safe.
    Ensures: lines are handed to the kernel at once, so that they survive `kill -9`; a disk that
             refuses them is logged, and costs only this safety.
    """

    def __init__(self, folder: Path, *, session_id: str, caller: str) -> None:
        self._path = folder / f"{session_id}{SUFFIX}"
        self._head = _line(session=session_id, caller=caller)
        # Reentrant, because a finalizer may end a call at any moment.
        self._lock = threading.RLock()
        self._file = -1
        self._size_bytes = self._kept_bytes = 0
        with _tolerated():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._rewrite([])

    def ended(self, drawn: Drawn, end: End, queue: deque[tuple[Drawn, End]]) -> None:
        """Write how a call ended, and only then queue it."""
        line = _end(write_alone(drawn, end))
        with self._lock:
            self._write(line)
            queue.append((drawn, end))

    def numbered(self, report: pb.Report) -> None:
        """Write under which number settlements are about to be sent.

        Ensures: where the disk refuses that, what it would be said of leaves the file: whoever
                 did not know that it was sent would tell of it again, and have it charged twice.
        """
        with self._lock:
            if report.settlements and not self._write(_number(report)):
                with _tolerated():
                    os.ftruncate(self._file, len(self._head))
                    self._size_bytes = self._kept_bytes = len(self._head)

    def heard(
        self, number: int, under_way: Iterable[pb.Report], queue: deque[tuple[Drawn, End]]
    ) -> None:
        """Write what was booked, or where that is less, what is left."""
        with self._lock:
            left = [report for report in under_way if report.settlements]
            grown = self._size_bytes > self._kept_bytes + max(self._kept_bytes, BYTES_MAX)
            if not grown and (left or queue):
                self._write(_line(heard=number))
            elif self._file >= 0 and self._size_bytes > len(self._head):
                waiting = [_end(write_alone(*one)) for one in queue]
                with _tolerated():
                    self._rewrite([*_lines_of(left), *waiting])

    def close(self, *, keep: bool) -> None:
        """Let go of the file; delete it unless something in it is yet to be heard."""
        with self._lock, _tolerated():
            if self._file >= 0:
                if not keep:
                    self._path.unlink(missing_ok=True)
                release(self._file)
                self._file = -1

    def abandon(self) -> None:
        """Close the inherited descriptor after a fork, whoever had the lock then."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, line: bytes) -> bool:
        """Append a line; False where there is a file and the disk refuses it."""
        if self._file < 0:
            return True
        with _tolerated():
            append(self._file, line)
            self._size_bytes += len(line)
            return True
        return False

    def _rewrite(self, lines: list[bytes]) -> None:
        """Put another file in this one's place, so that a crash leaves one of both."""
        content = self._head + b"".join(lines)
        new = self._path.with_suffix(".new")
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            append(file, content)
            new.rename(self._path)
        except OSError:
            new.unlink(missing_ok=True)
            os.close(file)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file = file
        self._size_bytes = self._kept_bytes = len(content)


class Leftover(NamedTuple):
    """What a dead process left: locked by this one until `done` or `drop`."""

    path: Path
    file: int
    session_id: str
    caller: str
    ends: dict[str, tuple[pb.Report, int]]
    """By ask id: a report of one settlement, and under which number it was sent; 0 for none."""

    def numbered(self, report: pb.Report) -> None:
        """Write under which number settlements are about to be sent."""
        end_torn(self.file)
        append(self.file, _number(report))
        for settlement in report.settlements:
            one, _ = self.ends[settlement.ask_id]
            self.ends[settlement.ask_id] = (one, report.sequence)

    def done(self) -> None:
        """Delete the file, and a copy that was not finished: all of it is booked."""
        self.path.with_suffix(".new").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        release(self.file)

    def drop(self) -> None:
        """Leave it to others."""
        release(self.file)


def leftovers(folder: Path) -> Iterator[Leftover]:
    """Lock and read what dead processes left, one after the other."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # somebody else has just told of it
        except OSError as error:
            log.warning("costd: cannot read what a dead process left: %s", error)
            continue
        if not lock(path, file):
            os.close(file)  # its process is alive, or the file was deleted meanwhile
            continue
        found = _read(path, file)
        if found.ends:
            yield found
        else:
            found.done()


def _read(path: Path, file: int) -> Leftover:
    session_id = caller = ""
    ends: dict[str, tuple[pb.Report, int]] = {}
    with os.fdopen(os.dup(file), "rb") as stream:
        for raw in stream:
            try:
                line = json.loads(raw)
                if "session" in line:
                    session_id, caller = line["session"], line["caller"]
                elif "end" in line:
                    one = pb.Report.FromString(base64.b64decode(line["end"], validate=True))
                    ends[one.settlements[0].ask_id] = (one, 0)
                elif "report" in line:
                    for ask_id in line["ids"]:
                        if ask_id in ends:
                            ends[ask_id] = (ends[ask_id][0], line["report"])
                elif "heard" in line:
                    heard: int = line["heard"]
                    ends = {key: one for key, one in ends.items() if not 0 < one[1] <= heard}
            except Exception:  # noqa: BLE001 - whatever a crash, or somebody, wrote there
                log.warning("costd: skipped a damaged line of %s", path)
    return Leftover(path, file, session_id, caller, ends)


def _lines_of(reports: Iterable[pb.Report]) -> Iterator[bytes]:
    for report in reports:
        for settlement in report.settlements:
            yield _end(alone(settlement, report))
        if report.settlements:
            yield _number(report)


def alone(settlement: pb.DrawSettlement, report: pb.Report) -> pb.Report:
    """Write a settlement of a report as a report of its own, which has no number yet."""
    one = pb.Report(settlements=[settlement])
    if settlement.labels_index:
        one.labels.append(report.labels[settlement.labels_index - 1])
        one.settlements[0].labels_index = 1
    return one


def _end(one: pb.Report) -> bytes:
    return _line(end=base64.b64encode(one.SerializeToString()).decode())


def _number(report: pb.Report) -> bytes:
    return _line(report=report.sequence, ids=[one.ask_id for one in report.settlements])


def _line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


@contextlib.contextmanager
def _tolerated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.warning("costd: cannot keep what drawn calls cost: %s", error)
