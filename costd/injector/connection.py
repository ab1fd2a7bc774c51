"""One connection to the webhook: it may be kept, but not for saying nothing."""

import asyncio
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

KEEP_ALIVE_S: Final = 120
"""The API server keeps its connections, so that a review costs no handshake."""
HEAD_BYTES_MAX: Final = 16 * 1024
"""Of a request before its body; the API server's have less than one."""


class Exchange(h11.Connection):
    """Refuses requests that take long to read, as soon as they are known.

    What arrived at once is read at once, while everybody else waits. A quarter of a megabyte of
    headers, or of chunks of a byte each, would take a second; API servers send neither.
    """

    def next_event(self) -> Any:
        """Read on."""
        if self.their_state is h11.IDLE:
            begun = self.trailing_data[0]
            if len(begun) > HEAD_BYTES_MAX and b"\r\n\r\n" not in begun[:HEAD_BYTES_MAX]:
                raise h11.RemoteProtocolError("the headers are too long", 431)
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = {bytes(name) for name, _ in event.headers}
            if b"transfer-encoding" in names:
                raise h11.RemoteProtocolError("a body has a length", 411)
        return event


class Connection(H11Protocol):
    """Ends a connection that does not send a request in time.

    The server of this library has no such limit, and whoever opened as many connections as there
    may be would keep the API server out.
    """

    _headers: asyncio.TimerHandle | None = None

    def __init__(self, config: Config, state: ServerState, *, headers_s: float) -> None:
        """Wait for headers from the handshake on, or from the first byte of a later request."""
        super().__init__(config=config, server_state=state, app_state={})
        self.headers_s = headers_s
        self.conn = Exchange(h11.SERVER, HEAD_BYTES_MAX)
        self.ended = asyncio.Event()
        """Set when the connection is over."""

    @property
    def is_waiting(self) -> bool:
        """Whether it is kept for a next request."""
        return self.cycle is not None and self.cycle.response_complete and self._headers is None

    def abort(self) -> None:
        """End it at once, if it has begun."""
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """End waiting."""
        self._heard()
        super().connection_lost(exc)
        # Else one that is broken off is held in memory until it would have been ended.
        self._unset_keepalive_if_required()
        self.ended.set()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest where a request has begun."""
        super().data_received(data)
        if self._is_idle and not self.transport.is_closing():
            self._wait()

    def handle_events(self) -> None:
        """Look whether the headers of a request are here."""
        super().handle_events()
        if not self._is_idle:
            self._heard()

    def on_response_complete(self) -> None:
        """End a connection with a body that nobody reads: no request could follow it."""
        is_read = self.conn.their_state is not h11.SEND_BODY
        super().on_response_complete()
        if not is_read:
            self.transport.close()
        elif self._is_idle and self.conn.trailing_data[0]:
            self._wait()

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        if self._headers is None:
            self._headers = self.loop.call_later(self.headers_s, self._late)

    def _heard(self) -> None:
        if self._headers is not None:
            self._headers.cancel()
            self._headers = None

    def _late(self) -> None:
        self._headers = None
        if self._is_idle and not self.transport.is_closing():
            self.transport.close()
