"""The record of calls that were refused."""

import contextlib
from typing import Final

from costd.daemon.ledger import Ledger
from costd.daemon.tallies import HOUR_NS
from costd.engine import keys
from costd.engine.changes import Changes, Family
from costd.errors import StoreUnavailable
from costd.model.events import AuditRecord
from costd.serving.guard import Refused

REFUSED: Final = "call_refused"
"""The action under which refused calls are audited."""


def audit_refusal(ledger: Ledger, refused: Refused) -> None:
    """Count a refusal by hour, caller, method and kind; a storm of them cannot fill a disk.

    The record tells of the last one. One that cannot be written is lost: nobody is let in for it.
    """
    error, service, method, actor, address = refused
    changes = Changes()
    at_ns = ledger.clock.now().wall_ns
    kind = type(error).__name__
    digest = keys.digest(f"{REFUSED} {service} {method} {actor} {kind}")
    key = keys.sequence_key(at_ns - at_ns % HOUR_NS) + digest
    before: AuditRecord | None = ledger.store.get(Family.AUDIT, key)
    record = AuditRecord(
        at_ns=at_ns,
        actor=actor,
        action=REFUSED,
        subject=method,
        detail=f"{error} (from {address})",
        count=before.count + 1 if before else 1,
    )
    changes.put(Family.AUDIT, key, record)
    with contextlib.suppress(StoreUnavailable):
        ledger.commit(changes)
