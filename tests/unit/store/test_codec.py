"""Values survive the way to bytes and back, and a newer or older costd reads them too."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costd.engine.changes import Family
from costd.errors import InvariantBroken, StoreCorrupt
from costd.model.ask import Ask
from costd.model.counter import Counter
from costd.model.decision import Decision, Reason, Verdict
from costd.model.reservation import Reservation, ReservationState
from costd.store.codec import VALUE_TYPES, decode, encode, pack

AMOUNTS = st.integers(min_value=-(2**63), max_value=2**64 - 1)


def test_every_family_has_a_value_type():
    assert set(VALUE_TYPES) == set(Family)


@given(amounts=st.lists(AMOUNTS, min_size=15, max_size=15))
def test_a_counter_comes_back_as_it_was_whatever_its_amounts(amounts):
    counter = Counter(*amounts)
    assert decode(Family.COUNTERS, b"k", encode(Family.COUNTERS, b"k", counter)) == counter


@given(full_ns=AMOUNTS)
def test_a_rate_comes_back_as_it_was(full_ns):
    assert decode(Family.RATES, b"k", encode(Family.RATES, b"k", full_ns)) == full_ns


@given(value=st.binary(max_size=100))
def test_bytes_come_back_as_they_were(value):
    assert decode(Family.META, b"k", encode(Family.META, b"k", value)) == value


def test_a_field_that_a_newer_costd_appended_is_skipped():
    newer = [*msgspec.to_builtins(Counter(settled=7, changed_ns=9)), "of tomorrow", {"a": 1}]
    assert decode(Family.COUNTERS, b"k", pack(newer)) == Counter(settled=7, changed_ns=9)


def test_fields_that_an_older_costd_did_not_write_take_their_defaults():
    assert decode(Family.COUNTERS, b"k", pack([7, 5])) == Counter(settled=7, reserved=5)


def test_a_reservation_that_was_stored_without_the_price_of_its_settle_is_read():
    held = Reservation(
        reservation_id=b"r",
        caller="",
        ask=Ask(ask_id="x" * 16),
        decision=Decision(verdict=Verdict.ALLOW, reason=Reason.OK, ask_id="x" * 16),
        state=ReservationState.SETTLED,
        counters=(),
        rates=(),
        hold_nusd=5,
        ceiling_nusd=None,
        admitted_ns=1,
        admitted_steady_ns=1,
        due_ns=2,
        closed_ns=3,
        settled_price_id="p",
    )
    fields = msgspec.to_builtins(held, builtin_types=(bytes,))
    assert fields[-2:] == [3, "p"]
    before = msgspec.structs.replace(held, settled_price_id="")
    assert decode(Family.RESERVATIONS, b"r", pack(fields[:-1])) == before
    assert decode(Family.RESERVATIONS, b"r", pack(fields)) == held


@pytest.mark.parametrize(
    ("family", "data"),
    [
        (Family.COUNTERS, b""),
        (Family.COUNTERS, b"\xc1"),
        (Family.COUNTERS, pack(["seven"])),
        (Family.RATES, pack("seven")),
        (Family.META, pack("text")),
        (Family.ALERTS, pack({"kind": "step"})),
        (Family.RESERVATIONS, pack([])),
        (Family.RATES, pack(7) + b"\x00"),
    ],
    ids=["empty", "no msgpack", "text for a number", "text for a time", "text for bytes",
         "fields missing", "no fields", "bytes left over"],
)  # fmt: skip
def test_a_value_that_cannot_be_read_names_its_family_and_key(family, data):
    with pytest.raises(StoreCorrupt, match=rf"{family}/00ff cannot be read.*restore"):
        decode(family, b"\x00\xff", data)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, object()], ids=["big", "small", "odd"])
def test_a_value_that_no_store_can_hold_is_a_bug_with_a_name(value: Any):
    with pytest.raises(InvariantBroken, match="rates/6b65 cannot be stored"):
        encode(Family.RATES, b"ke", value)
