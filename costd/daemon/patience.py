"""Asks that wait for the coordinator: decided at once where a lease has room."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from costd.daemon.tenancy import Tenancy
from costd.model.lease import Wanting
from costd.model.time import NS_PER_S

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
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._wait_ns() / NS_PER_S
        while True:
            heard = loop.create_future()

            def wake(heard: asyncio.Future[None] = heard) -> None:
                if not heard.done():
                    heard.set_result(None)

            token = wanting.override_grant
            if not self._tenancy.ask(wanting.shortages, wake, override_grant=token):
                break
            try:
                async with asyncio.timeout_at(ends):
                    await heard
            except TimeoutError:
                break
            finally:
                self._tenancy.borrowing.forget(wake)
            answer = decide(may_wait=True)
            if not isinstance(answer, Wanting):
                return answer
            wanting = answer
        return decide(may_wait=False)
