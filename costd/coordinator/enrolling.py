"""Who may enrol as which daemon, and what its stands say of rows that were restored."""

from collections.abc import Mapping

from costd.coordinator.rows import Daemon, Rows
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


def has_forgotten(known: Daemon, message: pb.Enrol) -> bool:
    """Tell whether a daemon was receipted what this database does not know: it was restored."""
    is_of_now = message.heard_epoch == known.epoch
    return (
        message.epoch > known.epoch
        or message.heard_epoch > known.spoken_epoch
        or (is_of_now and message.heard_sequence > known.sequence)
    )


def has_forgotten_grants(
    rows: Rows, daemon_id: str, stated: Mapping[bytes, Stand], now_ns: int
) -> bool:
    """Tell whether a daemon was granted more, of a window that lasts, than this database knows."""
    for key, stand in stated.items():
        share = rows.share(key, daemon_id)
        known = share.stand if share is not None else NO_STAND
        has_more = stand.version > known.version and stand.amount > known.amount
        if has_more and keys.split_counter_key(key)[0] > now_ns:
            return True
    return False
