"""The daemon's store: RocksDB, with the values asks keep reading held decoded in memory."""

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rocksdict import ColumnFamily, DbClosedError, Rdict, RdictIter, ReadOptions, WriteBatch

from costd.engine.changes import Family
from costd.store.codec import PACK_ERRORS, decode, encode, pack
from costd.store.port import Put
from costd.store.rocks_directory import open_directory
from costd.store.rocks_errors import translated

CACHED_COUNT_MAX: Final = {
    Family.COUNTERS: 4_096,
    Family.RATES: 4_096,
    Family.RESERVATIONS: 1_024,
}
"""Decoded values kept, 0.6, 0.2 and 4 KiB each; past this a family's are all dropped at once,
which costs less than keeping an order of use, and the next asks fetch those in use again."""

POINT_DELETES_MAX = 256
"""From this many keys on, a range tombstone is the cheaper way to delete them."""


STORE_FOLDER: Final = "store"
"""The store's folder in a data directory, which may be a mount point with things of its own."""


class _Column:
    """One family's part of the database, with what is remembered of it.

    No key of the family stands below `floor`. Sweeps delete from the front, and RocksDB would
    step over every key they ever deleted, until a compaction, to find the first left. Only the
    thread that writes may raise it: a listing beside it could pass a new key by.
    """

    __slots__ = ("cache", "database", "floor", "handle")

    def __init__(self, database: Rdict, family: Family) -> None:
        self.database: Rdict = database.get_column_family(family)
        self.handle: ColumnFamily = database.get_column_family_handle(family)
        self.cache: dict[bytes, Any] | None = {} if family in CACHED_COUNT_MAX else None
        self.floor = b""

    def forget(self) -> None:
        """Let go of the handle, which keeps the database open."""
        self.cache = None
        if hasattr(self, "handle"):
            del self.handle


class RocksStore:
    """Implements `costd.store.port.Store` in one directory that nothing else may use.

    Exists to survive `kill -9`: what `commit` returned for is in RocksDB's log, in the hands of
    the operating system. Nothing outside this module sees rocksdict or its exceptions.
    """

    def __init__(self, path: Path) -> None:
        """Open the store, or make it where there is nothing.

        Errors:  StoreUnavailable (another daemon holds it, no permission, no room);
                 StoreCorrupt (damaged, or of a newer format). An existing store is never remade.
        """
        self._path = path.resolve()
        self._database = open_directory(self._path)
        self._columns = {family: _Column(self._database, family) for family in Family}
        self._caches = [
            (column.cache, CACHED_COUNT_MAX[family])
            for family, column in self._columns.items()
            if column.cache is not None
        ]
        self._writer = threading.get_ident()
        self._closed = False

    def get(self, family: Family, key: bytes) -> Any | None:
        """Return the value under this key, None if there is none."""
        column = self._columns[family]
        if column.cache is not None:
            value = column.cache.get(key)
            if value is not None:
                return value
        # What is only read is not kept: keys seen once would push out those in use.
        try:
            data = column.database.get(key)
        except Exception as error:
            raise translated(error, self._path, "read from") from error
        return None if data is None else decode(family, key, data)

    def commit(self, puts: Sequence[Put]) -> None:
        """Write all of it or nothing, as one RocksDB batch."""
        batch = WriteBatch(raw_mode=True)
        put, columns = batch.put, self._columns
        try:
            for family, key, value in puts:
                column = columns[family]
                if value is None:
                    batch.delete(key, column.handle)
                else:
                    put(key, pack(value), column.handle)
                    if key < column.floor:  # noqa: PLR1730  min() takes three times as long
                        column.floor = key
        except PACK_ERRORS:
            for family, key, value in puts:
                encode(family, key, value)  # raises with the name of what cannot be written
            raise
        except AttributeError as error:  # closing dropped the handles
            raise translated(DbClosedError(), self._path, "write to") from error
        try:
            self._database.write(batch)
        except Exception as error:
            raise translated(error, self._path, "write to") from error
        for family, key, value in puts:
            cache = columns[family].cache
            if cache is not None:
                cache[key] = value
        for cache, count_max in self._caches:
            if len(cache) > count_max:
                cache.clear()

    def scan(
        self, family: Family, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, Any]]:
        """Yield keys in `[start, end)` in order, backwards if asked, as of the call."""
        if reverse:
            cursor = self._cursor(family, end)
            cursor.seek_to_last()
        else:
            cursor = self._seek(family, start, end)
        return self._walk(family, cursor, start, reverse=reverse)

    def delete_range(self, family: Family, start: bytes, end: bytes) -> None:
        """Delete every key in `[start, end)`: a few one by one, many with one range tombstone.

        RocksDB sorts all range tombstones it holds in memory anew after each one, so that
        thousands of them, each for a handful of keys, would slow every read down.
        """
        cursor, keys = self._seek(family, start, end), list[bytes]()
        while cursor.valid() and len(keys) <= POINT_DELETES_MAX:
            keys.append(cursor.key())
            cursor.next()
        self._check_read(cursor)
        if not keys:
            return
        if len(keys) <= POINT_DELETES_MAX:
            self.commit([(family, key, None) for key in keys])
            return
        try:
            self._columns[family].database.delete_range(keys[0], end)
        except Exception as error:
            raise translated(error, self._path, "write to") from error
        cache = self._columns[family].cache
        if cache is not None:
            for key in [key for key in cache if start <= key < end]:
                del cache[key]

    def sync(self) -> None:
        """Return once RocksDB's log is on the disk."""
        try:
            self._database.flush_wal(sync=True)
        except Exception as error:
            raise translated(error, self._path, "sync") from error

    def close(self) -> None:
        """Write everything out and let go of the directory.

        A scan that somebody still holds keeps RocksDB's lock until it is dropped; its next step
        fails, so that a long listing in a thread does not keep the process from ending.

        Errors:  StoreUnavailable where RocksDB could not write out what its log already holds;
                 the directory is let go all the same, and the next start replays the log.
        """
        self._closed = True
        for column in self._columns.values():
            column.forget()
        failed: Exception | None = None
        for database in (*(column.database for column in self._columns.values()), self._database):
            try:
                database.close()
            except DbClosedError:
                continue
            except Exception as error:  # noqa: BLE001  the others must be closed first
                failed = error
        if failed is not None:
            raise translated(failed, self._path, "close") from failed

    def size_bytes(self) -> int:
        """Add up the files of the directory, RocksDB's log included."""
        total = 0
        with os.scandir(self._path) as entries:
            for entry in entries:
                try:
                    total += entry.stat(follow_symlinks=False).st_size
                except FileNotFoundError:  # compacted away while we looked
                    continue
        return total

    def _cursor(self, family: Family, end: bytes | None) -> RdictIter:
        options = ReadOptions()
        if end is not None:
            options.set_iterate_upper_bound(end)
        try:
            return self._columns[family].database.iter(options)
        except Exception as error:
            raise translated(error, self._path, "read from") from error

    def _seek(self, family: Family, start: bytes, end: bytes | None) -> RdictIter:
        """Stand on the first key in `[start, end)`, and raise the floor to it where it can be."""
        column = self._columns[family]
        floor = column.floor
        cursor = self._cursor(family, end)
        cursor.seek(max(start, floor))
        raises = start <= floor and threading.get_ident() == self._writer
        if cursor.valid():
            if raises:
                column.floor = cursor.key()
        else:
            self._check_read(cursor)
            if raises and end is not None and floor < end:
                column.floor = end
        return cursor

    def _walk(
        self, family: Family, cursor: RdictIter, start: bytes, *, reverse: bool
    ) -> Iterator[tuple[bytes, Any]]:
        step = cursor.prev if reverse else cursor.next
        while cursor.valid():
            key = cursor.key()
            if key < start:
                return
            yield key, decode(family, key, cursor.value())
            if self._closed:
                raise translated(DbClosedError(), self._path, "read from")
            step()
        self._check_read(cursor)

    def _check_read(self, cursor: RdictIter) -> None:
        """Tell the end of the range from a table that cannot be read: both end a walk."""
        try:
            cursor.status()
        except Exception as error:
            raise translated(error, self._path, "read from") from error
