"""What a rule wants written, all of it or nothing."""

from enum import StrEnum
from typing import Any

from costd.model.events import Alert, AuditRecord, UsageEvent


class Family(StrEnum):
    """Column families of the store, each an ordered map from bytes to one kind of value."""

    COUNTERS = "counters"  # window end ‖ budget tag ‖ per values → Counter
    RATES = "rates"  # rate tag ‖ per values → int, steady ns at which the bucket is full
    RESERVATIONS = "reservations"  # reservation id → Reservation
    DUE = "due"  # steady ns ‖ reservation id → b"", what the sweeper looks at next
    USAGE = "usage"  # sequence → UsageEvent
    ALERTS = "alerts"  # sequence → Alert
    AUDIT = "audit"  # sequence → AuditRecord; hour ‖ digest → AuditRecord for denials
    KILLS = "kills"  # kill id → KillSwitch
    GRANTS = "grants"  # grant id → GrantUse
    ALLOWANCES = "allowances"  # reservation id → Allowance
    SESSIONS = "sessions"  # session id → Session
    LEASES = (
        "leases"  # as counters → mark, where there is a lease or unreported use of a fleet budget
    )
    PRICES = "prices"  # price id → Price
    META = "meta"  # name → bytes


class Changes:
    """Writes in order, and records whose sequence numbers the ledger assigns.

    Mutable on purpose: built up by one decision and committed once.
    """

    __slots__ = ("alerts", "audit", "crossed", "puts", "usage")

    def __init__(self) -> None:
        self.puts: list[tuple[Family, bytes, Any]] = []
        self.alerts: list[Alert] = []
        self.audit: list[AuditRecord] = []
        self.usage: list[UsageEvent] = []
        self.crossed: list[bytes] = []
        """Counters that reached a step."""

    def put(self, family: Family, key: bytes, value: Any) -> None:
        """Write a value; None deletes the key."""
        self.puts.append((family, key, value))
