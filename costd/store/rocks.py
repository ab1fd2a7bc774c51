"""The daemon's store: RocksDB, with the values asks keep reading held decoded in memory."""

import contextlib
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rocksdict import ColumnFamily, DbClosedError, Rdict, RdictIter, ReadOptions, WriteBatch

from costd.engine.changes import Family
from costd.errors import CostdError, StoreCorrupt, StoreUnavailable
from costd.store.codec import FORMAT_VERSION, PACK_ERRORS, decode, encode, pack
from costd.store.port import Put
from costd.store.rocks_options import rocks_options

CACHED_COUNT_MAX: Final = {
    Family.COUNTERS: 16_384,
    Family.RATES: 16_384,
    Family.RESERVATIONS: 2_048,
}
"""Decoded values kept: about 0.6, 0.2 and 4 KiB each, 20 MiB together."""

FORMAT_FAMILY = "default"
FORMAT_KEY = b"format"

_UNKNOWN: Final = object()


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
        self._path = path
        if not _holds_files(path):
            _create(path)
        _check_whole(path)
        self._database = _open(path, create=False)
        self._columns: dict[Family, Rdict] = {}
        self._handles: dict[Family, ColumnFamily] = {}
        try:
            _check_format(path, self._database)
            for family in Family:
                self._columns[family] = self._database.get_column_family(family)
                self._handles[family] = self._database.get_column_family_handle(family)
        except BaseException:
            self.close()
            raise
        self._cached: dict[Family, OrderedDict[bytes, Any]] = {
            family: OrderedDict() for family in CACHED_COUNT_MAX
        }
        _remove_leftovers(path)

    def get(self, family: Family, key: bytes) -> Any | None:
        """Return the value under this key, None if there is none."""
        cached = self._cached.get(family)
        if cached is None:
            return self._read(family, key)
        value = cached.get(key, _UNKNOWN)
        if value is _UNKNOWN:
            # The one thread that writes is the one that reads here: nothing newer can be missed,
            # and "absent" is as good an answer as any.
            value = self._read(family, key)
            self._remember(family, cached, key, value)
        return value

    def commit(self, puts: Sequence[Put]) -> None:
        """Write all of it or nothing, as one RocksDB batch."""
        batch = WriteBatch(raw_mode=True)
        put, handles = batch.put, self._handles
        try:
            for family, key, value in puts:
                if value is None:
                    batch.delete(key, handles[family])
                else:
                    put(key, pack(value), handles[family])
        except PACK_ERRORS:
            for family, key, value in puts:
                encode(family, key, value)  # raises with the name of what cannot be written
            raise
        except KeyError as error:  # closing dropped the handles
            raise _translated(DbClosedError(), self._path, "write to") from error
        try:
            self._database.write(batch)
        except Exception as error:
            raise _translated(error, self._path, "write to") from error
        for family, key, value in puts:
            cached = self._cached.get(family)
            if cached is not None:
                self._remember(family, cached, key, value)

    def scan(
        self, family: Family, start: bytes = b"", end: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, Any]]:
        """Yield keys in `[start, end)` in order, backwards if asked, as of the call."""
        options = ReadOptions()
        if end is not None:
            options.set_iterate_upper_bound(end)
        try:
            cursor = self._columns[family].iter(options)
        except Exception as error:
            raise _translated(error, self._path, "read from") from error
        return self._walk(family, cursor, start, reverse=reverse)

    def delete_range(self, family: Family, start: bytes, end: bytes) -> None:
        """Delete every key in `[start, end)` with one tombstone."""
        if start >= end:
            return
        try:
            self._columns[family].delete_range(start, end)
        except Exception as error:
            raise _translated(error, self._path, "write to") from error
        cached = self._cached.get(family)
        if cached is not None:
            for key in [key for key in cached if start <= key < end]:
                del cached[key]

    def sync(self) -> None:
        """Return once RocksDB's log is on the disk."""
        try:
            self._database.flush_wal(sync=True)
        except Exception as error:
            raise _translated(error, self._path, "sync") from error

    def close(self) -> None:
        """Write everything out and let go of the directory.

        A scan that somebody still holds keeps RocksDB's lock until it is dropped.
        """
        self._cached = {}
        self._handles = {}
        for database in (*self._columns.values(), self._database):
            with contextlib.suppress(DbClosedError):
                database.close()

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

    def _read(self, family: Family, key: bytes) -> Any | None:
        try:
            data = self._columns[family].get(key)
        except Exception as error:
            raise _translated(error, self._path, "read from") from error
        return None if data is None else decode(family, key, data)

    def _remember(
        self, family: Family, cached: OrderedDict[bytes, Any], key: bytes, value: Any
    ) -> None:
        cached[key] = value
        cached.move_to_end(key)
        if len(cached) > CACHED_COUNT_MAX[family]:
            cached.popitem(last=False)

    def _walk(
        self, family: Family, cursor: RdictIter, start: bytes, *, reverse: bool
    ) -> Iterator[tuple[bytes, Any]]:
        if reverse:
            cursor.seek_to_last()
        else:
            cursor.seek(start)
        while cursor.valid():
            key = cursor.key()
            if key < start:
                break
            yield key, decode(family, key, cursor.value())
            if reverse:
                cursor.prev()
            else:
                cursor.next()
        try:
            cursor.status()  # a damaged table ends the walk like the last key does
        except Exception as error:
            raise _translated(error, self._path, "read from") from error


def _holds_files(path: Path) -> bool:
    try:
        return path.exists() and any(path.iterdir())
    except OSError as error:
        raise _unusable(path, error) from error


def _create(path: Path) -> None:
    """Make an empty store beside its place, and move it there whole.

    Ensures: a daemon killed halfway leaves nothing at `path`, so that whatever stands there was
             once a whole store and is never made anew.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=_leftover_prefix(path), dir=path.parent))
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        database = _open(made, create=True)
        database.put(FORMAT_KEY, b"%d" % FORMAT_VERSION)
        database.flush_wal(sync=True)
        database.close()
        made.rename(path)
    except OSError as error:
        raise _unusable(path, error) from error
    except CostdError:
        raise
    except Exception as error:
        raise _translated(error, path, "create") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _leftover_prefix(path: Path) -> str:
    return f".{path.name}.new-"


def _remove_leftovers(path: Path) -> None:
    """Clear away what a daemon killed in `_create` left; we hold the lock by now."""
    for leftover in path.parent.glob(f"{_leftover_prefix(path)}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _check_whole(path: Path) -> None:
    """Refuse what RocksDB would take for an empty or shorter store."""
    names = {entry.name for entry in path.iterdir()}
    if "CURRENT" not in names:
        missing = "has files but no CURRENT"
    elif not any(name.endswith(".log") for name in names):
        missing = "has lost its write-ahead log (*.log)"
    else:
        return
    raise StoreCorrupt(
        f"{path} {missing}: it is no store, or a damaged one, and is not made anew; "
        f"restore it from a backup, or name another directory"
    )


def _open(path: Path, *, create: bool) -> Rdict:
    try:
        families = [FORMAT_FAMILY, *Family]
        if not create:
            options = rocks_options(create=False)
            families = sorted({*families, *Rdict.list_cf(str(path), options)})
        options = rocks_options(create=create)
        return Rdict(str(path), options, column_families=dict.fromkeys(families, options))
    except Exception as error:
        raise _translated(error, path, "open") from error


def _check_format(path: Path, database: Rdict) -> None:
    written = database.get(FORMAT_KEY)
    if written == b"%d" % FORMAT_VERSION:
        return
    if written is None or not written.isdigit():
        raise StoreCorrupt(
            f"{path} does not say which format it has (found {written!r}): it is not costd's, or "
            f"damaged; restore it from a backup, or name another directory"
        )
    raise StoreCorrupt(
        f"{path} has format {int(written)}, this costd reads format {FORMAT_VERSION}: it was "
        f"written by a newer costd; run that one, or name another directory"
    )


def _unusable(path: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        f"cannot use {path} for the store: {error.strerror or error}; name a directory "
        f"that uid {os.geteuid()} may write to"
    )


def _translated(error: Exception, path: Path, doing: str) -> CostdError:
    """Say what a failure of RocksDB means; its text is all that rocksdict passes on."""
    text = str(error)
    if isinstance(error, DbClosedError):
        return StoreUnavailable(f"cannot {doing} the store in {path}: it is closed; open it again")
    if "LOCK" in text and ("lock hold" in text or "temporarily unavailable" in text):
        return StoreUnavailable(
            f"another daemon holds {path}; stop it, or name another directory ({text})"
        )
    if "No space left" in text or "quota exceeded" in text:
        return StoreUnavailable(
            f"cannot {doing} the store in {path}: the disk is full; nothing was lost, and it goes "
            f"on by itself within seconds of room being made ({text})"
        )
    absent_at_open = doing == "open" and "No such file" in text
    if "Corruption" in text or "Invalid argument" in text or absent_at_open:
        return StoreCorrupt(
            f"cannot {doing} the store in {path}: it is damaged ({text}); "
            f"restore it from a backup, or name another directory"
        )
    return StoreUnavailable(
        f"cannot {doing} the store in {path}: {text}; mend the cause and start costd again"
    )
