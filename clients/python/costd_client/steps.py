"""Rules as generators: they say what to send and are told what came back.

Admission, retries, fail modes and settling are written once, free of I/O, as generators of
effects. `drive` performs the effects with threads, `adrive` with asyncio; neither decides.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import grpc
    from google.protobuf.message import Message

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rpc:
    """Call one method of `Admission`; answered with its reply, or RpcFailed is thrown in."""

    method: str
    request: Message
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait; answered with None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Invoke:
    """Call the provider; answered with what the function returns, awaited where it must be."""

    function: Callable[[], Any]


Effect = Rpc | Sleep | Invoke
Steps = Generator[Effect, Any, T]


class RpcFailed(Exception):
    """A gRPC call ended without a reply."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details
        self.may_have_arrived = True


def drive(steps: Steps[T], send: Callable[[Rpc], Message]) -> T:
    """Perform every effect in this thread and return what the rules return."""
    try:
        effect = next(steps)
        while True:
            try:
                answer = _perform(effect, send)
            except BaseException as error:  # noqa: BLE001 - the rules decide what it means
                effect = steps.throw(error)
            else:
                effect = steps.send(answer)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration.value is Any
    finally:
        steps.close()


async def adrive(steps: Steps[T], send: Callable[[Rpc], Awaitable[Message]]) -> T:
    """Perform every effect in this task and return what the rules return."""
    try:
        effect = next(steps)
        while True:
            try:
                answer = await _aperform(effect, send)
            except BaseException as error:  # noqa: BLE001 - the rules decide what it means
                effect = steps.throw(error)
            else:
                effect = steps.send(answer)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration.value is Any
    finally:
        steps.close()


def _perform(effect: Effect, send: Callable[[Rpc], Message]) -> Any:
    match effect:
        case Rpc():
            return send(effect)
        case Sleep(seconds):
            return time.sleep(seconds)
        case Invoke(function):
            return function()


async def _aperform(effect: Effect, send: Callable[[Rpc], Awaitable[Message]]) -> Any:
    match effect:
        case Rpc():
            return await send(effect)
        case Sleep(seconds):
            return await asyncio.sleep(seconds)
        case Invoke(function):
            answer = function()
            return await answer if inspect.isawaitable(answer) else answer
