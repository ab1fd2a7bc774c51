"""Who may enrol as which daemon, and what its stands say of rows that were restored."""

from costd.coordinator.rows import Daemon, Share
from costd.engine import keys
from costd.errors import LateEnrol, NotPermitted
from costd.model.lease import NO_STAND, Stand
from costd.wire.pb import fleet_pb2 as pb


def check_enrol(known: Daemon, message: pb.Enrol, peer: str) -> None:
    """Let a daemon enrol, or refuse it.

    Shape:   `known` is what was heard of these books last; `peer` is the name that a certificate
             says, empty where nothing certifies it.
    Errors:  NotPermitted where those books were enrolled under another name; LateEnrol for an
             Enrol from before what the daemon has said since, which was late on its way, or comes
             from books that were restored. Whoever is told that says so at the next one, and names
             the epoch it was told; so one that was late on its way is known also then.
    """
    if peer and known.name not in {"", peer}:
        raise NotPermitted(
            f"daemon {known.daemon_id!r} is {known.name!r}, and this certificate says {peer!r}; "
            "issue one for its name, or begin new books in an empty data directory"
        )
    if message.epoch < known.spoken_epoch:
        raise LateEnrol(
            f"this Enrol of daemon {known.daemon_id!r} is late: it is from before epoch "
            f"{known.spoken_epoch}, in which the daemon has spoken since",
            known.spoken_epoch,
        )


def has_forgotten(share: Share | None, key: bytes, stand: Stand, now_ns: int) -> bool:
    """Tell whether a daemon was granted more, of a window that lasts, than the rows know."""
    known = share.stand if share is not None else NO_STAND
    has_more = stand.version > known.version and stand.amount > known.amount
    return has_more and keys.split_counter_key(key)[0] > now_ns
