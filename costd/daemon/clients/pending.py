"""The books while one batch is gathered: later rules read what earlier ones will have written."""

from collections.abc import Sequence
from typing import Any

from costd.daemon.books.ledger import Ledger
from costd.engine.changes import Family
from costd.model.counter import Counter
from costd.model.grant import GrantRefusal, GrantUse
from costd.store.port import Put


class Pending:
    """Implements `costd.engine.ports.State` over the ledger's state and changes not yet written."""

    def __init__(self, ledger: Ledger) -> None:
        self._stored = ledger.state
        self._written: dict[tuple[Family, bytes], Any] = {}

    def absorb(self, puts: Sequence[Put]) -> None:
        """Take in what will be written."""
        for family, key, value in puts:
            self._written[family, key] = value

    def counter(self, key: bytes) -> Counter | None:
        """A counter as it will be."""
        found: Counter | None = self._written.get((Family.COUNTERS, key))
        return found or self._stored.counter(key)

    def rate(self, key: bytes) -> int | None:
        """A bucket as it will be."""
        found: int | None = self._written.get((Family.RATES, key))
        return self._stored.rate(key) if found is None else found

    def grant(self, grant_id: str) -> GrantUse | None:
        """A grant as it is; reports redeem none."""
        found: GrantUse | None = self._stored.grant(grant_id)
        return found

    @property
    def leases_until_ns(self) -> int:
        """Until when leases may be spent, as it is."""
        return self._stored.leases_until_ns

    def is_exhausted(self, key: bytes) -> bool:
        """What the coordinator said last, as it is."""
        return self._stored.is_exhausted(key)

    def refused_grant(self, key: bytes) -> GrantRefusal | None:
        """What the coordinator said last, as it is."""
        return self._stored.refused_grant(key)
