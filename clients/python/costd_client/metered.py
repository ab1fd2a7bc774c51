"""Streams that are read as before, and settled when they end, however they end."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, Protocol, Self

from costd_client.decision import Outcome
from costd_client.errors import CostdError, Stopped
from costd_client.estimate import estimate
from costd_client.pb import admission_pb2 as pb
from costd_client.steps import Rpc, Steps, adrive, drive
from costd_client.usage import read_usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import TracebackType

    from google.protobuf.message import Message

    from costd_client.call import CallState

log = logging.getLogger("costd_client")

REPORT_EVERY_COUNT = 64
"""Events between two looks at whether usage so far is due to be reported."""


class StreamReader(Protocol):
    """Reads one provider's events; implemented beside each endpoint.

    Exists so that metering knows no provider.
    """

    usage: dict[str, Any] | None
    """Usage as the provider has stated it so far, in its own words."""
    final: bool
    """Whether that usage is the last word."""
    hidden_output: bool
    """Whether output may have been written that no event shows (reasoning)."""
    prompt_tokens: int
    """The estimate of what went in, where the provider has not said."""

    def read(self, event: Any) -> tuple[str, bool]:
        """Read one event: the text it adds, and whether the caller is to see it."""
        ...


class StreamMeter:
    """Follows one stream and closes its call; no I/O."""

    def __init__(self, call: CallState, reader: StreamReader, *, retry_count: int) -> None:
        self._call = call
        self._reader = reader
        self._retry_count = retry_count
        self._texts: list[str] = []
        self._text_tokens = 0
        self._events_count = 0

    def read(self, event: Any) -> bool:
        """Take note of one event; tell whether the caller is to see it."""
        text, shown = self._reader.read(event)
        if text:
            self._texts.append(text)
        self._events_count += 1
        return shown

    @property
    def due(self) -> bool:
        """Whether it is worth looking if a report is due."""
        return self._events_count % REPORT_EVERY_COUNT == 0

    def report(self) -> Steps[None]:
        """Report usage so far and keep the hold alive.

        Errors:  Stopped if the daemon says that the stream must end.
        """
        try:
            extension = yield from self._call.report(self._known())
        except CostdError as error:
            log.warning("costd: reporting a stream failed: %s", error)
            return
        if extension is not None and extension.directives.stop:
            reason = pb.Reason.Name(extension.reason)
            raise Stopped(f"costd stopped the stream: {reason} [{extension.binding.rule}]")

    def finish(self, error: BaseException | None, *, early: bool = False) -> Steps[None]:
        """Settle at the best that is known. Does nothing the second time."""
        self._close_books(error, early=early)
        try:
            yield from self._call.leave(error)
        except CostdError as closing_error:
            log.error("costd: closing a stream failed: %s", closing_error)  # noqa: TRY400 - the message says it all

    def drop(self) -> None:
        """Settle in the background a stream that its owner forgot."""
        self._close_books(None, early=True)
        self._call.drop()

    def _close_books(self, error: BaseException | None, *, early: bool) -> None:
        """Hand in what was used, unless what was written cannot be known."""
        if self._call.settlement is not None:
            return
        known = self._known()
        if not self._reader.final and (self._reader.hidden_output or not known.output_tokens):
            self._call.note(known)
            return
        outcome = None
        if error is None and early and not self._reader.final:
            outcome = Outcome.CANCELLED
        self._call.settle(known, outcome=outcome, retry_count=self._retry_count)

    def _known(self) -> pb.Usage:
        """Put together what the provider stated and what can be estimated from its text."""
        reader = self._reader
        known = read_usage(reader.usage) if reader.usage else pb.Usage()
        if reader.final:
            return known
        if not known.HasField("prompt_tokens"):
            known.prompt_tokens = reader.prompt_tokens
        if self._texts:
            self._text_tokens += estimate("".join(self._texts))
            self._texts.clear()
        known.output_tokens = max(known.output_tokens, self._text_tokens)
        return known


class _Stream:
    """A stand-in for an SDK's stream: same attributes, same type to `isinstance`."""

    def __init__(self, stream: Any, meter: StreamMeter, send: Callable[[Rpc], Any]) -> None:
        self._stream = stream
        self._meter = meter
        self._send = send

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property  # type: ignore[misc]  # read-only on purpose
    def __class__(self) -> Any:
        return type(self._stream)

    def __del__(self) -> None:
        if "_meter" in self.__dict__:
            self._meter.drop()


class MeteredStream(_Stream):
    """A blocking stream that settles itself."""

    _send: Callable[[Rpc], Message]

    @property
    def response(self) -> Any:
        """The HTTP response; closing it settles too, which is how the SDKs' helpers close."""
        return _Response(self._stream.response, self.close)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            try:
                event = next(self._stream)
            except StopIteration:
                drive(self._meter.finish(None), self._send)
                raise
            except BaseException as error:
                drive(self._meter.finish(error), self._send)
                raise
            shown = self._meter.read(event)
            if self._meter.due:
                self._report()
            if shown:
                return event

    def _report(self) -> None:
        try:
            drive(self._meter.report(), self._send)
        except Stopped:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the response and settle at the best that is known."""
        try:
            self._stream.close()
        finally:
            drive(self._meter.finish(None, early=True), self._send)


class AsyncMeteredStream(_Stream):
    """An asyncio stream that settles itself."""

    _send: Callable[[Rpc], Awaitable[Message]]

    @property
    def response(self) -> Any:
        """The HTTP response; closing it settles too, which is how the SDKs' helpers close."""
        return _Response(self._stream.response, self.close)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while True:
            try:
                event = await self._stream.__anext__()
            except StopAsyncIteration:
                await adrive(self._meter.finish(None), self._send)
                raise
            except BaseException as error:
                await adrive(self._meter.finish(error), self._send)
                raise
            shown = self._meter.read(event)
            if self._meter.due:
                await self._report()
            if shown:
                return event

    async def _report(self) -> None:
        try:
            await adrive(self._meter.report(), self._send)
        except Stopped:
            await self.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the response and settle at the best that is known."""
        try:
            await self._stream.close()
        finally:
            await adrive(self._meter.finish(None, early=True), self._send)


class _Response:
    """An HTTP response whose closing is noticed."""

    def __init__(self, response: Any, close: Callable[[], Any]) -> None:
        self._response = response
        self._close = close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._response, name)

    @property  # type: ignore[misc]  # read-only on purpose
    def __class__(self) -> Any:
        return type(self._response)

    def close(self) -> Any:
        return self._close()

    async def aclose(self) -> None:
        await self._close()


class RawStream:
    """A raw response whose parsed stream is metered."""

    def __init__(self, raw: Any, wrap: Callable[[Any], Any]) -> None:
        self._raw = raw
        self._wrap = wrap
        self._parsed: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    @property  # type: ignore[misc]  # read-only on purpose
    def __class__(self) -> Any:
        return type(self._raw)

    def parse(self, **kwargs: Any) -> Any:
        """Parse into a stream that settles itself; awaitable where the SDK's own is."""
        parsed = self._raw.parse(**kwargs)
        if inspect.isawaitable(parsed):
            return self._parse_later(parsed)
        return self._metered(parsed)

    async def _parse_later(self, parsed: Awaitable[Any]) -> Any:
        return self._metered(await parsed)

    def _metered(self, parsed: Any) -> Any:
        if self._parsed is None:
            self._parsed = self._wrap(parsed)
        return self._parsed
