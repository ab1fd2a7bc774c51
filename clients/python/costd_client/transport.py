"""Channels to the daemon: made on first use, and again in a forked child."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from costd_client.pb.admission_pb2_grpc import AdmissionStub
from costd_client.steps import Rpc, RpcFailed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from google.protobuf.message import Message

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    # A daemon that restarts is found again in a fraction of a second, not after gRPC's default
    # of one to 120 seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    # Repeating is the rules' affair: they know the deadline and the fail mode.
    ("grpc.enable_retries", 0),
    # A proxy has no business between an agent and the daemon on its own host.
    ("grpc.enable_http_proxy", 0),
)


def check_caller(caller: str) -> str:
    """Return the caller's name, fit for request metadata.

    Errors:  ValueError for names that gRPC metadata cannot carry.
    """
    if not caller or not (caller.isascii() and caller.isprintable()):
        raise ValueError(f"caller is {caller!r}; it must be printable ASCII, e.g. 'my-service'")
    return caller


def _stub(channel: Any) -> Any:
    return AdmissionStub(channel)  # type: ignore[no-untyped-call]  # generated without types


class Transport:
    """A blocking channel; thread-safe, reconnects in a forked child."""

    def __init__(self, address: str, caller: str, channel: grpc.Channel | None = None) -> None:
        self._address = address
        self._metadata = (("costd-caller", check_caller(caller)),)
        self._lock = threading.Lock()
        self._given = channel
        self._channel: grpc.Channel | None = None
        self._stub: Any = None
        self._pid = 0

    def send(self, rpc: Rpc) -> Message:
        """Make one call.

        Errors:  RpcFailed.
        """
        method = getattr(self._connected(), rpc.method)
        try:
            reply: Message = method(rpc.request, timeout=rpc.timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise RpcFailed(error.code(), error.details() or "") from error
        return reply

    def attach(self, messages: Iterator[Message], caller: str = "") -> Any:
        """Open the stream of allowances; iterate over it for what the daemon says.

        `caller` names another caller than this one, whose process died.
        """
        metadata = (("costd-caller", check_caller(caller)),) if caller else self._metadata
        return self._connected().Attach(messages, metadata=metadata)

    def _connected(self) -> Any:
        if self._pid == os.getpid():
            return self._stub
        with self._lock:
            if self._pid != os.getpid():
                # After a fork the parent's channel is only forgotten: closing it here would
                # wait for threads that exist in the parent alone.
                self._channel = self._given or grpc.insecure_channel(
                    self._address, options=CHANNEL_OPTIONS
                )
                self._stub = _stub(self._channel)
                self._pid = os.getpid()
        return self._stub

    def close(self) -> None:
        """Close the channel; the next call opens another."""
        with self._lock:
            if self._channel is not None and self._pid == os.getpid() and self._given is None:
                self._channel.close()
            self._channel = self._stub = None
            self._pid = 0


class AsyncTransport:
    """An asyncio channel; belongs to the event loop that first used it."""

    def __init__(self, address: str, caller: str) -> None:
        self._address = address
        self._metadata = (("costd-caller", check_caller(caller)),)
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, rpc: Rpc) -> Message:
        """Make one call.

        Errors:  RpcFailed.
        """
        method = getattr(self._connected(), rpc.method)
        try:
            reply: Message = await method(
                rpc.request, timeout=rpc.timeout_s, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise RpcFailed(error.code(), error.details() or "") from error
        return reply

    def _connected(self) -> Any:
        import asyncio  # noqa: PLC0415 - blocking clients never need it

        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Each `asyncio.run` is a new loop, and a channel works on its own only.
            self._channel = grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS)
            self._stub = _stub(self._channel)
            self._loop = loop
        return self._stub

    async def close(self) -> None:
        """Close the channel; the next call opens another."""
        channel, self._channel, self._stub, self._loop = self._channel, None, None, None
        if channel is not None:
            await channel.close()
