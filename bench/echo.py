"""The yardstick: a gRPC server that receives nothing and answers nothing."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, cast

import grpc
import uvloop

from bench.child import child_at

KINDS: Final = ("sync", "asyncio", "uvloop")
METHOD: Final = "/bench.Echo/Echo"
_THREADS_COUNT: Final = 8

Echo = Callable[[bytes], bytes]


@contextmanager
def echo_server(directory: Path, kind: str) -> Iterator[str]:
    """Run one server in a process of its own; yields its address."""
    path = directory / f"echo-{kind}.sock"
    command = [sys.executable, "-m", "bench.echo", "--kind", kind, "--socket", str(path)]
    with child_at(path, command):
        yield f"unix:{path}"


@contextmanager
def echoes(directory: Path) -> Iterator[dict[str, Echo]]:
    """Run one server of each kind and connect to all of them."""
    with ExitStack() as stack:
        calls = {}
        for kind in KINDS:
            address = stack.enter_context(echo_server(directory, kind))
            channel = stack.enter_context(grpc.insecure_channel(address))
            calls[kind] = echo_call(channel)
        yield calls


def echo_call(channel: grpc.Channel) -> Echo:
    """Make the empty call: bytes both ways, nothing to parse."""
    call: Any = channel.unary_unary(METHOD)
    return cast("Echo", call)


def _serve_sync(address: str) -> None:
    server = grpc.server(ThreadPoolExecutor(_THREADS_COUNT))
    server.add_generic_rpc_handlers((_handler(lambda request, _context: request),))
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


async def _serve_async(address: str) -> None:
    async def echo(request: bytes, _context: object) -> bytes:
        return request

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_handler(echo),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


def _handler(behaviour: Callable[..., object]) -> grpc.GenericRpcHandler:
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(cast("Any", behaviour))
    }
    return grpc.method_handlers_generic_handler("bench.Echo", handlers)


def main() -> None:
    """Serve one kind until terminated."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    arguments = parser.parse_args()
    address = f"unix:{arguments.socket}"
    if arguments.kind == "sync":
        _serve_sync(address)
        return
    run = uvloop.run if arguments.kind == "uvloop" else asyncio.run
    run(_serve_async(address))


if __name__ == "__main__":
    main()
