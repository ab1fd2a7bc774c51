"""The messages of `Fleet` ↔ the values that leases are reckoned with."""

from google.protobuf.duration_pb2 import Duration

from costd.model.grant import GrantRefusal
from costd.model.kill import KillMode, KillSwitch
from costd.model.labels import Match, Selector
from costd.model.lease import Lease, Level, Stand, Want
from costd.model.time import Now
from costd.wire import kills
from costd.wire.pb import fleet_pb2 as pb


def stand_from_pb(message: pb.Stand) -> Stand:
    """Read how a daemon stands; the figures are checked where they are booked."""
    return Stand(*(getattr(message, name) for name in Stand.__struct_fields__))


def stand_to_pb(key: bytes, stand: Stand, *, unused_ns: int = 0) -> pb.Stand:
    """Write how a daemon stands on one counter; of a rate, how full was what it gives back."""
    figures = {name: getattr(stand, name) for name in Stand.__struct_fields__}
    return pb.Stand(counter_key=key, unused_ns=unused_ns, **figures)


def want_from_pb(message: pb.Want) -> Want:
    """Read what a daemon wants."""
    return Want(
        stand=stand_from_pb(message.stand),
        amount_min=message.amount_min,
        amount_wanted=message.amount_wanted,
        critical=message.critical,
    )


def want_to_pb(key: bytes, want: Want) -> pb.Want:
    """Write what a daemon wants."""
    return pb.Want(
        stand=stand_to_pb(key, want.stand),
        amount_min=want.amount_min,
        amount_wanted=want.amount_wanted,
        critical=want.critical,
    )


def level_to_pb(key: bytes, level: Level) -> pb.Level:
    """Write how the fleet stands on one counter."""
    return pb.Level(
        counter_key=key,
        limit=level.limit,
        reserve=level.reserve,
        others_used=level.others_used,
        others_reserve_used=level.others_reserve_used,
    )


def lease_at(held: Lease | None, level: pb.Level) -> Lease:
    """Tell a lease how the fleet stands now; what may be used stays as it was."""
    held = held or Lease()
    return Lease(
        amount=held.amount,
        reserve_amount=held.reserve_amount,
        version=held.version,
        limit=level.limit,
        reserve=level.reserve,
        others_used=level.others_used,
        others_reserve_used=level.others_reserve_used,
    )


def lease_granted(grant: pb.Grant) -> Lease:
    """Make the lease that a grant gives."""
    held = Lease(amount=grant.amount, reserve_amount=grant.reserve_amount, version=grant.version)
    return lease_at(held, grant.level)


def grant_refusal(number: int) -> GrantRefusal:
    """Read why a coordinator refuses a grant; one that this release does not know is MALFORMED."""
    try:
        return GrantRefusal(number)
    except ValueError:
        return GrantRefusal.MALFORMED


def kill_to_pb(switch: KillSwitch) -> pb.FleetKill:
    """Write a kill switch for daemons."""
    return pb.FleetKill(
        kill=kills.kill_to_pb(switch, engaged=not switch.released_ns),
        scope=[
            pb.ScopeMatch(key=match.key, values=sorted(match.values), negated=match.negated)
            for match in switch.scope.matches
        ],
    )


def kill_from_pb(message: pb.FleetKill, now: Now) -> KillSwitch:
    """Read a kill switch of the fleet; its automatic release is reckoned on this host's clocks."""
    kill = message.kill
    return KillSwitch(
        kill_id=kill.kill_id,
        scope=Selector(
            tuple(
                Match(match.key, frozenset(match.values), negated=match.negated)
                for match in message.scope
            )
        ),
        mode=KillMode(kill.mode),
        max_tier=kill.max_tier,
        reason=kill.reason,
        actor=kill.actor,
        engaged_ns=kill.engaged_ns,
        releases_ns=kill.releases_ns,
        releases_steady_ns=(
            max(1, now.steady_ns + kill.releases_ns - now.wall_ns) if kill.releases_ns else 0
        ),
        released_ns=kill.released_ns,
        released_by=kill.released_by,
        is_fleets=True,
    )


def duration(ns: int) -> Duration:
    """Write a span of time."""
    span = Duration()
    span.FromNanoseconds(ns)
    return span
