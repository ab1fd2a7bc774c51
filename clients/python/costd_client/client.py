"""The client: what a program holds to ask costd before each call."""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from costd_client.address import default_address, named_address
from costd_client.attached import Attached
from costd_client.call import AsyncCall, Call
from costd_client.decision import Decision, Outcome, Settlement
from costd_client.drawn import Drawn
from costd_client.errors import InvalidAsk
from costd_client.estimate import estimate
from costd_client.fail_mode import FailMode, SafeAllowance
from costd_client.outbox import Delivery, Outbox
from costd_client.replay import Teller
from costd_client.requests import Defaults, build_ask, build_closing
from costd_client.rules import Rules, Settings
from costd_client.scope import COMMON, AsyncScope, Scope, scope_fields
from costd_client.steps import adrive, drive
from costd_client.surroundings import surroundings
from costd_client.transport import AsyncTransport, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    import grpc

    from costd_client.fields import AskFields, RareFields, SettleFields
    from costd_client.pb import admission_pb2 as pb
    from costd_client.spool import Entry
    from costd_client.steps import Rpc

CLOSE_TIMEOUT_S = 2.0
FLUSH_TIMEOUT_S = 10.0


class BaseClient:
    """What both clients share: settings, rules, and the outbox with its own channel."""

    def __init__(
        self,
        address: str | None = None,
        *,
        caller: str | None = None,
        task_class: str = "",
        labels: Mapping[str, str] | None = None,
        timeout_s: float = 2.0,
        fail_mode: FailMode | str = FailMode.CLOSED,
        safe_allowance_nusd: int = 0,
        price_guess_nusd_per_1k_tokens: int | None = None,
        outbox_capacity_count: int = 10_000,
        spool: str | os.PathLike[str] | None = None,
        channel: grpc.Channel | None = None,
        allowances: bool = True,
    ) -> None:
        self.address = address or named_address() or default_address()
        self.caller = caller or os.environ.get("COSTD_CALLER") or _program_name()
        settings = Settings(
            defaults=Defaults(labels=dict(labels or {}), task_class=task_class),
            fail_mode=FailMode(fail_mode),
            timeout_s=timeout_s,
            price_guess_nusd_per_1k_tokens=price_guess_nusd_per_1k_tokens,
        )
        self._transport = Transport(self.address, self.caller, channel)
        self.allowance = SafeAllowance(safe_allowance_nusd)
        self.outbox = Outbox(
            self._deliver,
            capacity_count=outbox_capacity_count,
            folder=Path(spool) if spool else None,
        )
        folder = Path(spool) if spool else None
        self.attached: Attached | None = None
        if allowances:
            around = surroundings(
                maps_pages=self.address.startswith("unix:"), folder=folder, caller=self.caller
            )
            teller = Teller(folder, self._transport.attach) if folder else None
            self.attached = Attached(self._transport.attach, around, teller)
        self.rules = Rules(settings, self.outbox, self.allowance, self.attached)
        self.outbox.start()
        _OPEN.add(self)

    def estimate(self, content: Any) -> int:
        """Estimate how many tokens a text or a list of messages is; see `estimate`."""
        return estimate(content)

    @property
    def send(self) -> Callable[[Rpc], Any]:
        """What performs a request: blocking, or awaitable in `AsyncClient`."""
        return self._transport.send

    def _deliver(self, entry: Entry) -> Delivery:
        return drive(self.rules.deliver(entry), self._transport.send)

    def _flush(self, timeout_s: float) -> bool:
        until_ns = time.monotonic_ns() + round(timeout_s * 1_000_000_000)
        heard = self.attached is None or self.attached.flush(timeout_s)
        left_s = max(until_ns - time.monotonic_ns(), 0) / 1_000_000_000
        return self.outbox.flush(left_s) and heard

    @property
    def unheard_count(self) -> int:
        """How many calls that ended the daemon has yet to hear of."""
        drawn_count = self.attached.session.unheard_count if self.attached is not None else 0
        return drawn_count + self.outbox.pending.queued_count

    def _finish(self, timeout_s: float) -> None:
        _OPEN.discard(self)
        if self.attached is not None:
            self.attached.close(timeout_s)
        self.outbox.close(timeout_s)
        self._transport.close()


class Client(BaseClient):
    """Asks costd from threads; safe to share between them.

    Shape:   connects on first use; a forked child connects anew. Close it, or use it as a
             context manager, so that what waits in the outbox is delivered.
    """

    def admit(
        self,
        *,
        task_class: str = "",
        model: str = "",
        provider: str = "",
        tier: str = "",
        labels: Mapping[str, Any] | None = None,
        prompt_tokens: int | None = None,
        max_output_tokens: int | None = None,
        estimated_cost_nusd: int | None = None,
        **rare: Unpack[RareFields],
    ) -> Decision:
        """Ask whether a call may happen; the decision may be a refusal, so look at `allowed`.

        Shape:   decided in the process where an allowance of its scope is at hand.

        Errors:  Unavailable if nobody decides and the fail mode refuses; InvalidAsk,
                 NotPermitted, IdReused, Overloaded otherwise. After an error, do not call.
        """
        if self.rules.scopes is not None:
            drawn = self.rules.scopes.draw(
                task_class=task_class,
                model=model,
                provider=provider,
                tier=tier,
                labels=labels,
                prompt_tokens=prompt_tokens,
                max_output_tokens=max_output_tokens,
                estimated_cost_nusd=estimated_cost_nusd,
                rare=rare,
            )
            if drawn is not None:
                return drawn
        amounts = (prompt_tokens, max_output_tokens, estimated_cost_nusd)
        common = (task_class, model, provider, tier, labels, *amounts)
        ask = {**dict(zip(COMMON, common, strict=True)), **rare}
        return drive(self.rules.ask(ask), self._transport.send)

    def call(self, **ask: Unpack[AskFields]) -> Call:
        """Admit a call for a `with` block, and close it at its end; raises Denied on entry."""
        return Call(self.rules, ask, self._transport.send)

    def scope(self, *, labels: Mapping[str, str] | None = None, **fields: Any) -> Scope:
        """Bind what calls of one kind share, once, for loops that admit many.

        Shape:   task_class, model, provider, tier, acceptable_models, batch, cost_kind; anything
                 else is a label. `labels(...)` blocks around an admit count as they do for
                 `admit`.
        """
        return Scope(self.rules, scope_fields(labels, fields), self._transport.send)

    def settle(
        self,
        decision: Decision,
        usage: Any = None,
        *,
        duration_s: float = 0.0,
        outcome: Outcome = Outcome.OK,
        retry_count: int = 0,
        **fields: Unpack[SettleFields],
    ) -> Settlement:
        """Close an admitted call at what it used; idempotent.

        Errors:  ReservationNotFound, ReservationClosed; InvalidAsk for unreadable usage.
        """
        closing = build_closing(usage, fields, duration_s, outcome, retry_count)
        if type(decision) is Drawn and (ended := self.rules.end_drawn(decision, closing)):
            return ended
        return drive(self.rules.settle(decision, closing), self._transport.send)

    def void(self, decision: Decision) -> Settlement:
        """Close an admitted call at zero, because it never left; idempotent."""
        return drive(self.rules.void(decision), self._transport.send)

    def record(
        self,
        usage: Any = None,
        *,
        record_id: str | None = None,
        ask: AskFields | None = None,
        happened_ns: int = 0,
        duration_s: float = 0.0,
        outcome: Outcome = Outcome.OK,
        retry_count: int = 0,
        **fields: Unpack[SettleFields],
    ) -> Settlement:
        """Charge a call that nobody asked for (a batch job, a backfill); idempotent by id."""
        request = _recorded_ask(self.rules, ask, record_id)
        closing = build_closing(usage, fields, duration_s, outcome, retry_count)
        return drive(self.rules.record(request, closing, happened_ns), self._transport.send)

    def explain(self, **ask: Unpack[AskFields]) -> pb.Explanation:
        """Ask what `admit` would answer and why, consuming nothing."""
        return drive(self.rules.explain(ask), self._transport.send)

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """Wait until all that was said so far is in the daemon's books; False if not in time."""
        return self._flush(timeout_s)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Deliver what waits, for at most so long, and disconnect."""
        self._finish(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(BaseClient):
    """Asks costd from asyncio; same rules as `Client`, and the same names.

    Shape:   the outbox delivers from a thread of its own, so that it outlives event loops.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._async_transport = AsyncTransport(self.address, self.caller)

    @property
    def send(self) -> Callable[[Rpc], Any]:
        """What performs a request; its answer is awaited."""
        return self._async_transport.send

    async def admit(
        self,
        *,
        task_class: str = "",
        model: str = "",
        provider: str = "",
        tier: str = "",
        labels: Mapping[str, Any] | None = None,
        prompt_tokens: int | None = None,
        max_output_tokens: int | None = None,
        estimated_cost_nusd: int | None = None,
        **rare: Unpack[RareFields],
    ) -> Decision:
        """Ask whether a call may happen; as `Client.admit`."""
        if self.rules.scopes is not None:
            drawn = self.rules.scopes.draw(
                task_class=task_class,
                model=model,
                provider=provider,
                tier=tier,
                labels=labels,
                prompt_tokens=prompt_tokens,
                max_output_tokens=max_output_tokens,
                estimated_cost_nusd=estimated_cost_nusd,
                rare=rare,
            )
            if drawn is not None:
                return drawn
        amounts = (prompt_tokens, max_output_tokens, estimated_cost_nusd)
        common = (task_class, model, provider, tier, labels, *amounts)
        ask = {**dict(zip(COMMON, common, strict=True)), **rare}
        return await adrive(self.rules.ask(ask), self._async_transport.send)

    def call(self, **ask: Unpack[AskFields]) -> AsyncCall:
        """Admit a call for an `async with` block; as `Client.call`."""
        return AsyncCall(self.rules, ask, self._async_transport.send)

    def scope(self, *, labels: Mapping[str, str] | None = None, **fields: Any) -> AsyncScope:
        """Bind what calls of one kind share, once, for loops that admit many.

        Shape:   task_class, model, provider, tier, acceptable_models, batch, cost_kind; anything
                 else is a label. `labels(...)` blocks around an admit count as they do for
                 `admit`.
        """
        return AsyncScope(self.rules, scope_fields(labels, fields), self._async_transport.send)

    async def settle(
        self,
        decision: Decision,
        usage: Any = None,
        *,
        duration_s: float = 0.0,
        outcome: Outcome = Outcome.OK,
        retry_count: int = 0,
        **fields: Unpack[SettleFields],
    ) -> Settlement:
        """Close an admitted call at what it used; as `Client.settle`."""
        closing = build_closing(usage, fields, duration_s, outcome, retry_count)
        if type(decision) is Drawn and (ended := self.rules.end_drawn(decision, closing)):
            return ended
        return await adrive(self.rules.settle(decision, closing), self._async_transport.send)

    async def void(self, decision: Decision) -> Settlement:
        """Close an admitted call at zero; as `Client.void`."""
        return await adrive(self.rules.void(decision), self._async_transport.send)

    async def record(
        self,
        usage: Any = None,
        *,
        record_id: str | None = None,
        ask: AskFields | None = None,
        happened_ns: int = 0,
        duration_s: float = 0.0,
        outcome: Outcome = Outcome.OK,
        retry_count: int = 0,
        **fields: Unpack[SettleFields],
    ) -> Settlement:
        """Charge a call that nobody asked for; as `Client.record`."""
        request = _recorded_ask(self.rules, ask, record_id)
        closing = build_closing(usage, fields, duration_s, outcome, retry_count)
        steps = self.rules.record(request, closing, happened_ns)
        return await adrive(steps, self._async_transport.send)

    async def explain(self, **ask: Unpack[AskFields]) -> pb.Explanation:
        """Ask what `admit` would answer and why; as `Client.explain`."""
        return await adrive(self.rules.explain(ask), self._async_transport.send)

    async def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """Wait until all that was said so far is in the daemon's books; as `Client.flush`."""
        import asyncio  # noqa: PLC0415 - blocking clients never need it

        return await asyncio.to_thread(self._flush, timeout_s)

    async def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Deliver what waits, for at most so long, and disconnect."""
        import asyncio  # noqa: PLC0415 - blocking clients never need it

        await self._async_transport.close()
        await asyncio.to_thread(self._finish, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _recorded_ask(rules: Rules, ask: AskFields | None, record_id: str | None) -> pb.AdmitRequest:
    if ask is not None and ask.get("ask_id"):
        raise InvalidAsk("a record's id is record_id; leave ask_id out")
    return build_ask(rules.settings.defaults, {**(ask or {}), "ask_id": record_id})


def _program_name() -> str:
    name = Path(sys.argv[0] if sys.argv else "").name
    return "".join(char for char in name if char.isascii() and char.isprintable()) or "python"


_OPEN: weakref.WeakSet[BaseClient] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Give what waits in outboxes a last chance when the program ends."""
    for client in list(_OPEN):
        if client.attached is not None:
            client.attached.close(CLOSE_TIMEOUT_S)
        if client.outbox.pending.queued_count or client.outbox.pending.held_count:
            client.outbox.close(CLOSE_TIMEOUT_S)
