"""The messages of `Fleet` ↔ the values that leases are reckoned with."""

from google.protobuf.duration_pb2 import Duration

from costd.model.lease import Lease, Level, Stand, Want
from costd.wire.pb import fleet_pb2 as pb


def stand_from_pb(message: pb.Stand) -> Stand:
    """Read how a daemon stands; the figures are checked where they are booked."""
    return Stand(*(getattr(message, name) for name in Stand.__struct_fields__))


def stand_to_pb(key: bytes, stand: Stand) -> pb.Stand:
    """Write how a daemon stands on one counter."""
    figures = {name: getattr(stand, name) for name in Stand.__struct_fields__}
    return pb.Stand(counter_key=key, **figures)


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
    held = Lease(
        amount=grant.amount, reserve_amount=grant.reserve_amount, version=grant.version
    )
    return lease_at(held, grant.level)


def duration(ns: int) -> Duration:
    """Write a span of time."""
    span = Duration()
    span.FromNanoseconds(ns)
    return span
