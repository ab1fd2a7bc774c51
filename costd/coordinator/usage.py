"""Usage events of daemons: each stored exactly once, in order.

They have a row and transactions of their own, so that storing many holds up nobody's leases.
"""

from collections.abc import Iterable

import msgspec

from costd.coordinator.rows import Daemon, Outbox, Rows
from costd.errors import InvalidAsk, StaleEpoch
from costd.model.events import Alert
from costd.wire.pb import control_pb2


def begun(rows: Rows, daemon: Daemon, first_sequence: int, now_ns: int) -> int:
    """Return how far a daemon's events are stored, as it enrols.

    Shape:   `first_sequence` is the oldest that it still has, or else the next that it will have.
             Where events before it are missing here, this database once stored them, and lost
             them; it goes on behind them, with an alert.
    """
    stored = rows.outboxes[daemon.daemon_id].usage_sequence
    missing = first_sequence - 1 - stored if first_sequence else 0
    sequence = stored + max(0, missing)
    rows.put_outbox(daemon.daemon_id, Outbox(usage_sequence=sequence, epoch=daemon.epoch))
    if sequence == stored:
        return stored
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
    return sequence


def store(rows: Rows, daemon_id: str, epoch: int, events: Iterable[control_pb2.UsageEvent]) -> int:
    """Have the events stored that are not yet; returns the newest that is.

    Errors:  StaleEpoch from a stream that is over; InvalidAsk where events between the newest
             stored and the first are missing.
    """
    outbox = rows.outboxes[daemon_id]
    if outbox.epoch != epoch:
        raise StaleEpoch(
            f"this stream of daemon {daemon_id!r} is over: its epoch {epoch} is not "
            f"{outbox.epoch}; enrol anew"
        )
    sequence = outbox.usage_sequence
    for event in events:
        if event.sequence <= sequence:
            continue
        if event.sequence != sequence + 1:
            raise InvalidAsk(
                f"usage event {event.sequence} came after {sequence}; send those between"
            )
        rows.usage.append((daemon_id, event))
        sequence = event.sequence
    if sequence != outbox.usage_sequence:
        rows.put_outbox(daemon_id, msgspec.structs.replace(outbox, usage_sequence=sequence))
    return sequence
