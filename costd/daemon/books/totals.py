"""Sums over the whole store that are kept, not counted: they survive kill -9 in every batch."""

from collections.abc import Sequence
from typing import Any

import msgspec

from costd.engine import keys
from costd.engine.changes import Family
from costd.errors import InvalidAsk
from costd.model.money import AMOUNT_MAX
from costd.model.reservation import Reservation
from costd.store.port import Store

_KEY = b"totals"
_APPENDED = {Family.USAGE: "usage_seq", Family.ALERTS: "alert_seq", Family.AUDIT: "audit_seq"}


class Totals(msgspec.Struct, array_like=True):
    """Open reservations and the next sequence numbers; mutable, written with every batch."""

    open_count: int = 0
    reserved_nusd: int = 0
    exposure_nusd: int = 0
    """Σ (ceiling − hold) over open reservations whose ceiling is known."""
    unknown_ceiling_count: int = 0
    usage_seq: int = 0
    alert_seq: int = 0
    audit_seq: int = 0

    @classmethod
    def load(cls, store: Store) -> "Totals":
        """Read them back, all zero for a new store."""
        raw = store.get(Family.META, _KEY)
        return cls() if raw is None else msgspec.msgpack.decode(raw, type=cls)

    def put(self) -> tuple[Family, bytes, bytes]:
        """The write that keeps them."""
        return Family.META, _KEY, _encode(self)

    def number(
        self, puts: list[tuple[Family, bytes, Any]], family: Family, records: Sequence[Any]
    ) -> None:
        """Give appended records their sequence numbers, without gaps."""
        name = _APPENDED[family]
        for record in records:
            sequence = getattr(self, name) + 1
            setattr(self, name, sequence)
            puts.append((family, keys.sequence_key(sequence), record))

    def last(self, family: Family) -> int:
        """Return the newest sequence number of a log."""
        sequence: int = getattr(self, _APPENDED[family])
        return sequence

    def opened(self, held: Reservation) -> None:
        """Count a reservation in.

        Errors:  InvalidAsk where all holds together would pass what can be counted.
        """
        self._check(held.hold_nusd, _exposure(held))
        self.open_count += 1
        self._add(held, 1)

    def closed(self, held: Reservation) -> None:
        """Count it out, as it was before it closed."""
        self.open_count -= 1
        self._add(held, -1)

    def changed(self, before: Reservation, after: Reservation) -> None:
        """Follow an extension.

        Errors:  InvalidAsk, as `opened`.
        """
        self._check(after.hold_nusd - before.hold_nusd, _exposure(after) - _exposure(before))
        self._add(before, -1)
        self._add(after, 1)

    def _check(self, more_nusd: int, exposed_nusd: int) -> None:
        for sum_nusd, added_nusd, what in (
            (self.reserved_nusd, more_nusd, "held"),
            (self.exposure_nusd, exposed_nusd, "exposed to beyond what is held"),
        ):
            if added_nusd > 0 and sum_nusd + added_nusd > AMOUNT_MAX:
                raise InvalidAsk(
                    f"{sum_nusd} nano-USD are {what} already; with {added_nusd} more they would "
                    f"pass {AMOUNT_MAX}, the most that can be counted; settle or void what is open"
                )

    def _add(self, held: Reservation, sign: int) -> None:
        self.reserved_nusd += sign * held.hold_nusd
        self.exposure_nusd += sign * _exposure(held)
        if held.ceiling_nusd is None:
            self.unknown_ceiling_count += sign


def _exposure(held: Reservation) -> int:
    return 0 if held.ceiling_nusd is None else held.ceiling_nusd - held.hold_nusd


_encode = msgspec.msgpack.Encoder().encode
