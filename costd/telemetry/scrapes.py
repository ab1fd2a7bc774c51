"""The HTTP server that Prometheus scrapes; whoever else connects takes little of its host."""

import socket
from collections import OrderedDict
from contextlib import suppress
from socketserver import ThreadingMixIn
from threading import Lock
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

SILENT_S: Final = 10.0
"""A scrape is one short request, and Prometheus gives up on it after as long."""
CONNECTIONS_COUNT_MAX: Final = 32
"""Each has a thread; with more, the oldest makes room, so that a scrape always finds some."""


class Scrapes(ThreadingMixIn, WSGIServer):
    """Serves `/metrics`, a thread for each connection, and keeps few of them.

    Exists because prometheus_client's own server waits for ever for whoever connects and says
    nothing, in a thread of its own each.
    """

    daemon_threads = True
    request_queue_size = CONNECTIONS_COUNT_MAX

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        """Bind.

        Errors: OSError if the address cannot be had.
        """
        self.address_family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self._open: OrderedDict[Any, None] = OrderedDict()
        self._lock = Lock()
        super().__init__((str(address[0]), port), Scrape)
        self.set_app(make_wsgi_app(registry))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; the oldest connection ends where there are too many."""
        with self._lock:
            if len(self._open) >= CONNECTIONS_COUNT_MAX:
                _hang_up(self._open.popitem(last=False)[0])
            self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection that is answered, or failed."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of whoever hung up or said nothing; they must not fill the log."""


class Scrape(WSGIRequestHandler):
    """One connection, and what is asked over it."""

    timeout = SILENT_S

    def log_message(self, *_anything: Any) -> None:
        """Say nothing of each scrape."""


def _hang_up(request: Any) -> None:
    with suppress(OSError):  # it may just have ended by itself
        request.shutdown(socket.SHUT_RDWR)
