"""A store in memory, for tests and simulations."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Any

from costd.engine.changes import Family
from costd.errors import StoreUnavailable
from costd.store.codec import encode
from costd.store.port import Put


class MemoryStore:
    """Implements `costd.store.port.Store`; gone with the process.

    Values are frozen, so they are kept as they are; each is encoded once to refuse what the
    real store would refuse.
    """

    def __init__(self) -> None:
        self._values: dict[Family, dict[bytes, Any]] = {family: {} for family in Family}
        self._keys: dict[Family, list[bytes]] = {family: [] for family in Family}
        self._closed = False

    def get(self, family: Family, key: bytes) -> Any | None:
        """Return the value under this key, None if there is none."""
        self._check_open()
        return self._values[family].get(key)

    def commit(self, puts: Sequence[Put]) -> None:
        """Write all of it or nothing."""
        self._check_open()
        for family, key, value in puts:
            encode(family, key, value)
        # All checks passed; only writes below.
        for family, key, value in puts:
            values, keys = self._values[family], self._keys[family]
            if value is None:
                if values.pop(key, None) is not None:
                    del keys[bisect_left(keys, key)]
                continue
            if key not in values:
                insort(keys, key)
            values[key] = value

    def scan(
        self, family: Family, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, Any]]:
        """Yield keys in `[start, end)` in order, backwards if asked, as of the call."""
        self._check_open()
        keys, values = self._keys[family], self._values[family]
        stop = len(keys) if end is None else bisect_left(keys, end)
        found = [(key, values[key]) for key in keys[bisect_left(keys, start) : stop]]
        return self._walk(reversed(found) if reverse else iter(found))

    def delete_range(self, family: Family, start: bytes, end: bytes) -> None:
        """Delete every key in `[start, end)`."""
        self._check_open()
        keys = self._keys[family]
        gone = slice(bisect_left(keys, start), bisect_left(keys, end))
        for key in keys[gone]:
            del self._values[family][key]
        del keys[gone]

    def sync(self) -> None:
        """Do nothing: memory survives no power failure."""
        self._check_open()

    def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True

    def size_bytes(self) -> int:
        """Measure keys and encoded values."""
        return sum(
            len(key) + len(encode(family, key, value))
            for family, values in self._values.items()
            for key, value in values.items()
        )

    def _walk(self, found: Iterator[tuple[bytes, Any]]) -> Iterator[tuple[bytes, Any]]:
        for each in found:
            yield each
            self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store in memory is closed; open a new one")
