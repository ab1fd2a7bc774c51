"""A provider on loopback that speaks enough of OpenAI's and Anthropic's APIs for their SDKs.

    with FakeProvider() as provider:
        client = openai.OpenAI(base_url=provider.openai_url, api_key="any")
        client.chat.completions.create(model="gpt-4o", messages=[…])
        provider.requests[-1].body["model"]

A token is a word, so that usage follows from the request: as many prompt tokens as the request
has words of text, and a reply of `reply_words` words or fewer if the request's limit is lower.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from costd.testing.provider_replies import Reply, Usage, reply_to

STALL_S_MAX = 30.0
"""A stalled stream that nobody releases ends after so long, so that tests cannot hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How one request is answered; the default is well.

    `hang_up_after_events` closes the connection part of the way through a stream, `stall` keeps
    it open there until `FakeProvider.release` is called.
    """

    status: int = 200
    hang_up: bool = False
    hang_up_after_events: int | None = None
    stall_after_events: int | None = None
    delay_s: float = 0.0
    reply_words: int | None = None
    usage: Usage = field(default_factory=Usage)
    retry_after_s: float | None = None


@dataclass(slots=True)
class SeenRequest:
    """One request as it arrived; `cut_short` once the client hung up before the end."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    cut_short: bool = False


class FakeProvider:
    """Serves on a free port of 127.0.0.1 while the block lasts; thread-safe."""

    def __init__(self, *, reply_words: int = 8, model_header: str = "") -> None:
        """With `model_header`, that header of a request names its model, as gateways have it."""
        self.reply_words = reply_words
        self.model_header = model_header
        self.requests: list[SeenRequest] = []
        self._script: deque[Behaviour] = deque()
        self._released = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler_for(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def url(self) -> str:
        """Base URL for the Anthropic SDK."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def openai_url(self) -> str:
        """Base URL for the OpenAI SDK."""
        return f"{self.url}/v1"

    def then(self, *behaviours: Behaviour) -> None:
        """Script how the next requests are answered, one each; later ones are answered well."""
        self._script.extend(behaviours)

    def release(self) -> None:
        """Let stalled streams go on."""
        self._released.set()

    def wait_until(self, holds: Callable[[Self], bool], timeout_s: float = 5.0) -> bool:
        """Wait for something that happens in a server thread; tell whether it did."""
        deadline_s = time.monotonic() + timeout_s
        while not holds(self):
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.005)
        return True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next_behaviour(self) -> Behaviour:
        """Take the next behaviour from the script."""
        return self._script.popleft() if self._script else Behaviour()

    def stall(self) -> None:
        """Wait for `release`, in a server thread."""
        self._released.wait(STALL_S_MAX)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet: clients that hang up are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    provider: FakeProvider
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length) or b"{}")
        seen = SeenRequest(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        behaviour = self.provider.next_behaviour()
        self.provider.requests.append(seen)
        if behaviour.delay_s:
            time.sleep(behaviour.delay_s)
        if behaviour.hang_up:
            self.close_connection = True
            return
        words = behaviour.reply_words
        model = seen.headers.get(self.provider.model_header)
        if model:
            body = {**body, "model": model}
        reply = reply_to(
            self.path, body, self.provider.reply_words if words is None else words, behaviour.usage
        )
        if behaviour.status != 200:  # noqa: PLR2004 - HTTP's OK
            self._send_json(behaviour.status, _error_body(behaviour.status), behaviour)
        elif reply is None:
            self._send_json(404, _error_body(404), behaviour)
        elif body.get("stream"):
            self._send_events(reply, behaviour, seen)
        else:
            self._send_json(200, reply.body, behaviour)

    def _send_json(self, status: int, body: dict[str, Any], behaviour: Behaviour) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        if behaviour.retry_after_s is not None:
            self.send_header("retry-after-ms", str(behaviour.retry_after_s * 1_000))
        self.end_headers()
        self.wfile.write(data)

    def _send_events(self, reply: Reply, behaviour: Behaviour, seen: SeenRequest) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        try:
            for data in self._paced(reply.events, behaviour):
                self.wfile.write(data)
                self.wfile.flush()
        except OSError:
            seen.cut_short = True

    def _paced(self, events: list[bytes], behaviour: Behaviour) -> Iterator[bytes]:
        for count, data in enumerate(events):
            if count == behaviour.hang_up_after_events:
                return
            if count == behaviour.stall_after_events:
                self.provider.stall()
            yield data

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Keep quiet."""


def _handler_for(provider: FakeProvider) -> type[_Handler]:
    return type("Handler", (_Handler,), {"provider": provider})


def _error_body(status: int) -> dict[str, Any]:
    error = {"type": "scripted_error", "message": f"the script says {status}"}
    return {"type": "error", "error": error}
