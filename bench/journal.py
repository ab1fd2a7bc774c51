"""What callers saw: every answer they were given, and nothing they were not."""

from dataclasses import dataclass, field

from costd.engine import keys
from costd.model.reservation import ReservationState


@dataclass(slots=True, kw_only=True)
class Entry:
    """One ask as its caller knows it; filled in as answers arrive."""

    caller: str
    ask_id: str
    project: str
    user: str
    verdict: int = 0
    """As `costd.v1.Verdict`; 0 while no answer has arrived."""
    reservation_id: str = ""
    hold_nusd: int = 0
    model: str = ""
    state: ReservationState = ReservationState.HELD
    """As the caller last heard."""
    cost_nusd: int = 0

    @property
    def is_held(self) -> bool:
        """Whether the caller was told that it holds money, now or before it closed."""
        return bool(self.reservation_id)

    @property
    def identity(self) -> bytes:
        """What the reservation's id must be."""
        return keys.reservation_id(self.caller, self.ask_id)


@dataclass(slots=True)
class Journal:
    """Every caller's entries, and what they found wrong while they asked."""

    entries: list[Entry] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    replayed_asks_count: int = 0
    """Decisions that had been made and stored before their answer was lost."""
    replayed_closings_count: int = 0

    def complain(self, entry: Entry, what: str) -> None:
        """Note an answer that contradicts an earlier one, or what was asked."""
        self.complaints.append(f"{entry.caller} {entry.ask_id}: {what}")

    @property
    def answered(self) -> list[Entry]:
        """The asks that got a decision."""
        return [entry for entry in self.entries if entry.verdict]
