from costd.engine.horizon import CATCH_UP, Horizon
from costd.model.time import NS_PER_S, Now

YEAR_NS = 365 * 86_400 * NS_PER_S


def test_the_horizon_follows_a_clock_that_goes_as_it_should():
    horizon = Horizon.at(Now(100, 10)).moved(Now(105, 15))
    assert horizon == Horizon(105, 15)


def test_a_clock_that_jumps_ahead_gains_little():
    horizon = Horizon.at(Now(0, 0)).moved(Now(YEAR_NS, 600 * NS_PER_S))
    assert horizon.wall_ns == CATCH_UP * 600 * NS_PER_S


def test_a_clock_that_jumps_back_takes_the_horizon_with_it_at_once():
    assert Horizon(YEAR_NS, 5).moved(Now(7, 6)) == Horizon(7, 6)


def test_arrears_are_made_good_in_time():
    month_ns = 30 * 86_400 * NS_PER_S
    steady_ns = month_ns // CATCH_UP
    assert Horizon.at(Now(0, 0)).moved(Now(month_ns, steady_ns)).wall_ns == month_ns


def test_no_time_passes_backwards():
    assert Horizon(50, 9).moved(Now(60, 3)) == Horizon(50, 9)


def test_a_stop_gains_nothing():
    assert Horizon(50, 9).resumed(Now(YEAR_NS, 100)) == Horizon(50, 100)
    assert Horizon(50, 9).resumed(Now(40, 0)) == Horizon(40, 0)
