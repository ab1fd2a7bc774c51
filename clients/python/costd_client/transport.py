"""Channels to the daemon: made on first use, and again after a fork."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from costd_client.pb.admission_pb2_grpc import AdmissionStub
from costd_client.steps import Rpc, RpcFailed
from costd_client.trace import with_trace

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


REST_S_MAX = 5.0
"""How long a fork waits for calls to end; beyond the time limits in use, which end them."""


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
    """A blocking channel; thread-safe, rests around a fork.

    gRPC survives a fork only while no thread is inside it; else the child's is without its
    threads and its clock for ever. So a fork waits until calls have ended, ends streams, and the
    child connects anew.
    """

    def __init__(self, address: str, caller: str, channel: grpc.Channel | None = None) -> None:
        self._address = address
        self._metadata = (("costd-caller", check_caller(caller)),)
        self._given = channel
        self._begin()
        _LIVE.add(self)

    def _begin(self) -> None:
        # Reentrant: a finalizer may settle while this thread holds it.
        self._changed = threading.Condition(threading.RLock())
        self._busy_count = 0
        self._streams: set[Any] = set()
        self._rests_count = 0  # forks under way, of as many threads
        self._channel: grpc.Channel | None = None
        self._stub: Any = None

    def send(self, rpc: Rpc) -> Message:
        """Make one call.

        Errors:  RpcFailed.
        """
        method = getattr(self._enter(), rpc.method)
        try:
            reply: Message = method(
                rpc.request, timeout=rpc.timeout_s, metadata=with_trace(self._metadata)
            )
        except grpc.RpcError as error:
            raise RpcFailed(error.code(), error.details() or "") from error
        finally:
            self._leave()
        return reply

    def attach(self, messages: Iterator[Message], caller: str = "") -> Any:
        """Open the stream of allowances; iterate over it for what the daemon says.

        `caller` names another caller than this one, whose process died. A fork ends the stream.
        """
        metadata = (("costd-caller", check_caller(caller)),) if caller else self._metadata
        stub = self._enter()
        try:
            stream = stub.Attach(messages, metadata=metadata)
        except BaseException:
            self._leave()
            raise
        with self._changed:
            self._streams.add(stream)
            ends_now = bool(self._rests_count)
        if not stream.add_callback(lambda: self._leave(stream)):
            self._leave(stream)  # it has ended already
        if ends_now:
            stream.cancel()  # the fork began meanwhile and waits
        return stream

    def _enter(self) -> Any:
        """Say that a call begins, connecting if need be; waits while a fork is under way."""
        with self._changed:
            # Not for ever: a finalizer may settle in the very thread that forks.
            self._changed.wait_for(lambda: not self._rests_count, REST_S_MAX)
            if self._stub is None:
                self._channel = self._given or grpc.insecure_channel(
                    self._address, options=CHANNEL_OPTIONS
                )
                self._stub = _stub(self._channel)
            self._busy_count += 1
            return self._stub

    def _leave(self, stream: Any = None) -> None:
        with self._changed:
            self._busy_count -= 1
            self._streams.discard(stream)
            if self._rests_count:
                self._changed.notify_all()

    def rest(self) -> None:
        """Leave gRPC before a fork, and let nobody in until `resume` or `begin_again`."""
        with self._changed:
            self._rests_count += 1
            streams = list(self._streams)
        for stream in streams:  # without the lock, which their threads need to say that they end
            stream.cancel()
        with self._changed:
            self._changed.wait_for(lambda: not self._busy_count, REST_S_MAX)

    def resume(self) -> None:
        """Go on in the parent after a fork."""
        with self._changed:
            # One that was made while another thread forked never rested.
            self._rests_count = max(0, self._rests_count - 1)
            self._changed.notify_all()

    def begin_again(self) -> None:
        """Go on in a forked child, which has none of the parent's threads.

        The parent's channel is only forgotten: closing it would wait for them.
        """
        self._begin()

    def close(self) -> None:
        """Close the channel; the next call opens another."""
        with self._changed:
            channel, self._channel, self._stub = self._channel, None, None
        if channel is not None and self._given is None:
            channel.close()


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
                rpc.request, timeout=rpc.timeout_s, metadata=with_trace(self._metadata)
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


_LIVE: weakref.WeakSet[Transport] = weakref.WeakSet()


def _before_fork() -> None:
    for transport in list(_LIVE):
        transport.rest()


def _after_fork_in_parent() -> None:
    for transport in list(_LIVE):
        transport.resume()


def _after_fork_in_child() -> None:
    for transport in list(_LIVE):
        transport.begin_again()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
