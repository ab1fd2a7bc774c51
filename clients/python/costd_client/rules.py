"""The client's rules: asking, retrying, failing open or closed, settling; all without I/O."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from costd_client import draws
from costd_client.decision import Decision, Settlement, Source
from costd_client.drawn import Drawn
from costd_client.errors import (
    CostdError,
    DaemonFailed,
    OutboxFull,
    ReservationNotFound,
    Unavailable,
    error_from_status,
)
from costd_client.fail_mode import FailMode, SafeAllowance, guess_cost_nusd
from costd_client.outbox import Delivery
from costd_client.pb import admission_pb2 as pb
from costd_client.requests import (
    Closing,
    Defaults,
    build_ask,
    build_record,
    build_settle,
)
from costd_client.retry import (
    ATTEMPTS_COUNT_MAX,
    RETRYABLE,
    UNREACHABLE,
    Attempt,
    backoff_s,
    may_have_arrived,
)
from costd_client.scope import Scopes
from costd_client.spool import Entry
from costd_client.steps import Rpc, RpcFailed, Sleep, Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    from costd_client.attached import Attached
    from costd_client.outbox import Outbox

log = logging.getLogger("costd_client")

NS_PER_S = 1_000_000_000
IMPATIENT_S = 5.0
"""For so long after a patient request failed, a client that need not wait tries once only."""

IMPATIENT_TIMEOUT_SHARE = 0.25
"""How much of the time limit such a try may take, should the daemon hang."""

REQUESTS: dict[str, type[Message]] = {
    "Record": pb.RecordRequest,
    "Settle": pb.SettleRequest,
    "Void": pb.VoidRequest,
    "Abandon": pb.AdmitRequest,
}
"""What an outbox entry's bytes are. Abandon undoes an ask whose answer nobody received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where the rules get time and chance from."""

    monotonic_ns: Callable[[], int] = time.monotonic_ns
    wall_ns: Callable[[], int] = time.time_ns
    jitter: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one client behaves."""

    defaults: Defaults = field(default_factory=Defaults)
    fail_mode: FailMode = FailMode.CLOSED
    timeout_s: float = 2.0
    price_guess_nusd_per_1k_tokens: int | None = None
    clock: Clock = field(default_factory=Clock)


class Rules:
    """What a client does, step by step; `costd_client.steps` performs it."""

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        allowance: SafeAllowance,
        attached: Attached | None = None,
    ) -> None:
        self.settings = settings
        self.outbox = outbox
        self.allowance = allowance
        self.attached = attached
        self.scopes = Scopes(settings.defaults, attached) if attached else None
        self._impatient_until_ns = 0

    def admit(self, fields: Mapping[str, Any]) -> Steps[Decision]:
        """Say whether a call may happen: from an allowance, or by asking the daemon."""
        drawn = self.scopes.draw_ask(fields) if self.scopes else None
        return drawn if drawn is not None else (yield from self.ask(fields))

    def ask(self, fields: Mapping[str, Any]) -> Steps[Decision]:
        """Ask the daemon whether a call may happen.

        Errors:  Unavailable where the fail mode refuses; every other status is raised as its own
                 error and never fails open.
        """
        ask = build_ask(self.settings.defaults, fields)
        try:
            wire = yield from self._request("Admit", ask)
        except RpcFailed as failure:
            if failure.code not in UNREACHABLE:
                raise error_from_status(failure.code, failure.details) from failure
            return self._undecided(ask, failure)
        except BaseException:
            self._abandon(ask)  # cancelled while asking; the ask may have arrived
            raise
        self.allowance.refill()
        self.outbox.wake()
        if self.attached is not None:
            self.attached.wake()
        return Decision(wire, ask=ask, ask_id=ask.ask_id, source=wire.source or Source.DAEMON)

    def explain(self, fields: Mapping[str, Any]) -> Steps[pb.Explanation]:
        """Ask what Admit would answer, and why."""
        ask = build_ask(self.settings.defaults, fields)
        explanation: pb.Explanation = yield from self._request_or_raise("Explain", ask)
        return explanation

    def settle(self, decision: Decision, closing: Closing) -> Steps[Settlement]:
        """Close a call at what it cost.

        Ensures: where the daemon cannot be reached, the request waits in the outbox.
        """
        if not decision.decided:
            return self._queue_record(decision.ask, closing)
        if isinstance(decision, Drawn):
            return (yield from draws.settle(decision, closing, **self._drawing()))
        request = build_settle(self._held_id(decision), closing)
        return (yield from self._close("Settle", request, decision.reservation_id))

    def end_drawn(self, drawn: Drawn, closing: Closing | None) -> Settlement | None:
        """Close a drawn call without waiting; None where too many wait, and `settle` must."""
        return draws.end(drawn, closing, **self._drawing())

    def void(self, decision: Decision) -> Steps[Settlement]:
        """Close a call at zero, because it never left."""
        if not decision.decided:
            self.outbox.drop(decision.ask_id)
            self.allowance.give_back(decision.ask_id)
            return Settlement(pb.Settlement(state=pb.RESERVATION_STATE_VOIDED))
        if isinstance(decision, Drawn):
            return (yield from draws.settle(decision, None, **self._drawing()))
        request = pb.VoidRequest(reservation_id=self._held_id(decision))
        return (yield from self._close("Void", request, decision.reservation_id))

    def leave(self, decision: Decision, closing: Closing) -> None:
        """Leave a call open whose end nobody knows: the daemon expires it at its hold."""
        if not decision.decided:
            self._queue_record(decision.ask, closing)
        elif isinstance(decision, Drawn):
            draws.leave(decision, closing, **self._drawing())

    def settle_later(self, decision: Decision, closing: Closing) -> None:
        """Settle in the background; for places where nothing may block."""
        if not decision.decided:
            self._queue_record(decision.ask, closing)
            return
        if isinstance(decision, Drawn):
            draws.settle_later(decision, closing, **self._drawing())
            return
        request = build_settle(self._held_id(decision), closing)
        self.outbox.put(Entry(decision.reservation_id, "Settle", request.SerializeToString()))

    def extend(self, decision: Decision, request: pb.ExtendRequest) -> Steps[pb.Extension]:
        """Lengthen or enlarge a hold; an undecided call holds nothing and always may go on."""
        if not decision.decided:
            return pb.Extension(extended=True)
        if isinstance(decision, Drawn):
            return draws.extend(decision, request, self._drawing()["attached"])
        request.reservation_id = self._held_id(decision)
        extension: pb.Extension = yield from self._request_or_raise("Extend", request)
        return extension

    def record(self, ask: pb.AdmitRequest, closing: Closing, happened_ns: int) -> Steps[Settlement]:
        """Charge a call that nobody asked for."""
        request = build_record(
            ask, closing, happened_ns=happened_ns or self.settings.clock.wall_ns()
        )
        return (yield from self._close("Record", request, ask.ask_id))

    def deliver(self, entry: Entry) -> Steps[Delivery]:
        """Deliver one outbox entry; never raises."""
        try:
            request = REQUESTS[entry.method].FromString(entry.request)
        except (DecodeError, KeyError, TypeError) as torn:
            # Its file was damaged, or written by a later version.
            log.error("costd: %s %s cannot be read: %s", entry.method, entry.entry_id, torn)  # noqa: TRY400 - no bug of ours
            return Delivery.REJECTED
        method = "Admit" if entry.method == "Abandon" else entry.method
        try:
            reply = yield Rpc(method, request, self.settings.timeout_s)
            if entry.method == "Abandon" and reply.reservation_id:
                void = pb.VoidRequest(reservation_id=reply.reservation_id)
                yield Rpc("Void", void, self.settings.timeout_s)
        except RpcFailed as failure:
            if failure.code in RETRYABLE:
                return Delivery.UNREACHABLE
            error = error_from_status(failure.code, failure.details)
            log.log(
                logging.DEBUG if entry.method == "Abandon" else logging.ERROR,
                "costd: %s %s failed: %s",
                entry.method,
                entry.entry_id,
                error,
            )
            # A failure of the daemon may pass; a refused request stays refused.
            passing = isinstance(error, DaemonFailed) and entry.method != "Abandon"
            return Delivery.FAILED if passing else Delivery.REJECTED
        self._impatient_until_ns = 0
        return Delivery.DONE

    def _undecided(self, ask: pb.AdmitRequest, failure: RpcFailed) -> Decision:
        """Apply the fail mode to an ask that nobody answered."""
        try:
            source = self._let_go(ask, failure)
        except Unavailable:
            if failure.may_have_arrived:
                self._abandon(ask)
            raise
        wire = pb.Decision(
            verdict=pb.VERDICT_ALLOW,
            ask_id=ask.ask_id,
            provider=ask.provider,
            model=ask.model,
            tier=ask.tier,
            message=f"the daemon could not be reached; fail mode {self.settings.fail_mode}",
        )
        return Decision(wire, ask=ask, ask_id=ask.ask_id, source=source)

    def _let_go(self, ask: pb.AdmitRequest, failure: RpcFailed) -> Source:
        mode = self.settings.fail_mode
        if mode is FailMode.CLOSED:
            raise Unavailable(
                f"costd cannot be reached ({failure}) and the fail mode is closed",
                code=failure.code,
            ) from failure
        if mode is FailMode.SAFE:
            self._draw(ask, failure)
        estimate = build_record(ask, Closing(), happened_ns=self.settings.clock.wall_ns())
        if not self.outbox.hold(Entry(ask.ask_id, "Record", estimate.SerializeToString())):
            self.allowance.give_back(ask.ask_id)
            raise OutboxFull(
                f"costd cannot be reached ({failure}) and the outbox is full, so this call could "
                "not be recorded later; make outbox_capacity_count larger or wait",
                code=failure.code,
            ) from failure
        return Source.FAIL_OPEN if mode is FailMode.OPEN else Source.FAIL_SAFE

    def _draw(self, ask: pb.AdmitRequest, failure: RpcFailed) -> None:
        cost_nusd = guess_cost_nusd(ask, self.settings.price_guess_nusd_per_1k_tokens)
        if cost_nusd is None:
            raise Unavailable(
                f"costd cannot be reached ({failure}) and the ask's cost is unknown; state "
                "estimated_cost_nusd, or give the client price_guess_nusd_per_1k_tokens",
                code=failure.code,
            ) from failure
        if not self.allowance.draw(ask.ask_id, cost_nusd):
            raise Unavailable(
                f"costd cannot be reached ({failure}); this call takes {cost_nusd} nusd and "
                f"{self.allowance.left_nusd} of the safe allowance are left",
                code=failure.code,
            ) from failure

    def _abandon(self, ask: pb.AdmitRequest) -> None:
        """Have the hold of an ask that may have arrived, and whose call is not made, released."""
        self.outbox.put(Entry(ask.ask_id, "Abandon", ask.SerializeToString()), droppable=True)

    def _queue_record(self, ask: pb.AdmitRequest, closing: Closing) -> Settlement:
        happened_ns = self.settings.clock.wall_ns() - closing.duration_ns
        request = build_record(ask, closing, happened_ns=happened_ns)
        self._queue_or_raise("Record", request, ask.ask_id)
        return Settlement(pb.Settlement(), queued=True)

    def _queue_or_raise(self, method: str, request: Message, entry_id: str) -> None:
        if not self.outbox.put(Entry(entry_id, method, request.SerializeToString())):
            raise OutboxFull(
                f"{method} {entry_id} could not be queued: the outbox is full or closed"
            )

    def _held_id(self, decision: Decision) -> str:
        if not decision.reservation_id:
            raise CostdError(
                f"ask {decision.ask_id} holds no money (verdict {decision.verdict.name}); "
                "only admitted calls are settled, voided or extended"
            )
        if decision.source == Source.ALLOWANCE:
            raise ReservationNotFound(
                f"the call {decision.ask_id} was admitted by another process, which alone can "
                "close it; unclosed it is charged at its hold"
            )
        return decision.reservation_id

    def _drawing(self) -> draws.Desk:
        assert self.attached is not None, "only a client with allowances draws"
        return {"attached": self.attached, "settings": self.settings}

    def _close(self, method: str, request: Message, entry_id: str) -> Steps[Settlement]:
        try:
            reply = yield from self._request(method, request)
        except RpcFailed as failure:
            if failure.code not in RETRYABLE:
                raise error_from_status(failure.code, failure.details) from failure
            self._queue_or_raise(method, request, entry_id)
            return Settlement(pb.Settlement(), queued=True)
        except BaseException:
            # Cancelled part of the way; safe to send twice.
            self.outbox.put(Entry(entry_id, method, request.SerializeToString()))
            raise
        return Settlement(reply)

    def _request_or_raise(self, method: str, request: Message) -> Steps[Any]:
        try:
            return (yield from self._request(method, request))
        except RpcFailed as failure:
            raise error_from_status(failure.code, failure.details) from failure

    def _request(self, method: str, request: Message) -> Steps[Any]:
        """Send a request until it is answered, its time is up or trying again cannot help."""
        clock = self.settings.clock
        began_ns = clock.monotonic_ns()
        # Whoever fails open has something better to do than to wait out an outage at each call.
        patient = self.settings.fail_mode is FailMode.CLOSED or began_ns >= self._impatient_until_ns
        count_max = ATTEMPTS_COUNT_MAX if patient else 1
        time_s = self.settings.timeout_s * (1 if patient else IMPATIENT_TIMEOUT_SHARE)
        deadline_s = began_ns / NS_PER_S + time_s
        number, arrived = 1, False
        while True:
            attempt = Attempt(number, clock.monotonic_ns() / NS_PER_S, deadline_s)
            try:
                reply = yield Rpc(method, request, attempt.timeout_s)
            except RpcFailed as failure:
                arrived = arrived or may_have_arrived(failure.code, failure.details)
                failure.may_have_arrived = arrived
                attempt = Attempt(number, clock.monotonic_ns() / NS_PER_S, deadline_s)
                wait_s = backoff_s(attempt, jitter=clock.jitter(), attempts_count_max=count_max)
                if failure.code not in RETRYABLE or wait_s is None:
                    if patient and failure.code in UNREACHABLE:
                        impatient_ns = round(IMPATIENT_S * NS_PER_S)
                        self._impatient_until_ns = clock.monotonic_ns() + impatient_ns
                    raise
                yield Sleep(wait_s)
                number += 1
            else:
                self._impatient_until_ns = 0
                return reply
