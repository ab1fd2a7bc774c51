import time

import pytest

from costd.clock import DOWNTIME_NS_MAX, Stopped, SystemClock, downtime_ns, host_boot_id
from costd.engine.horizon import CATCH_UP, Horizon
from costd.model.time import NS_PER_S, Now
from costd.testing import FakeClock

HOUR_S = 3_600
DAY_S = 86_400
YEAR_S = 365 * DAY_S


def test_a_new_clock_starts_its_steady_time_at_zero_and_its_wall_time_at_the_hosts():
    before_ns = time.time_ns()
    now = SystemClock().now()
    assert 0 <= now.steady_ns < NS_PER_S
    assert before_ns <= now.wall_ns <= time.time_ns()


def test_steady_time_never_runs_backwards():
    clock = SystemClock()
    moments = [clock.now().steady_ns for _ in range(1_000)]
    assert moments == sorted(moments)


def test_a_restart_moves_steady_time_on_by_the_time_stopped():
    saved = Now(time.time_ns() - 90 * NS_PER_S, 1_000 * NS_PER_S)
    steady_ns = SystemClock(saved=saved).now().steady_ns
    assert 1_090 * NS_PER_S <= steady_ns < 1_091 * NS_PER_S


def test_a_wall_clock_set_back_during_a_stop_leaves_steady_time_where_it_was():
    saved = Now(time.time_ns() + YEAR_S * NS_PER_S, 1_000 * NS_PER_S)
    steady_ns = SystemClock(saved=saved).now().steady_ns
    assert 1_000 * NS_PER_S <= steady_ns < 1_001 * NS_PER_S


def test_a_wall_clock_set_a_year_ahead_during_a_stop_gains_a_day():
    saved = Now(time.time_ns() - YEAR_S * NS_PER_S, 0)
    steady_ns = SystemClock(saved=saved).now().steady_ns
    assert DOWNTIME_NS_MAX <= steady_ns < DOWNTIME_NS_MAX + NS_PER_S


@pytest.mark.parametrize(
    ("stopped_ns", "counted_ns"),
    [
        (-1, 0),
        (0, 0),
        (1, 1),
        (DOWNTIME_NS_MAX, DOWNTIME_NS_MAX),
        (DOWNTIME_NS_MAX + 1, DOWNTIME_NS_MAX),
    ],
)
def test_a_stop_counts_from_nothing_to_a_day(stopped_ns, counted_ns):
    assert downtime_ns(5 * NS_PER_S, 5 * NS_PER_S + stopped_ns) == counted_ns


def test_a_fake_clock_moves_only_when_told():
    clock = FakeClock(wall_ns=50, steady_ns=7)
    assert clock.now() == clock.now() == Now(50, 7)
    clock.advance(1.5)
    assert clock.now() == Now(50 + 1_500_000_000, 7 + 1_500_000_000)
    clock.jump_wall(-1)
    assert clock.now() == Now(50 + 500_000_000, 7 + 1_500_000_000)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def test_the_horizon_follows_a_sound_wall_clock():
    clock = FakeClock()
    horizon = Horizon.at(clock.now())
    for _ in range(10):
        clock.advance(30)
        horizon = horizon.moved(clock.now())
        assert horizon.wall_ns == clock.wall_ns


def test_the_horizon_gains_only_hours_while_the_wall_clock_is_a_year_ahead_for_minutes():
    clock = FakeClock()
    start_ns = clock.wall_ns
    horizon = Horizon.at(clock.now())
    clock.jump_wall(YEAR_S)
    for _ in range(600):
        clock.advance(1)
        horizon = horizon.moved(clock.now())
    assert horizon.wall_ns == start_ns + CATCH_UP * 600 * NS_PER_S
    clock.jump_wall(-YEAR_S)
    assert horizon.moved(clock.now()).wall_ns == clock.wall_ns


def test_the_horizon_follows_a_wall_clock_that_is_set_back_at_once():
    clock = FakeClock()
    horizon = Horizon.at(clock.now())
    clock.jump_wall(-YEAR_S)
    assert horizon.moved(clock.now()).wall_ns == clock.wall_ns


def test_the_horizon_stands_still_while_no_time_passes():
    clock = FakeClock()
    horizon = Horizon.at(clock.now())
    clock.jump_wall(YEAR_S)
    assert horizon.moved(clock.now()) == horizon


def test_a_stop_gains_the_horizon_nothing_and_arrears_are_made_good_while_running():
    clock = FakeClock()
    horizon = Horizon.at(clock.now())
    clock.advance(30 * DAY_S)
    horizon = horizon.resumed(clock.now())
    assert horizon.wall_ns == clock.wall_ns - 30 * DAY_S * NS_PER_S
    for _ in range(13):
        clock.advance(HOUR_S)
        horizon = horizon.moved(clock.now())
    assert horizon.wall_ns == clock.wall_ns


def test_a_store_resumed_under_a_clock_set_back_believes_the_clock():
    clock = FakeClock()
    horizon = Horizon.at(clock.now())
    clock.jump_wall(-DAY_S)
    assert horizon.resumed(clock.now()).wall_ns == clock.wall_ns


def test_the_horizon_does_not_run_back_with_a_steady_clock_that_lost_its_last_second():
    horizon = Horizon(wall_ns=100, steady_ns=50)
    assert horizon.moved(Now(500, 40)) == Horizon(wall_ns=100, steady_ns=50)


def stopped(*, boot_id="b1", wall_s=0, elapsed_s=0, steady_s=1_000):
    """Where a run left the clock, so long before now by each of the host's clocks."""
    elapsed_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - elapsed_s * NS_PER_S
    wall_ns = time.time_ns() - wall_s * NS_PER_S
    return Stopped(wall_ns, steady_s * NS_PER_S, boot_id, elapsed_ns)


@pytest.mark.parametrize("wall_s", [-YEAR_S, 0, 90, YEAR_S])
def test_within_one_boot_a_stop_counts_exactly_whatever_was_done_to_the_wall_clock(wall_s):
    clock = SystemClock(saved=stopped(wall_s=wall_s, elapsed_s=2 * DAY_S), boot_id="b1")
    assert clock.same_boot
    stopped_ns = 2 * DAY_S * NS_PER_S
    assert 0 <= clock.now().steady_ns - 1_000 * NS_PER_S - stopped_ns < NS_PER_S


@pytest.mark.parametrize(
    ("differing", "boot_id"),
    [
        ({}, "b2"),
        ({"boot_id": ""}, ""),  # a host that does not tell
        ({"elapsed_s": -HOUR_S}, "b1"),  # its elapsed time began anew
    ],
)
def test_over_a_reboot_or_what_may_be_one_the_wall_clock_tells_how_long_it_took(differing, boot_id):
    clock = SystemClock(saved=stopped(wall_s=90, **differing), boot_id=boot_id)
    assert not clock.same_boot
    assert 1_090 * NS_PER_S <= clock.now().steady_ns < 1_091 * NS_PER_S


def test_what_an_older_costd_saved_may_be_of_another_boot():
    assert not SystemClock(saved=Now(0, 0), boot_id="b1").same_boot


def test_a_clock_says_where_the_next_may_go_on():
    first = SystemClock(saved=stopped(), boot_id="b1")
    at = first.stopped()
    second = SystemClock(saved=at, boot_id="b1")
    assert at.boot_id == "b1"
    assert abs(second.now().steady_ns - first.now().steady_ns) < NS_PER_S // 10


def test_a_host_says_which_boot_it_is():
    assert host_boot_id() == SystemClock().boot_id
    assert len(host_boot_id()) in {0, 36}
