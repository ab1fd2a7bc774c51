"""What every store does, each behaviour once, over memory and RocksDB."""

from collections.abc import Iterator
from typing import Any

import pytest

from costd.engine.changes import Family
from costd.errors import InvariantBroken, StoreUnavailable
from costd.model.allowance import Allowance, Session, Sums
from costd.model.ask import Ask
from costd.model.counter import Counter
from costd.model.decision import Decision, Directives, Reason, Verdict, WouldPass
from costd.model.events import Alert, AuditRecord, UsageEvent
from costd.model.grant import GrantUse
from costd.model.kill import KillMode, KillSwitch
from costd.model.labels import Match, Selector
from costd.model.lease import Lease
from costd.model.price import Price, PriceSource, PriceTier, UnitPrice
from costd.model.reservation import CounterLine, Excuse, RateLine, Reservation, ReservationState
from costd.model.usage import CallOutcome, Usage
from costd.store.memory import MemoryStore
from costd.store.port import Store
from costd.store.rocks import POINT_DELETES_MAX, RocksStore

SOURCE = PriceSource("catalogue", "2026-01", "openai", "gpt-5", assumed=True)
ASK = Ask(ask_id="0192f0c1-7d3e-7000", labels={"team": "zürich 東京"}, units={"images": 2})
USAGE = Usage(prompt_tokens=0, output_tokens=5, units={"web_searches": 1})
DECISION = Decision(
    verdict=Verdict.DEGRADE,
    reason=Reason.STEP,
    ask_id=ASK.ask_id,
    directives=Directives(max_output_tokens=100, cache=True),
    would_pass=(WouldPass(tier="economy", provider="openai", model="gpt-5-nano"),),
    price=SOURCE,
)
RESERVATION = Reservation(
    reservation_id=b"\x00\xff" * 8,
    caller="uid:1000",
    ask=ASK,
    decision=DECISION,
    state=ReservationState.SETTLED,
    counters=(CounterLine(b"\x00k", "nusd", 5, 1, Excuse.GRANTED),),
    rates=(RateLine(b"\x01k", "calls", 1, 1_000, 3),),
    hold_nusd=5,
    ceiling_nusd=None,
    admitted_ns=2**62,
    admitted_steady_ns=1,
    due_ns=2,
    reported=USAGE,
    settled_price_id="p",
)
VALUES: dict[Family, Any] = {
    Family.COUNTERS: Counter(settled=2**63 - 1, reserved=1, limit=-1, lease=Lease(amount=2)),
    Family.RATES: 2**63 - 1,
    Family.RESERVATIONS: RESERVATION,
    Family.DUE: b"",
    Family.USAGE: UsageEvent(
        reservation_id=b"r", ask=ASK, tier="premium", provider="openai", model="gpt-5",
        cost_nusd=1, hold_nusd=2, admitted_ns=3, settled_ns=4, usage=USAGE, price=SOURCE,
        price_id="p", reason=1, closed_as="settled", outcome=CallOutcome.CANCELLED,
    ),
    Family.ALERTS: Alert(raised_ns=1, kind="step", rule="team", message="80 % used"),
    Family.AUDIT: AuditRecord(at_ns=1, actor="uid:0", action="engage", subject="k1", count=3),
    Family.KILLS: KillSwitch(
        kill_id="k1", scope=Selector((Match("team", frozenset({"a", "b"}), negated=True),)),
        mode=KillMode.MAX_TIER, reason="drill", actor="uid:0", engaged_ns=1,
    ),
    Family.GRANTS: GrantUse(grant_id="g1", issuer="sec", subject="ann", used_nusd=9),
    Family.ALLOWANCES: Allowance(
        allowance_id=b"a" * 16, session_id="s" * 16, caller="ann", granted=Sums(3, 30, 300),
        expires_steady_ns=5, call_ttl_ns=6, serial=7, drawn=Sums(1, 2, 3), presumed=True,
    ),
    Family.SESSIONS: Session(session_id="s" * 16, caller="ann", report_sequence=4, page="p"),
    Family.LEASES: b"",
    Family.PRICES: Price(
        price_id="p", source=SOURCE, context_window=8_192,
        units=(UnitPrice("input_tokens", 5, 10**6, (PriceTier(200_000, 9),), ("cached",)),),
    ),
    Family.META: b"\x00 any bytes \xff",
}  # fmt: skip


@pytest.fixture(params=["memory", "rocks"])
def store(request, tmp_path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else RocksStore(tmp_path / "store")
    yield opened
    opened.close()


def put_rates(store: Store, *keys: bytes) -> None:
    store.commit([(Family.RATES, key, number) for number, key in enumerate(keys)])


def rate_keys(store: Store, *bounds: bytes, reverse: bool = False) -> list[bytes]:
    return [key for key, _ in store.scan(Family.RATES, *bounds, reverse=reverse)]


@pytest.mark.parametrize("family", Family)
def test_every_family_gives_back_what_was_put(store, family):
    store.commit([(family, b"key", VALUES[family])])
    assert store.get(family, b"key") == VALUES[family]
    assert list(store.scan(family)) == [(b"key", VALUES[family])]


@pytest.mark.parametrize("family", Family)
def test_a_new_store_is_empty(store, family):
    assert store.get(family, b"key") is None
    assert list(store.scan(family)) == []


def test_families_do_not_share_keys(store):
    store.commit([(Family.RATES, b"key", 1), (Family.META, b"key", b"1")])
    assert store.get(Family.RATES, b"key") == 1
    assert store.get(Family.META, b"key") == b"1"
    assert store.get(Family.DUE, b"key") is None


def test_a_key_that_was_absent_is_seen_once_it_is_put(store):
    assert store.get(Family.COUNTERS, b"new") is None
    store.commit([(Family.COUNTERS, b"new", Counter(settled=1))])
    assert store.get(Family.COUNTERS, b"new") == Counter(settled=1)


def test_a_later_put_replaces_an_earlier_one(store):
    store.commit([(Family.RATES, b"key", 1)])
    store.commit([(Family.RATES, b"key", 2)])
    assert store.get(Family.RATES, b"key") == 2
    assert list(store.scan(Family.RATES)) == [(b"key", 2)]


def test_within_a_batch_the_last_write_of_a_key_wins(store):
    store.commit([(Family.RATES, b"a", 1), (Family.RATES, b"a", None), (Family.RATES, b"a", 3)])
    store.commit([(Family.RATES, b"b", 1), (Family.RATES, b"b", None)])
    assert list(store.scan(Family.RATES)) == [(b"a", 3)]
    assert store.get(Family.RATES, b"b") is None


@pytest.mark.parametrize("family", [Family.COUNTERS, Family.RATES, Family.META])
def test_none_deletes_a_key(store, family):
    store.commit([(family, b"key", VALUES[family]), (family, b"other", VALUES[family])])
    store.commit([(family, b"key", None)])
    assert store.get(family, b"key") is None
    assert [key for key, _ in store.scan(family)] == [b"other"]


def test_deleting_what_is_not_there_is_harmless(store):
    store.commit([(Family.RATES, b"key", None)])
    assert store.get(Family.RATES, b"key") is None


def test_a_false_value_is_a_value(store):
    store.commit([(Family.RATES, b"zero", 0), (Family.DUE, b"empty", b"")])
    assert store.get(Family.RATES, b"zero") == 0
    assert store.get(Family.DUE, b"empty") == b""
    store.commit([(Family.RATES, b"zero", None)])
    assert list(store.scan(Family.RATES)) == []


def test_an_empty_batch_changes_nothing(store):
    store.commit([])
    assert list(store.scan(Family.RATES)) == []


def test_a_batch_with_a_value_that_cannot_be_stored_writes_nothing_at_all(store):
    store.commit([(Family.RATES, b"a", 1)])
    with pytest.raises(InvariantBroken, match="counters/6b"):
        store.commit(
            [
                (Family.RATES, b"a", 2),
                (Family.COUNTERS, b"k", Counter(settled=2**64)),
                (Family.RATES, b"b", 3),
            ]
        )
    assert list(store.scan(Family.RATES)) == [(b"a", 1)]
    assert store.get(Family.RATES, b"a") == 1
    assert store.get(Family.COUNTERS, b"k") is None


def test_big_values_come_back(store):
    big = bytes(range(256)) * 20_000
    store.commit([(Family.META, b"big", big)])
    assert store.get(Family.META, b"big") == big
    assert store.size_bytes() >= len(big)


@pytest.mark.parametrize("key", [b"", b"\x00", b"\xff" * 40, "gruß".encode(), b"k" * 10_000])
def test_any_bytes_are_a_key(store, key):
    put_rates(store, key)
    assert store.get(Family.RATES, key) == 0
    assert rate_keys(store) == [key]


def test_scans_yield_keys_in_byte_order(store):
    keys = [b"\xff", b"b", b"", b"a", b"\x00", b"ab", b"a\x00"]
    put_rates(store, *keys)
    assert rate_keys(store) == sorted(keys)
    assert rate_keys(store, reverse=True) == sorted(keys, reverse=True)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((b"", b"c"), [b"a", b"b"]),
        ((b"b", b"d"), [b"b", b"c"]),
        ((b"b",), [b"b", b"c", b"d"]),
        ((b"bb", b"cc"), [b"c"]),
        ((b"b", b"b"), []),
        ((b"c", b"b"), []),
        ((b"", b""), []),
        ((b"e",), []),
    ],
)
def test_a_range_includes_its_start_and_excludes_its_end(store, bounds, expected):
    put_rates(store, b"a", b"b", b"c", b"d")
    assert rate_keys(store, *bounds) == expected
    assert rate_keys(store, *bounds, reverse=True) == expected[::-1]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_shows_the_store_as_it_was_at_the_call(store, reverse):
    put_rates(store, b"a", b"c", b"d")
    scan = store.scan(Family.RATES, reverse=reverse)
    store.commit([(Family.RATES, b"b", 7), (Family.RATES, b"c", None), (Family.RATES, b"", 7)])
    store.delete_range(Family.RATES, b"d", b"e")
    seen = [key for key, _ in scan]
    assert seen == ([b"d", b"c", b"a"] if reverse else [b"a", b"c", b"d"])
    assert rate_keys(store) == [b"", b"a", b"b"]


def test_what_a_scan_shows_may_be_deleted_while_it_runs(store):
    put_rates(store, *[b"%03d" % number for number in range(100)])
    for key, _ in store.scan(Family.RATES):
        store.commit([(Family.RATES, key, None)])
    assert rate_keys(store) == []


@pytest.mark.parametrize("count", [5, POINT_DELETES_MAX, POINT_DELETES_MAX + 1, 1_000])
def test_a_range_of_any_size_is_deleted_and_its_neighbours_stay(store, count):
    inside = [b"b%05d" % number for number in range(count)]
    store.commit([(Family.COUNTERS, key, Counter(settled=1)) for key in [b"a", *inside, b"c"]])
    assert store.get(Family.COUNTERS, inside[-1]) == Counter(settled=1)
    store.delete_range(Family.COUNTERS, b"b", b"c")
    assert [key for key, _ in store.scan(Family.COUNTERS)] == [b"a", b"c"]
    assert store.get(Family.COUNTERS, inside[-1]) is None
    assert store.get(Family.COUNTERS, b"c") == Counter(settled=1)


def test_many_entries_of_a_queue_leave_at_once(store):
    store.commit([(Family.DUE, b"%05d" % number, b"") for number in range(1_000)])
    store.delete_range(Family.DUE, b"", b"00900")
    assert [key for key, _ in store.scan(Family.DUE)] == [b"%05d" % n for n in range(900, 1_000)]


@pytest.mark.parametrize(("start", "end"), [(b"b", b"b"), (b"c", b"a"), (b"x", b"z")])
def test_deleting_an_empty_or_crossed_range_changes_nothing(store, start, end):
    put_rates(store, b"a", b"b", b"c")
    store.delete_range(Family.RATES, start, end)
    assert rate_keys(store) == [b"a", b"b", b"c"]


def test_a_deleted_range_can_be_filled_again(store):
    put_rates(store, b"a", b"b", b"c")
    store.delete_range(Family.RATES, b"", b"c")
    put_rates(store, b"b")
    assert rate_keys(store) == [b"b", b"c"]
    put_rates(store, b"a")
    assert rate_keys(store, b"", b"b") == [b"a"]


def test_a_queue_swept_from_the_front_shows_what_is_put_before_its_first_key(store):
    put_rates(store, b"c", b"d")
    assert rate_keys(store, b"", b"c") == []
    assert rate_keys(store) == [b"c", b"d"]
    put_rates(store, b"b")
    assert rate_keys(store) == [b"b", b"c", b"d"]
    store.delete_range(Family.RATES, b"", b"z")
    put_rates(store, b"a")
    assert rate_keys(store) == [b"a"]


def test_a_store_grows_by_what_is_put(store):
    before = store.size_bytes()
    store.commit([(Family.META, b"%d" % number, b"v" * 1_000) for number in range(100)])
    assert store.size_bytes() >= before + 100_000


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_ends_where_the_store_is_closed_meanwhile(store, reverse):
    store.commit([(Family.RATES, bytes([number]), number) for number in range(9)])
    walk = store.scan(Family.RATES, reverse=reverse)
    next(walk)
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        next(walk)


def test_a_closed_store_refuses_everything_and_may_be_closed_again(store):
    put_rates(store, b"a")
    store.sync()
    store.close()
    store.close()
    for refused in (
        lambda: store.get(Family.RATES, b"a"),
        lambda: store.get(Family.META, b"a"),
        lambda: store.commit([(Family.RATES, b"a", 1)]),
        lambda: list(store.scan(Family.RATES)),
        lambda: store.delete_range(Family.RATES, b"a", b"b"),
        store.sync,
    ):
        with pytest.raises(StoreUnavailable, match="closed"):
            refused()
