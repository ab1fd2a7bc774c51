"""How a host is asked to stop."""

import asyncio


class Stop:
    """Asked once, a host drains; asked again, it cuts what is open."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()

    def ask(self) -> None:
        """Ask, or insist."""
        (self.insisted if self.asked.is_set() else self.asked).set()
