"""Pages in memory, for tests and simulations."""

from costd.model.allowance import Sums


class MemoryPages:
    """Implements `costd.daemon.clients.pages.Pages`; clients of a test draw through `draw`."""

    def __init__(self) -> None:
        self.generation = 1
        self.daemon_page = "memory"
        self.slots: dict[tuple[str, int], tuple[int, Sums]] = {}
        self.opened: set[str] = set()
        """The names of the pages there are."""

    def bump(self) -> int:
        """Change the generation."""
        self.generation += 1
        return self.generation

    def open_client(self, name: str) -> str:
        """Make a page."""
        self.opened.add(name)
        return f"memory/{name}"

    def arm(self, name: str, slot: int, serial: int) -> bool:
        """Prepare a slot for an allowance."""
        self.slots[name, slot] = (serial, Sums())
        return True

    def draw(self, name: str, slot: int, sums: Sums) -> None:
        """Write how far a client drew, as the client does."""
        self.slots[name, slot] = (self.slots[name, slot][0], sums)

    def drawn(self, name: str, slot: int, serial: int) -> Sums | None:
        """Read how far an allowance was drawn."""
        found, sums = self.slots.get((name, slot), (0, Sums()))
        if found != serial or min(sums.calls_count, sums.amount_nusd, sums.tokens_count) < 0:
            return None
        return sums

    def close_client(self, name: str) -> None:
        """Forget a session's page."""
        self.opened.discard(name)
        self.slots = {key: slot for key, slot in self.slots.items() if key[0] != name}
