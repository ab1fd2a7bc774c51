"""Usage events of daemons: each stored exactly once, in order.

They have a row and transactions of their own, so that storing many holds up nobody's leases. A
stream that is over can do no harm here: what it sends again is known by its number.
"""

from collections.abc import Iterable

from costd.coordinator.rows import Daemon, Rows
from costd.errors import InvalidAsk
from costd.model.events import Alert
from costd.wire.pb import control_pb2


def begun(rows: Rows, daemon: Daemon, first_sequence: int, now_ns: int) -> int:
    """Return how far a daemon's events are stored, as it enrols.

    Shape:   `first_sequence` is the oldest that it still has, 0 if none. Where events before it
             are missing here, this database once stored them, and lost them; it goes on behind
             them, with an alert.
    """
    stored = rows.outboxes[daemon.daemon_id]
    missing = first_sequence - 1 - stored
    if not first_sequence or missing <= 0:
        return stored
    rows.put_outbox(daemon.daemon_id, first_sequence - 1)
    rows.alerts.append(
        Alert(
            raised_ns=now_ns,
            kind="usage_lost",
            rule=daemon.daemon_id,
            key=daemon.name,
            message=(
                f"{missing} usage events of daemon {daemon.name} were stored once and are not in "
                "this database; was it restored from a backup?"
            ),
        )
    )
    return first_sequence - 1


def store(rows: Rows, daemon_id: str, events: Iterable[control_pb2.UsageEvent]) -> int:
    """Have the events stored that are not yet; returns the newest that is.

    Errors:  InvalidAsk where events between the newest stored and the first are missing.
    """
    stored = sequence = rows.outboxes[daemon_id]
    for event in events:
        if event.sequence <= sequence:
            continue
        if event.sequence != sequence + 1:
            raise InvalidAsk(
                f"usage event {event.sequence} came after {sequence}; send those between"
            )
        rows.usage.append((daemon_id, event))
        sequence = event.sequence
    if sequence != stored:
        rows.put_outbox(daemon_id, sequence)
    return sequence
