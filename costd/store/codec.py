"""Values to bytes and back, one type per family."""

from collections.abc import Callable
from typing import Any

import msgspec

from costd.engine.changes import Family
from costd.errors import InvariantBroken, StoreCorrupt
from costd.model.allowance import Allowance, Session
from costd.model.counter import Counter
from costd.model.events import Alert, AuditRecord, UsageEvent
from costd.model.grant import GrantUse
from costd.model.kill import KillSwitch
from costd.model.price import Price
from costd.model.reservation import Reservation

FORMAT_VERSION = 1
"""Raised by a change that an older costd would misread; a field appended to a value is none."""

VALUE_TYPES: dict[Family, type] = {
    Family.COUNTERS: Counter,
    Family.RATES: int,
    Family.RESERVATIONS: Reservation,
    Family.DUE: bytes,
    Family.USAGE: UsageEvent,
    Family.ALERTS: Alert,
    Family.AUDIT: AuditRecord,
    Family.KILLS: KillSwitch,
    Family.GRANTS: GrantUse,
    Family.ALLOWANCES: Allowance,
    Family.SESSIONS: Session,
    Family.LEASES: bytes,
    Family.PRICES: Price,
    Family.META: bytes,
}

_DECODE: dict[Family, Callable[[bytes], Any]] = {
    family: msgspec.msgpack.Decoder(value_type).decode for family, value_type in VALUE_TYPES.items()
}

pack = msgspec.msgpack.Encoder().encode
"""`encode` without its error message, for the hot path."""

PACK_ERRORS = (TypeError, ValueError, OverflowError, msgspec.MsgspecError)


def encode(family: Family, key: bytes, value: Any) -> bytes:
    """Write a value as msgpack.

    Errors:  InvariantBroken for a value that has no such form (an integer past 64 bits).
    """
    try:
        return pack(value)
    except PACK_ERRORS as error:
        raise InvariantBroken(
            f"a value for {family}/{key.hex()} cannot be stored: {error}; "
            f"nothing of its batch was written; please report this as a bug in costd"
        ) from error


def decode(family: Family, key: bytes, data: bytes) -> Any:
    """Read a value back; fields appended by a newer costd are skipped, missing ones default.

    Errors:  StoreCorrupt naming family and key.
    """
    try:
        return _DECODE[family](data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StoreCorrupt(
            f"the value of {family}/{key.hex()} cannot be read: {error}; "
            f"it was damaged or written by another costd; restore the store from a backup"
        ) from error
