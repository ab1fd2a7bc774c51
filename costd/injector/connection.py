"""One connection to the webhook: it may be kept, but not for saying nothing."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

KEEP_ALIVE_S: Final = 120
"""The API server keeps its connections, so that a review costs no handshake."""


class Connection(H11Protocol):
    """Ends a connection that does not send a request in time.

    The server of this library has no such limit, and whoever opened as many connections as there
    may be would keep the API server out.
    """

    first_s = 10.0
    """Between the handshake and the headers of the first request."""
    _first: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._first = self.loop.call_later(self.first_s, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """End waiting."""
        self._heard()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Look whether a request has begun."""
        super().handle_events()
        if self.cycle is not None:
            self._heard()

    def _heard(self) -> None:
        if self._first is not None:
            self._first.cancel()
            self._first = None

    def _late(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()
