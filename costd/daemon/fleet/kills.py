"""The fleet's kill switches at one daemon: the later state of each is in force."""

from costd.daemon.books.ledger import Ledger
from costd.engine.changes import Family
from costd.model.kill import KillSwitch
from costd.wire import fleet as wire
from costd.wire.pb import fleet_pb2 as pb


def put_in_force(ledger: Ledger, message: pb.KillList) -> int:
    """Take over what is later than what this daemon knows; returns how many changed.

    Ensures: each change is one batch with its audit record, and is told to every client.
    Errors:  StoreUnavailable; what was written until then is in force.
    """
    changed = 0
    for each in message.kills:
        switch = wire.kill_from_pb(each, ledger.clock.now())
        known: KillSwitch | None = ledger.store.get(Family.KILLS, switch.kill_id.encode())
        if known is not None and known.changed_ns >= switch.changed_ns:
            continue
        released = bool(switch.released_ns)
        ledger.put_kill(
            switch,
            action="kill_released" if released else "kill_engaged",
            actor=switch.released_by if released else switch.actor,
            detail=f"by the coordinator: {switch.reason}",
        )
        changed += 1
    return changed
