"""What a daemon keeps of its tenancy over a restart."""

from typing import Final

import msgspec

from costd.engine.changes import Family
from costd.store.port import Store

_META_KEY: Final = b"tenancy"


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """The newest epoch and what was heard in it, until when leases last, and of which boot."""

    daemon_id: str
    epoch: int = 0
    heard_epoch: int = 0
    heard_sequence: int = 0
    """The newest report that was receipted, and its epoch."""
    until_steady_ns: int = 0
    """What is leased may be spent until then."""
    books_are_old: bool = False
    """Whether the books may lack what was promised last; kept until the coordinator has heard."""
    usage_kept: int = 0
    """Then: the newest usage event that they had. The coordinator may know of later ones."""
    boot_id: str = ""
    """Of the host's run in which all that was held before was given up."""

    @classmethod
    def read(cls, store: Store) -> "Remembered | None":
        """Read what the last run left; None if these books were in no fleet yet."""
        raw = store.get(Family.META, _META_KEY)
        return msgspec.msgpack.decode(raw, type=cls) if raw else None

    def write(self, store: Store) -> None:
        """Keep it.

        Errors:  StoreUnavailable.
        """
        store.commit([(Family.META, _META_KEY, msgspec.msgpack.encode(self))])
