"""One connection to the webhook: it may be kept, but not for saying nothing."""

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

KEEP_ALIVE_S: Final = 120
"""The API server keeps its connections, so that a review costs no handshake."""


class Connection(H11Protocol):
    """Ends a connection that does not send a request in time.

    The server of this library has no such limit, and whoever opened as many connections as there
    may be would keep the API server out.
    """

    headers_s = 10.0
    """Between the handshake, or the first byte of a later request, and the end of its headers."""
    _headers: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """End waiting."""
        self._heard()
        super().connection_lost(exc)

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
