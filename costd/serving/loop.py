"""The event loop that servers run on."""

import asyncio
from collections.abc import Callable


def new_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Prefer uvloop, which halves what the loop itself costs; None is asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415  absent where it has no wheel
    except ImportError:
        return None
    return uvloop.new_event_loop
