"""The event loop that servers run on, from a host's start to its stop."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from costd.serving.stop import Stop


def run_until_signalled(host: Callable[[Stop], Coroutine[Any, Any, None]]) -> None:
    """Run a host in this process; SIGTERM or SIGINT asks it to stop, a second one insists.

    Errors: as the host's.
    """

    async def serving() -> None:
        stop = Stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.ask)
        await host(stop)

    with asyncio.Runner(loop_factory=_new_loop()) as runner:
        runner.run(serving())


def _new_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Prefer uvloop, which halves what the loop itself costs; None is asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415  absent where it has no wheel
    except ImportError:
        return None
    return uvloop.new_event_loop
