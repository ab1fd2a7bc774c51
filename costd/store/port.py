"""What the ledger needs of a store."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from costd.engine.changes import Family

Put = tuple[Family, bytes, Any]
"""One write: family, key, value; a value of None deletes the key."""


class Store(Protocol):
    """Ordered maps from bytes to values, one per family, written in atomic batches.

    Implemented by `RocksStore` for the daemon and by `MemoryStore` for tests and simulations;
    tests/contract/test_store.py holds both to the same behaviour. Exists so that the rules and
    the ledger run the same over either. One thread writes; it alone may read what it just wrote.
    """

    def get(self, family: Family, key: bytes) -> Any | None:
        """Return the value under this key, None if there is none.

        Errors:  StoreCorrupt for a value that cannot be read back; StoreUnavailable once closed.
        """
        ...

    def commit(self, puts: Sequence[Put]) -> None:
        """Write all of it or nothing; later writes to the same key win.

        Ensures: once it returns, the writes survive the death of this process (see `sync`).
        Errors:  StoreUnavailable, InvariantBroken for a value no store can hold; after either
                 nothing of the batch is visible, now or after a restart.
        """
        ...

    def scan(
        self, family: Family, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, Any]]:
        """Yield keys in `[start, end)` in order, backwards if asked, as of the call.

        Errors:  StoreCorrupt where a part of the range cannot be read, never a shorter listing;
                 StoreUnavailable once closed, also in the middle of a walk.
        """
        ...

    def delete_range(self, family: Family, start: bytes, end: bytes) -> None:
        """Delete every key in `[start, end)`, all at once; nothing if the two are crossed."""
        ...

    def sync(self) -> None:
        """Return once everything committed before the call survives a power failure.

        The one method that another thread may call, so that a slow disk holds up no decision.
        """
        ...

    def close(self) -> None:
        """Give the store up, everything in it safe; closing twice is harmless."""
        ...

    def size_bytes(self) -> int:
        """Measure what the store occupies where it is kept."""
        ...
