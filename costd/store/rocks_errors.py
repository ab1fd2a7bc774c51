"""What RocksDB's failures mean to costd, and what a person can do about them."""

import os
from pathlib import Path

from rocksdict import DbClosedError

from costd.errors import CostdError, StoreCorrupt, StoreUnavailable


def translated(error: Exception, path: Path, doing: str) -> CostdError:
    """Say what a failure of RocksDB means; its text is all that rocksdict passes on."""
    text = str(error)
    if isinstance(error, DbClosedError):
        return StoreUnavailable(f"cannot {doing} the store in {path}: it is closed; open it again")
    if "LOCK" in text and ("lock hold" in text or "temporarily unavailable" in text):
        return StoreUnavailable(
            f"another daemon holds {path}; stop it, or name another directory ({text})"
        )
    if "No space left" in text or "quota exceeded" in text:
        cure = (
            "make room and start costd again"
            if doing in {"open", "create"}
            else "it goes on by itself within seconds of room being made"
        )
        return StoreUnavailable(
            f"cannot {doing} the store in {path}: the disk is full; nothing was lost, {cure} "
            f"({text})"
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


def unusable(path: Path, error: OSError) -> StoreUnavailable:
    """Say what the operating system refused."""
    return StoreUnavailable(
        f"cannot use {path} for the store: {error.strerror or error}; name a directory of its "
        f"own, inside one that uid {os.geteuid()} may write to"
    )
