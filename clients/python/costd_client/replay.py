"""Tells the daemon, in the name of a session whose process died, how its calls ended."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING, Any

import grpc

from costd_client.journal import leftovers
from costd_client.pb import admission_pb2 as pb
from costd_client.reports import BYTES, SETTLEMENTS_COUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from costd_client.journal import Leftover

log = logging.getLogger("costd_client")

WAIT_S = 1.0


def replay(left: Leftover, open_stream: Callable[[Iterator[pb.ClientMessage], str], Any]) -> None:
    """Tell of each call once, also if this was begun before and broke off.

    Shape:   a report's number is written down before it is sent, so that `Welcome` tells whether
             it was booked. Numbers that were not are taken back first: they are given anew.
    Errors:  grpc.RpcError, EOFError; OSError where a number cannot be written down.
    """
    outgoing: queue.SimpleQueue[pb.ClientMessage | None] = queue.SimpleQueue()
    hello = pb.Hello(session_id=left.session_id)
    outgoing.put(pb.ClientMessage(hello=hello))
    stream = open_stream(iter(outgoing.get, None), left.caller)
    try:
        booked = _heard(stream, "welcome").welcome.report_sequence
        waiting = [one for one, number in left.ends.values() if not 0 < number <= booked]
        left.numbered(pb.Report(settlements=[one.settlements[0] for one in waiting]))
        while waiting:
            report = pb.Report(sequence=booked + 1)
            while waiting and len(report.settlements) < SETTLEMENTS_COUNT:
                _add(report, waiting.pop(0))
                if report.ByteSize() > BYTES:
                    break
            left.numbered(report)
            outgoing.put(pb.ClientMessage(report=report))
            answer = _heard(stream, "acknowledgement").acknowledgement
            for problem in answer.problems:
                log.warning("costd: of what a dead process left: %s", problem)
            booked = answer.sequence
    finally:
        outgoing.put(None)
        stream.cancel()


def _add(report: pb.Report, one: pb.Report) -> None:
    settlement = report.settlements.add()
    settlement.CopyFrom(one.settlements[0])
    if one.labels:
        report.labels.append(one.labels[0])
        settlement.labels_index = len(report.labels)


def _heard(stream: Any, kind: str) -> pb.DaemonMessage:
    for message in stream:
        if message.WhichOneof("message") == kind:
            return message  # type: ignore[no-any-return]  # the stub has no types
    raise EOFError("the stream of allowances ended")


class Teller:
    """Tells of all that dead processes left in a folder, in a thread of its own.

    Shape:   the thread ends once there is nothing left. In a forked child there is none.
    """

    def __init__(
        self, folder: Path, open_stream: Callable[[Iterator[pb.ClientMessage], str], Any]
    ) -> None:
        self._folder = folder
        self._open_stream = open_stream
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="costd-teller", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until all is told; False if it is not in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Stop before the next attempt; what is left is left to others."""
        self._closed.set()

    def _run(self) -> None:
        try:
            self._tell()
        except OSError as error:
            log.warning("costd: what dead processes left in %s waits: %s", self._folder, error)

    def _tell(self) -> None:
        for left in leftovers(self._folder):
            while not self._closed.is_set():
                try:
                    replay(left, self._open_stream)
                except (grpc.RpcError, EOFError, OSError, TypeError, ValueError) as error:
                    log.debug("costd: cannot tell what a dead process left: %s", error)
                    if _is_refusal(error):
                        log.warning("costd: %s is refused and stays as it is: %s", left.path, error)
                        left.drop()
                        break
                    self._closed.wait(WAIT_S)
                else:
                    left.done()
                    break
            else:
                left.drop()


def _is_refusal(error: Exception) -> bool:
    """Tell whether asking again is of no use: the daemon will not hear of this session.

    A file whose head was damaged names a caller that no request can carry.
    """
    if isinstance(error, TypeError | ValueError):
        return True
    return isinstance(error, grpc.RpcError) and error.code() in {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
