"""One LLM call: admitted on entry, closed on exit by what is known then."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Self

from costd_client.decision import Decision, Outcome, Settlement, Source
from costd_client.ending import Ending, ending, outcome_of
from costd_client.errors import CostdError, Denied, Unavailable
from costd_client.pb import admission_pb2 as pb
from costd_client.requests import Closing, build_extend, read_closing
from costd_client.steps import Rpc, Steps, adrive, drive
from costd_client.usage import read_usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from google.protobuf.message import Message

    from costd_client.rules import Rules

log = logging.getLogger("costd_client")

PROGRESS_NS_MIN = 1_000_000_000
"""Usage so far is reported at most this often."""


class CallState:
    """What is known of one call so far; the parts of a call that need no I/O.

    Shape:   not shared between threads; `enter`, `leave`, `reported` and `extended` are steps.
    """

    def __init__(self, rules: Rules, fields: Mapping[str, Any]) -> None:
        self._rules = rules
        self._fields = fields
        self._decision: Decision | None = None
        self._settlement: Settlement | None = None
        self._closing: Closing | None = None
        self._sent = False
        self._voided = False
        self._closed = False
        self._started_ns = 0
        self._so_far: pb.Usage | None = None
        self._reported_ns: int | None = None
        self._lifetime_ns = 0

    @property
    def decision(self) -> Decision:
        """What costd decided; there once the block was entered."""
        if self._decision is None:
            raise CostdError("the call was not admitted yet; use it as `with client.call(…) as …`")
        return self._decision

    @property
    def settlement(self) -> Settlement | None:
        """How the call was closed; None before, and where it was left to expire."""
        return self._settlement

    @property
    def model(self) -> str:
        """The model to call: the one asked for, or a cheaper one."""
        return self.decision.model

    @property
    def provider(self) -> str:
        """Whose model that is."""
        return self.decision.provider

    @property
    def max_output_tokens(self) -> int | None:
        """The most tokens to let the model write; None if nobody said."""
        return self.decision.max_output_tokens

    @property
    def max_retries(self) -> int | None:
        """How often to retry at most; None if nobody said."""
        return self.decision.max_retries

    @property
    def directives(self) -> pb.Directives:
        """Everything costd asks to be done cheaper."""
        return self.decision.directives

    def sent(self) -> None:
        """Say that the request leaves now: from here on, failing is not free."""
        self._sent = True
        self._started_ns = self._now_ns()

    def settle(
        self,
        usage: Any = None,
        *,
        cost_nusd: int | None = None,
        outcome: Outcome | None = None,
        retry_count: int = 0,
        **fields: Any,
    ) -> None:
        """Say what the call used; the block settles it on exit.

        Shape:   takes a provider's usage or response, costd's field names, or `cost_nusd`. Said
                 twice, the last one counts. The duration ends here; the outcome is that of the
                 block unless it is given.
        Errors:  InvalidAsk for usage that cannot be read.
        """
        read, cost_nusd = read_closing(usage, cost_nusd=cost_nusd, **fields)
        self._closing = Closing(
            usage=read,
            cost_nusd=cost_nusd,
            duration_ns=self._now_ns() - self._started_ns,
            outcome=outcome or Outcome.UNSPECIFIED,
            retry_count=retry_count,
        )

    def void(self) -> None:
        """Say that the call was not made after all (answered from a cache, say)."""
        self._voided = True

    def note(self, usage_so_far: pb.Usage) -> None:
        """Remember the least that was used, for a call whose end nobody will know."""
        self._sent = True
        self._so_far = usage_so_far

    def enter(self) -> Steps[None]:
        """Admit; raise Denied if the call must not be made."""
        if self._decision is not None:
            raise CostdError("this call was made already; ask for another with client.call(…)")
        self._started_ns = self._now_ns()
        decision = yield from self._rules.admit(self._fields)
        if not decision.allowed:
            raise Denied(decision)
        self._decision = decision
        self._started_ns = self._now_ns()
        if decision.source is not Source.ALLOWANCE and decision.expires_ns:
            self._lifetime_ns = max(
                decision.expires_ns - self._rules.settings.clock.wall_ns(), 1_000_000_000
            )

    def leave(self, error: BaseException | None) -> Steps[None]:
        """Close by what is known. Does nothing the second time."""
        if self._closed:
            return
        self._closed = True
        outcome = outcome_of(error)
        match ending(
            usage_given=self._closing is not None,
            voided=self._voided,
            sent=self._sent,
            error=error,
        ):
            case Ending.SETTLE:
                self._settlement = yield from self._rules.settle(
                    self.decision, self._finished(outcome)
                )
            case Ending.VOID:
                self._settlement = yield from self._rules.void(self.decision)
            case Ending.LEAVE:
                log.info("costd: %r ended without usage; it is charged at its hold", self.decision)
                if self._so_far is not None:
                    yield from self._try_report(pb.ExtendRequest(usage_so_far=self._so_far))
                self._rules.leave(self.decision, self._finished(outcome))

    def drop(self) -> None:
        """Close in the background; for a call whose owner forgot it."""
        if self._closed or self._decision is None:
            return
        self._closed = True
        if self._closing is not None:
            self._rules.settle_later(self._decision, self._finished(Outcome.CANCELLED))
        else:
            self._rules.leave(self._decision, self._finished(Outcome.CANCELLED))

    def report(self, usage_so_far: Any = None, **fields: Any) -> Steps[pb.Extension | None]:
        """Report usage so far, and keep the hold alive; at most once a second.

        Shape:   of a call that was drawn from an allowance it is only remembered.
        """
        self._sent = True
        self._so_far = read_usage(usage_so_far, **fields)
        if self.decision.source is Source.ALLOWANCE:
            return None  # the settlement will say it all
        now_ns = self._now_ns()
        if self._reported_ns is not None and now_ns - self._reported_ns < PROGRESS_NS_MIN:
            return None
        self._reported_ns = now_ns
        request = pb.ExtendRequest(usage_so_far=self._so_far)
        if self._lifetime_ns and now_ns - self._started_ns > self._lifetime_ns // 2:
            request.ttl.FromNanoseconds(self._lifetime_ns)
        return (yield from self._try_report(request))

    def enlarge(self, fields: Mapping[str, Any]) -> Steps[pb.Extension]:
        """Ask for a larger or longer hold."""
        request = build_extend(self.decision.reservation_id, fields)
        return (yield from self._rules.extend(self.decision, request))

    def _try_report(self, request: pb.ExtendRequest) -> Steps[pb.Extension | None]:
        try:
            return (yield from self._rules.extend(self.decision, request))
        except Unavailable:
            return None  # a report is advice; the settlement will say it all

    def _finished(self, outcome: Outcome) -> Closing:
        known = self._closing or Closing(
            usage=self._so_far, duration_ns=self._now_ns() - self._started_ns
        )
        return Closing(
            usage=known.usage,
            cost_nusd=known.cost_nusd,
            duration_ns=known.duration_ns,
            outcome=known.outcome or outcome,
            retry_count=known.retry_count,
        )

    def _now_ns(self) -> int:
        return self._rules.settings.clock.monotonic_ns()


class Call(CallState):
    """A call in a `with` block."""

    def __init__(
        self, rules: Rules, fields: Mapping[str, Any], send: Callable[[Rpc], Message]
    ) -> None:
        super().__init__(rules, fields)
        self._send = send

    def progress(self, usage_so_far: Any = None, **fields: Any) -> pb.Extension | None:
        """Report usage so far while streaming; heed `directives.stop` of the answer.

        Shape:   sends at most once a second, else returns None; renews the time to live once
                 half of it has passed. An unreachable daemon is no reason to stop.
        """
        return drive(self.report(usage_so_far, **fields), self._send)

    def extend(
        self,
        *,
        additional_cost_nusd: int | None = None,
        additional_output_tokens: int | None = None,
        ttl_s: float | None = None,
    ) -> pb.Extension:
        """Ask for a larger or longer hold; look at `extended` of the answer."""
        fields = {
            "additional_cost_nusd": additional_cost_nusd,
            "additional_output_tokens": additional_output_tokens,
            "ttl_s": ttl_s,
        }
        return drive(self.enlarge(fields), self._send)

    def __enter__(self) -> Self:
        drive(self.enter(), self._send)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            drive(self.leave(error), self._send)
        except CostdError as closing_error:
            if error is None:
                raise
            log.error("costd: closing %r failed: %s", self._decision, closing_error)  # noqa: TRY400 - the body's own error is on its way


class AsyncCall(CallState):
    """A call in an `async with` block."""

    def __init__(
        self, rules: Rules, fields: Mapping[str, Any], send: Callable[[Rpc], Awaitable[Message]]
    ) -> None:
        super().__init__(rules, fields)
        self._send = send

    async def progress(self, usage_so_far: Any = None, **fields: Any) -> pb.Extension | None:
        """Report usage so far while streaming; as `Call.progress`."""
        return await adrive(self.report(usage_so_far, **fields), self._send)

    async def extend(
        self,
        *,
        additional_cost_nusd: int | None = None,
        additional_output_tokens: int | None = None,
        ttl_s: float | None = None,
    ) -> pb.Extension:
        """Ask for a larger or longer hold; as `Call.extend`."""
        fields = {
            "additional_cost_nusd": additional_cost_nusd,
            "additional_output_tokens": additional_output_tokens,
            "ttl_s": ttl_s,
        }
        return await adrive(self.enlarge(fields), self._send)

    async def __aenter__(self) -> Self:
        await adrive(self.enter(), self._send)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await adrive(self.leave(error), self._send)
        except CostdError as closing_error:
            if error is None:
                raise
            log.error("costd: closing %r failed: %s", self._decision, closing_error)  # noqa: TRY400 - the body's own error is on its way
