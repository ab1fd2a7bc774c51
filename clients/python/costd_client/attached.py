"""The stream to the daemon: the only part of allowances with a thread, and with mapped files."""

from __future__ import annotations

import logging
import os
import queue
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import grpc

from costd_client.errors import OutboxFull, ReservationNotFound
from costd_client.reports import REPORT_NS
from costd_client.session import ProtocolBroken, Session
from costd_client.surroundings import now_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from costd_client.drawn import Drawn, End
    from costd_client.facts import Facts
    from costd_client.pb import admission_pb2 as pb
    from costd_client.replay import Teller
    from costd_client.stock import Stated
    from costd_client.surroundings import Surroundings

log = logging.getLogger("costd_client")

NS_PER_S = 1_000_000_000
WAIT_S_FIRST = 0.1
WAIT_S_MAX = 5.0
REFUSED_WAIT_S = 60.0
"""When to try a daemon again that knows no allowances, or will not talk of them."""

REFUSALS = frozenset(
    {
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)


class Attached:
    """One client's session, and the thread that keeps its stream.

    Shape:   thread-safe. The thread starts at the first ask, reads what the daemon says, and ends
             when the stream is down with nothing left to say; gRPC's own thread sends. A forked
             child begins with another session and without a thread.
    """

    def __init__(
        self,
        open_stream: Callable[[Iterator[pb.ClientMessage]], Any],
        around: Surroundings,
        teller: Teller | None = None,
    ) -> None:
        self._open_stream = open_stream
        self._around = around
        self._teller = teller
        self._is_closed = False
        self._begin()
        _LIVE.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._call: Any = None
        # Unlike an Event it may be used by a finalizer that interrupts its own use.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_idle = False
        self._pauses = False
        self._is_refused = False
        self._gave_up = False
        self._wait_s = WAIT_S_FIRST
        self._rests_until_ns = 0
        self.session = Session(self._around)

    def begin_again(self) -> None:
        """Start over in a forked child: the parent's allowances are the parent's."""
        self.session.forget()
        self._begin()

    @property
    def is_resting(self) -> bool:
        """Whether there is no use in asking for allowances now."""
        return self._is_closed or (self._thread is None and now_ns() < self._rests_until_ns)

    @property
    def is_full(self) -> bool:
        """Whether too many ended calls wait to be heard of."""
        return self.session.is_full

    def draw(self, facts: Facts, stated: Stated) -> Drawn | None:
        """Draw where the quick draw failed, and have allowances asked for."""
        with self._lock:
            self.session.bind(facts)
            drawn = self.session.draw(facts, stated)
            if self.session.is_wishing and not self._is_closed:
                self._start()
        return drawn

    def end(self, drawn: Drawn, end: End) -> None:
        """Have the daemon hear how a call ended; nothing where it was said before.

        Errors:  ReservationNotFound if another process drew it, ReservationClosed if it was
                 closed otherwise, OutboxFull if nobody is left to tell the daemon.
        """
        session = self.session
        self.check_home(drawn)
        if self._is_closed and drawn.end is None:
            raise OutboxFull(
                f"the call {drawn.ask_id} ended after close(); it is charged at its hold"
            )
        session.end(drawn, end)
        if self._is_idle or self._thread is None:
            self._wake()

    def check_home(self, drawn: Drawn) -> None:
        """Refuse to touch what another process drew.

        Errors:  ReservationNotFound.
        """
        if drawn.allowance.home is not self.session.home:
            raise ReservationNotFound(
                f"the call {drawn.ask_id} was admitted by the parent process, which alone can "
                "close it; unclosed it is charged at its hold"
            )

    def flush(self, timeout_s: float) -> bool:
        """Wait until the daemon has heard of all calls ended so far; False if not in time."""
        with self._lock:
            session = self.session
            told_count = session.reports.heard_count + session.unheard_count
            if session.unheard_count:
                session.hurry()
                self._pauses = False
                self._start()
            heard = self._changed.wait_for(
                lambda: session.reports.heard_count >= told_count, timeout_s
            )
        return heard and (self._teller is None or self._teller.wait(timeout_s))

    def wake(self) -> None:
        """Try again now: the daemon has just answered something else."""
        if self._pauses and not self._is_refused:
            self._pauses = False
            self._wakes.put(None)

    def close(self, timeout_s: float) -> None:
        """Return what is held, and wait a moment for the daemon to hear of everything."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self.session.close()
            if not self.session.is_quiet:
                self._start()
                self._changed.wait_for(lambda: self.session.is_quiet, timeout_s)
            self._gave_up = True
            thread = self._thread
            if self._call is not None:
                self._call.cancel()
            self._wakes.put(None)
        if thread is not None:
            thread.join(timeout_s)
        unheard, journal = self.session.unheard_count, self.session.journal
        if unheard:
            log.warning(
                "costd: the daemon did not hear how %d calls ended; %s",
                unheard,
                "kept in the spool" if journal else "each is charged at its hold",
            )
        if journal is not None:
            journal.close(keep=bool(unheard))
        if self._teller is not None:
            self._teller.close()

    def _wake(self) -> None:
        if self._thread is None:
            with self._lock:
                self._start()
        self._wakes.put(None)

    def _start(self) -> None:
        """See to it that a thread runs; what waits to be told of is told of whenever it can be."""
        if self._thread is None and (self.session.unheard_count or not self.is_resting):
            self._thread = threading.Thread(target=self._run, name="costd-attach", daemon=True)
            self._thread.start()
        self._wakes.put(None)

    def _run(self) -> None:
        while True:
            self._is_refused = self._stream()
            with self._lock:
                self.session.poll()
                wait_s = (
                    REFUSED_WAIT_S if self._is_refused else self._wait_s * (0.5 + _jitter() / 2)
                )
                self._wait_s = min(self._wait_s * 2, WAIT_S_MAX)
                self._changed.notify_all()
                done = self.session.is_quiet and not self.session.must_reopen
                if self._gave_up or done:
                    self._rests_until_ns = now_ns() + round(wait_s * NS_PER_S)
                    self._thread = None
                    # Whoever ended a call before this line saw a thread; after it, he starts one.
                    if self._gave_up or not self.session.unheard_count:
                        return
                    self._thread = threading.current_thread()
                self._pauses = True  # here, so that a flush from now on ends the pause
            self._pause(wait_s)

    def _pause(self, wait_s: float) -> None:
        """Wait before the next stream; an answer of the daemon or the client's end cut it short."""
        until_ns = now_ns() + round(wait_s * NS_PER_S)
        while self._pauses and not self._is_closed and (left_ns := until_ns - now_ns()) > 0:
            try:
                self._wakes.get(timeout=left_ns / NS_PER_S)
            except queue.Empty:
                break
        self._pauses = False
        if self._is_closed and not self._gave_up:
            time.sleep(min(wait_s, WAIT_S_FIRST))

    def _stream(self) -> bool:
        """Keep one stream until it ends; True if the daemon refused it."""
        wakes = self._wakes
        code = None
        try:
            with self._lock:
                if self._gave_up:
                    return False
                self._call = self._open_stream(self._outgoing(wakes))
            for message in self._call:
                with self._lock:
                    self.session.received(message)
                    if self.session.must_reopen:
                        break
                    self._changed.notify_all()
                self._wait_s = WAIT_S_FIRST
                wakes.put(None)
        except ProtocolBroken as error:
            log.warning("costd: the daemon breaks the protocol of allowances: %s", error)
        except grpc.RpcError as error:
            code = error.code()
            log.debug("costd: the stream of allowances ended: %s", code)
        except Exception:
            # Whatever it was, calls that ended have to be told of on another stream.
            log.exception("costd: the stream of allowances failed")
        finally:
            if self._call is not None:
                self._call.cancel()
            with self._lock:
                self._call = None
                self._is_idle = False
                self.session.broken()
                self._wakes = queue.SimpleQueue()
            wakes.put(None)  # ends `_outgoing`
        return code in REFUSALS

    def _outgoing(self, wakes: queue.SimpleQueue[None]) -> Iterator[pb.ClientMessage]:
        """Yield what the session has to say on one stream; run by gRPC's thread."""
        with self._lock:
            messages = self.session.opened() if self._wakes is wakes else []
        yield from messages
        while self._wakes is wakes:
            with self._lock:
                if self._wakes is not wakes:
                    return
                messages = self.session.poll()
                # Said to be idle first: whoever ends a call meanwhile wakes this thread, or
                # `wait_ns` sees that call.
                self._is_idle = True
                wait_ns = self.session.wait_ns()
                self._is_idle = wait_ns is None or wait_ns > REPORT_NS
            yield from messages
            if wait_ns != 0:
                _wait(wakes, wait_ns)


def _wait(wakes: queue.SimpleQueue[None], wait_ns: int | None) -> None:
    try:
        wakes.get(timeout=None if wait_ns is None else wait_ns / NS_PER_S)
        while True:
            wakes.get_nowait()
    except queue.Empty:
        return


def _jitter() -> float:
    return random.random()  # noqa: S311 - spreads retries, guards nothing


_LIVE: weakref.WeakSet[Attached] = weakref.WeakSet()


def _after_fork() -> None:
    for attached in list(_LIVE):
        attached.begin_again()


os.register_at_fork(after_in_child=_after_fork)
