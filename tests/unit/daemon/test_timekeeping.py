import msgspec
import pytest

from costd.clock import DOWNTIME_NS_MAX
from costd.daemon.timekeeping import Timekeeper
from costd.engine.changes import Family
from costd.model.time import NS_PER_S, Now
from costd.store.memory import MemoryStore

HOUR_NS = 3_600 * NS_PER_S


@pytest.fixture
def store():
    return MemoryStore()


def saved(store):
    return msgspec.msgpack.decode(store.get(Family.META, b"clock"), type=Now)


def test_a_new_store_s_steady_clock_starts_at_zero(store):
    assert Timekeeper(store).clock.now().steady_ns < HOUR_NS


def test_the_clock_goes_on_from_where_it_was_saved(store):
    keeper = Timekeeper(store)
    keeper.save()
    at = saved(store)
    earlier = Now(at.wall_ns - HOUR_NS, 10 * HOUR_NS)
    store.commit([(Family.META, b"clock", msgspec.msgpack.encode(earlier))])
    assert 11 * HOUR_NS <= Timekeeper(store).clock.now().steady_ns < 12 * HOUR_NS


def test_a_clock_set_far_ahead_over_a_stop_gains_a_day_once_and_not_at_every_start(store):
    store.commit([(Family.META, b"clock", msgspec.msgpack.encode(Now(0, 0)))])
    for _ in range(3):
        keeper = Timekeeper(store)
        assert DOWNTIME_NS_MAX <= keeper.clock.now().steady_ns < DOWNTIME_NS_MAX + HOUR_NS
        keeper.save()


def test_what_a_start_gained_is_kept_though_the_daemon_is_killed_and_the_clock_set_back(store):
    store.commit([(Family.META, b"clock", msgspec.msgpack.encode(Now(0, 0)))])
    gained = Timekeeper(store).clock.now()
    ahead = Now(gained.wall_ns + HOUR_NS, saved(store).steady_ns)
    store.commit([(Family.META, b"clock", msgspec.msgpack.encode(ahead))])  # as if set back since
    assert Timekeeper(store).clock.now().steady_ns >= DOWNTIME_NS_MAX


def test_a_new_store_was_neither_rebooted_nor_left_in_disorder(store):
    keeper = Timekeeper(store, boot_id="b1")
    assert (keeper.rebooted, keeper.stopped_cleanly) == (False, True)


def test_within_one_boot_the_clock_goes_on_by_the_hosts_elapsed_time(store):
    before = Timekeeper(store, boot_id="b1").clock.now().steady_ns
    keeper = Timekeeper(store, boot_id="b1")
    assert not keeper.rebooted
    assert 0 <= keeper.clock.now().steady_ns - before < 60 * NS_PER_S


@pytest.mark.parametrize("boot_id", ["b2", ""])
def test_another_boot_or_one_that_nobody_knows_is_told(store, boot_id):
    Timekeeper(store, boot_id="b1").stop()
    keeper = Timekeeper(store, boot_id=boot_id)
    assert (keeper.rebooted, keeper.stopped_cleanly) == (True, True)


def test_what_an_older_costd_saved_may_be_of_another_boot(store):
    store.commit([(Family.META, b"clock", msgspec.msgpack.encode(Now(5, 7 * HOUR_NS)))])
    keeper = Timekeeper(store, boot_id="b1")
    assert (keeper.rebooted, keeper.stopped_cleanly) == (True, False)
    assert keeper.clock.now().steady_ns >= 7 * HOUR_NS


def test_a_run_that_was_killed_did_not_stop_cleanly_though_the_one_before_did(store):
    Timekeeper(store, boot_id="b1").stop()
    assert Timekeeper(store, boot_id="b1").stopped_cleanly
    keeper = Timekeeper(store, boot_id="b1")
    assert not keeper.stopped_cleanly
    keeper.save()
    assert not Timekeeper(store, boot_id="b1").stopped_cleanly
