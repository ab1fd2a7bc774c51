"""Making a store's directory, and refusing one that is not whole."""

import os
import shutil
import tempfile
from pathlib import Path

from rocksdict import Rdict

from costd.engine.changes import Family
from costd.errors import CostdError, StoreCorrupt
from costd.store.codec import FORMAT_VERSION
from costd.store.rocks_errors import translated, unusable
from costd.store.rocks_options import rocks_options

FORMAT_FAMILY = "default"
FORMAT_KEY = b"format"
"""Apart from the ledger's families, so that META holds what the ledger put there and no more."""


def open_directory(path: Path) -> Rdict:
    """Open the store in this directory, or make one where there is nothing.

    Errors:  StoreUnavailable (another daemon holds it, no permission, no room);
             StoreCorrupt (damaged, or of a newer format). What exists is never made anew.
    """
    if not _holds_files(path):
        _create(path)
    _check_whole(path)
    database = _open(path, create=False)
    try:
        _check_format(path, database)
    except BaseException:
        database.close()
        raise
    _remove_leftovers(path)
    return database


def _holds_files(path: Path) -> bool:
    try:
        return path.exists() and any(path.iterdir())
    except OSError as error:
        raise unusable(path, error) from error


def _create(path: Path) -> None:
    """Make an empty store beside its place, and move it there whole.

    Ensures: a daemon killed halfway leaves nothing at `path`, so that whatever stands there was
             once a whole store and is never made anew.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=_leftover_prefix(path), dir=path.parent))
    except OSError as error:
        raise unusable(path, error) from error
    try:
        database = _open(made, create=True)
        database.put(FORMAT_KEY, b"%d" % FORMAT_VERSION)
        database.flush_wal(sync=True)
        database.close()
        made.rename(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise unusable(path, error) from error
    except CostdError:
        raise
    except Exception as error:
        raise translated(error, path, "create") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _leftover_prefix(path: Path) -> str:
    return f".{path.name}.new-"


def _remove_leftovers(path: Path) -> None:
    """Clear away what a daemon killed in `_create` left; we hold the lock by now."""
    for beside in path.parent.iterdir():
        if beside.name.startswith(_leftover_prefix(path)):
            shutil.rmtree(beside, ignore_errors=True)


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
    options = rocks_options(create=create)
    try:
        families = [FORMAT_FAMILY, *Family]
        if not create:  # RocksDB wants every family named, those of a newer costd too
            families = sorted({*families, *Rdict.list_cf(str(path), options)})
        return Rdict(str(path), options, column_families=dict.fromkeys(families, options))
    except Exception as error:
        raise translated(error, path, "open") from error


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
