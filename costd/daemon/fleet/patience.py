"""Asks that wait for the coordinator: decided at once where a lease has room."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from costd.daemon.fleet.tenancy import Tenancy
from costd.model.lease import Wanting
from costd.model.time import NS_PER_S
from costd.serving.waits import Wait, Waits, untraced

Answer = TypeVar("Answer")
Decided_co = TypeVar("Decided_co", covariant=True)


class Decide(Protocol[Decided_co]):
    """One of the ledger's decisions, on one request."""

    def __call__(self, *, may_wait: bool) -> Decided_co | Wanting:
        """Decide, or say what must be lent first."""
        ...


class Patience:
    """Decides with what is held, or waits a little for more; final after that.

    Shape:   `decide` is one of the ledger's decisions: with `may_wait` it may say what it wants
             instead, and then has written nothing.
    """

    def __init__(self, tenancy: Tenancy, wait_ns: Callable[[], int]) -> None:
        self._tenancy = tenancy
        self._wait_ns = wait_ns
        self.waits: Waits = untraced
        """What makes a span of each wait, where traces are exported."""

    def decide(
        self, *decides: Decide[Answer], tell: Callable[[Answer], Message]
    ) -> Message | Coroutine[Any, Any, Message]:
        """Return the answer as `tell` writes it, or a coroutine that will.

        Shape:   each of `decides` is waited for in its turn; one that may wait no longer may still
                 say what is wanted for the one behind it.
        """
        answer = decides[0](may_wait=True)
        if isinstance(answer, Wanting):
            return self._wait(decides, tell, answer)
        return tell(answer)

    async def _wait(
        self,
        decides: Sequence[Decide[Answer]],
        tell: Callable[[Answer], Message],
        wanting: Wanting,
    ) -> Message:
        for decide in decides:
            answer = await self._decided(decide, wanting)
            if not isinstance(answer, Wanting):
                return tell(answer)
            wanting = answer
        raise AssertionError("what may not wait is decided")

    async def _decided(self, decide: Decide[Answer], wanting: Wanting) -> Answer | Wanting:
        """Decide once there is nothing more to wait for."""
        with self.waits(len(wanting.shortages)) as wait:
            return await self._waited(decide, wanting, wait)

    async def _waited(
        self, decide: Decide[Answer], wanting: Wanting, wait: Wait
    ) -> Answer | Wanting:
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._wait_ns() / NS_PER_S
        borrowing, clock = self._tenancy.borrowing, self._tenancy.ledger.clock
        while True:
            heard = loop.create_future()

            def wake(heard: asyncio.Future[None] = heard) -> None:
                if not heard.done():
                    heard.set_result(None)

            if not borrowing.ask(
                wanting.shortages,
                clock.now().steady_ns,
                wake,
                override_grant=wanting.override_grant,
                trace=wait.trace,
            ):
                wait.ended("not_asked")
                break
            if wait.trace:
                wait.asked_with(borrowing.trace_of(wake))
            try:
                async with asyncio.timeout_at(ends):
                    await heard
            except TimeoutError:
                wait.ended("timed_out")
                break
            finally:
                borrowing.forget(wake)
            answer = decide(may_wait=True)
            if not isinstance(answer, Wanting):
                wait.ended("decided")
                return answer
            wanting = answer
        return decide(may_wait=False)
