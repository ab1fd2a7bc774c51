"""From bytes to bytes: what the server does around each method of a service."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import CoroutineType
from typing import Any, Final, Protocol

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from costd.clock import ticks_ns
from costd.errors import CostdError, InvalidAsk, InvariantBroken, StoreCorrupt, StoreUnavailable
from costd.model.time import NS_PER_S
from costd.serving.guard import Guard
from costd.serving.spans import Spans
from costd.telemetry.histogram import Durations
from costd.telemetry.logs import Log, Seldom
from costd.trust.identity import Identity
from costd.wire.status import details_of, status_of

CALLER_METADATA: Final = "costd-caller"
"""The metadata key under which a caller says who it is."""

CALLER_LENGTH_MAX: Final = 256

_READS = ("Get", "List", "Explain")
"""Methods that write nothing, and so have nothing to wait for on the disk."""

_OURS = (StoreUnavailable, StoreCorrupt, InvariantBroken)
"""Errors that are the daemon's fault, and so belong in its log."""

_LOG_EVERY_NS: Final = NS_PER_S
"""A full disk fails every call; one line a second tells as much as thousands."""

RECHECK_NS: Final = 10 * NS_PER_S
"""So often a stream that is open is held against its guard again, as it says something: whoever
showed a certificate may keep a stream for longer than that lasts."""

Context = grpc.aio.ServicerContext[bytes, bytes]
Handle = Callable[[bytes, Context], Awaitable[bytes]]


Stream = Callable[[AsyncIterator[bytes], Context], AsyncIterator[bytes]]
"""One method with a stream each way, from bytes to bytes."""
Streams = Mapping[str, Stream]


class Durable(Protocol):
    """What an answer waits for; implemented by a daemon's group commit."""

    def wait(self) -> Awaitable[None]:
        """Return once everything written so far is on the disk."""
        ...


class Respond(Protocol):
    """One method of a service: sync, so that nothing awaits between read and commit.

    One that waits for others (a drill) is a coroutine; one that may have to (an ask that needs a
    lease) returns one then.
    """

    def __call__(self, request: Any, caller: str, /) -> Any:
        """Answer one request; raises `costd.errors`."""
        ...


class CallFigures:
    """What metrics read of the calls: durations, errors, and how many are open."""

    def __init__(self) -> None:
        self.durations: dict[str, Durations] = {}
        self.errors: dict[tuple[str, str], int] = {}
        self.open_count = 0

    def failed(self, rpc: str, code: str) -> None:
        """Count a call that ended in a gRPC error."""
        self.errors[rpc, code] = self.errors.get((rpc, code), 0) + 1


class Calls:
    """Wraps services for the server.

    Parsing happens here and not in gRPC, which would answer bytes that are no message with
    UNKNOWN, for which a client has no rule.
    """

    def __init__(
        self,
        *,
        figures: CallFigures,
        log: Log,
        durable: Durable | None = None,
        spans: Spans | None = None,
        recheck_ns: int = RECHECK_NS,
    ) -> None:
        self._recheck_ns = recheck_ns
        self._figures = figures
        self._log = log
        self._durable = durable
        self._spans = spans
        """Who makes a span of each call; None where traces go nowhere: then nothing is wrapped."""
        self._faults = Seldom(_LOG_EVERY_NS)

    def handlers(
        self,
        descriptor: ServiceDescriptor,
        service: object,
        *,
        streams: Streams | None = None,
        guard: Guard | None = None,
        some: bool = False,
        served_as: str = "",
    ) -> grpc.GenericRpcHandler:
        """Serve every method the proto declares with the service's method of the same name.

        Shape:  methods with streams are those of `streams`, by name; without, they are not served.
                `guard` is asked before anything of a request or stream is read, and of a stream
                again before what comes later.
                `some` serves what the service has; the rest is UNIMPLEMENTED.
                `served_as` is the service's name on the wire, where that is not its own.
        Errors: AttributeError if the service lacks one.
        """
        table: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            method.name: grpc.unary_unary_rpc_method_handler(
                self._traced(
                    served_as or descriptor.full_name,
                    method.name,
                    getattr(service, method.name),
                    GetMessageClass(method.input_type).FromString,
                    guard,
                )
            )
            for method in descriptor.methods
            if not method.client_streaming and (not some or hasattr(service, method.name))
        }
        for name, stream in (streams or {}).items():
            table[name] = grpc.stream_stream_rpc_method_handler(self._stream(name, stream, guard))
        return grpc.method_handlers_generic_handler(served_as or descriptor.full_name, table)

    def _traced(
        self,
        service: str,
        rpc: str,
        respond: Respond,
        parse: Callable[[bytes], Message],
        guard: Guard | None,
    ) -> Handle:
        """Handle one method, in a span of its own where traces are exported."""
        if self._spans is None:
            return self._handle(rpc, respond, parse, guard)
        method = f"{service}/{rpc}"
        noting = self._spans.noting(method, respond)
        return self._spans.around(method, self._handle(rpc, noting, parse, guard))

    def _handle(
        self,
        rpc: str,
        respond: Respond,
        parse: Callable[[bytes], Message],
        guard: Guard | None,
    ) -> Handle:
        figures = self._figures
        observe = figures.durations.setdefault(rpc, Durations()).observe
        durable = None if rpc.startswith(_READS) else self._durable
        refuse = self._refuse

        waits = inspect.iscoroutinefunction(respond)
        # A listing walks the store for as long as it is large; asks go on meanwhile.
        aside = rpc.startswith("List") and not waits

        async def handle(raw: bytes, context: Context) -> bytes:
            started_ns = ticks_ns()
            figures.open_count += 1
            try:
                if guard is None:
                    request, caller = parse(raw), caller_of(context)
                else:
                    identity = guard.check(context, rpc)
                    request, caller = _signed(parse(raw), context, identity)
                if aside:
                    answer = await asyncio.to_thread(respond, request, caller)
                elif waits:
                    answer = await respond(request, caller)
                else:
                    answer = respond(request, caller)
                    if answer.__class__ is CoroutineType:
                        answer = await answer
                reply: bytes = answer.SerializeToString()
                if durable is not None:
                    await durable.wait()
            except Exception as error:  # noqa: BLE001  every one becomes a status
                return refuse(rpc, error, context)
            finally:
                figures.open_count -= 1
                observe(ticks_ns() - started_ns)
            return reply

        return handle

    def _stream(self, rpc: str, stream: Stream, guard: Guard | None) -> Stream:
        refuse = self._refuse

        async def handle(raws: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            try:
                if guard is not None:
                    guard.check(context, rpc)
                    raws = self._rechecked(raws, rpc, guard, context)
                async for raw in stream(raws, context):
                    yield raw
            except Exception as error:  # noqa: BLE001  every one becomes a status
                refuse(rpc, error, context)

        return handle

    async def _rechecked(
        self, raws: AsyncIterator[bytes], rpc: str, guard: Guard, context: Context
    ) -> AsyncIterator[bytes]:
        """Pass on what comes while its sender is let in.

        Errors: Unauthenticated, NotPermitted; the stream ends with it.
        """
        checked_ns = ticks_ns()
        async for raw in raws:
            if ticks_ns() - checked_ns >= self._recheck_ns:
                guard.check(context, rpc)
                checked_ns = ticks_ns()
            yield raw

    def _refuse(self, rpc: str, error: Exception, context: Context) -> bytes:
        """Turn an error into a status; the reply's bytes do not travel beside one."""
        if isinstance(error, CostdError):
            code, details = status_of(error), details_of(error)
            if isinstance(error, _OURS):
                self._tell(rpc, error, code.name)
        elif isinstance(error, DecodeError):
            code = grpc.StatusCode.INVALID_ARGUMENT
            details = f"the request is no such message: {details_of(error)}"
        else:
            code = grpc.StatusCode.INTERNAL
            details = f"a bug in costd ({type(error).__name__}); the daemon's log has more"
            self._tell(rpc, error, code.name)
        self._figures.failed(rpc, code.name)
        context.set_code(code)
        context.set_details(details)
        return b""

    def _tell(self, rpc: str, error: Exception, code: str) -> None:
        if self._faults.passes((rpc, type(error).__name__)):
            self._log.error("call_failed", rpc=rpc, code=code, exc_info=error)


def _signed(request: Message, context: Context, identity: Identity) -> tuple[Message, str]:
    """Name the actor of a call: who proved to be one, whatever the request says."""
    if not identity.actor:
        return request, caller_of(context)
    if "actor" in request.DESCRIPTOR.fields_by_name:
        request.actor = identity.actor  # type: ignore[attr-defined]
    return request, identity.actor


def caller_of(context: Context) -> str:
    """Read who the caller says it is; empty if it does not say.

    Errors:  InvalidAsk for a name that gRPC's metadata may not hold: it reads bytes that are no
             text as if they were some, and another caller could then be taken for this one.
    """
    for key, value in context.invocation_metadata() or ():
        if key == CALLER_METADATA:
            name = value if isinstance(value, str) else value.decode(errors="replace")
            if len(name) > CALLER_LENGTH_MAX:
                raise InvalidAsk(f"{CALLER_METADATA} has more than {CALLER_LENGTH_MAX} characters")
            if not (name.isascii() and name.isprintable()):
                raise InvalidAsk(f"{CALLER_METADATA} must be printable ASCII, not {name[:80]!a}")
            return name
    return ""
