"""Who may make which call of the Control service, and the record of those who may not."""

from typing import Final

from costd.daemon.ledger import HOUR_NS, Ledger
from costd.engine import keys
from costd.engine.changes import Changes, Family
from costd.errors import CostdError, NotPermitted, StoreUnavailable, Unauthenticated
from costd.model.events import AuditRecord
from costd.trust.identity import Authenticator, Connection, Identity
from costd.trust.roles import require

REFUSED: Final = "call_refused"
"""The action under which refused calls are audited."""


class Guard:
    """Lets calls of one service pass, or refuses and audits them."""

    def __init__(self, service: str, authenticator: Authenticator, ledger: Ledger) -> None:
        self._service = service
        self._authenticator = authenticator
        self._ledger = ledger

    def check(self, context: Connection, method: str) -> Identity:
        """Say who calls, if they may.

        Errors: Unauthenticated, NotPermitted; audited.
        """
        actor = ""
        try:
            identity = self._authenticator.identify(context)
            actor = identity.actor or identity.shown
            require(identity, self._service, method)
        except (Unauthenticated, NotPermitted) as refusal:
            try:
                self._audit(refusal, actor, method, str(context.peer()))
            except StoreUnavailable as unwritten:  # a full disk must not let anybody in
                raise refusal from unwritten
            raise
        return identity

    def _audit(self, refusal: CostdError, actor: str, method: str, address: str) -> None:
        """Count a refusal by hour, caller, method and kind; a storm of them cannot fill a disk.

        The record tells of the last one.
        """
        ledger, changes = self._ledger, Changes()
        at_ns = ledger.clock.now().wall_ns
        kind = type(refusal).__name__
        digest = keys.digest(f"{REFUSED} {self._service} {method} {actor} {kind}")
        key = keys.sequence_key(at_ns - at_ns % HOUR_NS) + digest
        before: AuditRecord | None = ledger.store.get(Family.AUDIT, key)
        record = AuditRecord(
            at_ns=at_ns,
            actor=actor,
            action=REFUSED,
            subject=method,
            detail=f"{refusal} (from {address})",
            count=before.count + 1 if before else 1,
        )
        changes.put(Family.AUDIT, key, record)
        ledger.commit(changes)
