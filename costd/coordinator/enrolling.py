"""Who may enrol as which daemon, who is gone, and what is told of rows that were restored."""

from collections.abc import Mapping

from costd.coordinator.lendable import Span
from costd.coordinator.rows import Daemon, Rows, Share
from costd.engine import keys
from costd.engine.lend import presumed
from costd.errors import LateEnrol, NotPermitted, StillSpending
from costd.model.lease import NO_STAND, Stand
from costd.model.time import NEVER_NS, NS_PER_S
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
    epoch, sequence = known.epoch, known.sequence
    if sequence < 0:  # it was given up: no stream has that epoch
        epoch, sequence = epoch - 1, -1 - sequence
    return (
        message.epoch > epoch
        or message.heard_epoch > known.spoken_epoch
        or (message.heard_epoch == epoch and message.heard_sequence > sequence)
    )


def was_given_up(known: Daemon, message: pb.Enrol) -> bool:
    """Tell whether a daemon has not been heard since it was given up, or forgotten."""
    return known.sequence < 0 and not has_forgotten(known, message)


def is_taken(before: Share | None, stated: Stand | None, *, was_given_up: bool) -> bool:
    """Tell whether a daemon must be told that a lease was taken back from it.

    Shape:   `before` is what is known of it. Of a daemon that was given up, what is not known was
             forgotten after it was taken, or by a database that was restored before that.
    """
    if before is not None:
        return before.is_reclaimed
    return was_given_up and stated is not None and presumed(stated) > 0


def has_forgotten_grants(
    rows: Rows,
    daemon_id: str,
    stated: Mapping[bytes, Stand],
    now_ns: int,
    *,
    was_given_up: bool = False,
) -> bool:
    """Tell whether a daemon was granted more, of a window that lasts, than this database knows.

    Shape:   of a run that was idle for long nothing is known, as `Forgets.counters` has it; a
             daemon whose books still have it may use nothing more of it. Nor is anything known of
             what was taken from a daemon that was then forgotten; it is told so (`is_taken`).
    """
    for key, stand in stated.items():
        share, end_ns = rows.share(key, daemon_id), keys.split_counter_key(key)[0]
        known = share.stand if share is not None else NO_STAND
        has_more = stand.version > known.version and stand.amount > known.amount
        is_over = share is None and end_ns >= NEVER_NS and not presumed(stand)
        is_told = share is None and was_given_up
        if has_more and end_ns > now_ns and not (is_over or is_told):
            return True
    return False


def check_reclaim(daemon: Daemon, from_ns: int, *, now_ns: int, span: Span) -> None:
    """Let what a daemon holds be taken from it, or refuse that.

    Units:   from `from_ns` on, all that live have been heard here. A database that was restored
             knows nothing of later renewals: a tenure that it says is over may last.
    Errors:  StillSpending while its tenure lasts, with the skew a clock may have: it may spend.
    """
    ends_ns = daemon.tenure_ends_ns + span.skew_ns_max
    if now_ns < ends_ns:
        raise StillSpending(
            f"daemon {daemon.name!r} may still spend what it holds; stop it, or wait "
            f"{(ends_ns - now_ns) / NS_PER_S:.1f} s more"
        )
    if now_ns < from_ns:
        raise StillSpending(
            f"daemon {daemon.name!r} may still spend what it holds: this coordinator has just "
            "begun to listen, or its database was restored, and not all that live have joined yet; "
            f"wait {(from_ns - now_ns) / NS_PER_S:.1f} s more"
        )
