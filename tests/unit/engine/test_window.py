from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from policy_parts import budget, policy
from scenario import play

from costd.engine.window import window_bounds
from costd.model.policy import Window, WindowKind
from costd.model.time import NEVER_NS, NS_PER_S


def ns(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * NS_PER_S


def utc(text: str) -> int:
    return ns(text)


@pytest.mark.parametrize(
    ("kind", "start", "end"),
    [
        ("minute", "2026-03-11 14:27", "2026-03-11 14:28"),
        ("hour", "2026-03-11 14:00", "2026-03-11 15:00"),
        ("day", "2026-03-11", "2026-03-12"),
        ("week", "2026-03-09", "2026-03-16"),
        ("month", "2026-03-01", "2026-04-01"),
        ("quarter", "2026-01-01", "2026-04-01"),
        ("year", "2026-01-01", "2027-01-01"),
    ],
)
def test_every_calendar_window_holds_its_moment(kind: str, start: str, end: str):
    window = Window(WindowKind(kind))
    assert window_bounds(window, utc("2026-03-11 14:27:33")) == (utc(start), utc(end))
    assert window_bounds(window, utc(start)) == (utc(start), utc(end))
    assert window_bounds(window, utc(end) - 1) == (utc(start), utc(end))
    assert window_bounds(window, utc(end))[0] == utc(end)


@pytest.mark.parametrize("kind", ["run", "total"])
def test_run_and_total_never_end(kind: str):
    assert window_bounds(Window(WindowKind(kind)), 5) == (0, NEVER_NS)


@pytest.mark.parametrize(
    ("moment", "start", "end"),
    [
        ("2027-02-28 12:00", "2027-02-01", "2027-03-01"),
        ("2028-02-29 23:59", "2028-02-01", "2028-03-01"),
        ("2100-02-28 23:59", "2100-02-01", "2100-03-01"),
        ("2026-12-31 23:59", "2026-12-01", "2027-01-01"),
        ("2026-01-31 00:00", "2026-01-01", "2026-02-01"),
    ],
)
def test_months_end_where_the_calendar_says(moment: str, start: str, end: str):
    assert window_bounds(Window(WindowKind.MONTH), utc(moment)) == (utc(start), utc(end))


def test_the_leap_day_is_a_day():
    assert window_bounds(Window(WindowKind.DAY), utc("2028-02-29 08:00")) == (
        utc("2028-02-29"),
        utc("2028-03-01"),
    )
    assert window_bounds(Window(WindowKind.YEAR), utc("2028-02-29"))[1] == utc("2029-01-01")


@pytest.mark.parametrize("starts", range(7))
def test_weeks_start_on_any_day(starts: int):
    window = Window(WindowKind.WEEK, week_starts=starts)
    for day in range(1, 15):
        moment = datetime(2026, 3, day, 13, tzinfo=UTC)
        start, end = window_bounds(window, round(moment.timestamp()) * NS_PER_S)
        first = datetime.fromtimestamp(start // NS_PER_S, tz=UTC)
        assert first.weekday() == starts
        assert first <= moment < first + timedelta(days=7)
        assert end - start == 7 * 86_400 * NS_PER_S


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("Europe/Berlin", "2026-10-26", 24),
        ("America/New_York", "2026-03-08", 23),
        ("America/New_York", "2026-11-01", 25),
        ("Asia/Kolkata", "2026-03-29", 24),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("Australia/Lord_Howe", "2026-10-04", 23.5),
        ("America/Havana", "2026-11-01", 25),  # midnight comes twice
    ],
)
def test_a_day_lasts_from_local_midnight_to_local_midnight(zone: str, day: str, hours: float):
    window = Window(WindowKind.DAY, zone)
    start, end = window_bounds(window, ns(f"{day} 12:00", zone))
    assert start == ns(day, zone)
    assert end - start == hours * 3600 * NS_PER_S
    assert window_bounds(window, end)[0] == end
    assert window_bounds(window, start - 1)[1] == start


def test_a_midnight_that_the_clocks_skip_is_the_moment_they_jump():
    window = Window(WindowKind.DAY, "Africa/Cairo")  # 2026-04-24 begins at 01:00
    start, end = window_bounds(window, ns("2026-04-24 12:00", "Africa/Cairo"))
    assert start == utc("2026-04-23 22:00")
    assert end - start == 23 * 3600 * NS_PER_S
    assert window_bounds(window, start - 1)[1] == start


def test_a_day_that_a_zone_skipped_is_no_day():
    window = Window(WindowKind.DAY, "Pacific/Apia")  # went from 29 to 31 December 2011
    start, end = window_bounds(window, utc("2011-12-30 09:59:59"))
    assert end == utc("2011-12-30 10:00")
    assert end - start == 24 * 3600 * NS_PER_S
    assert window_bounds(window, end)[0] == end


def test_hours_follow_zones_that_are_off_by_half_an_hour():
    start, end = window_bounds(Window(WindowKind.HOUR, "Asia/Kolkata"), utc("2026-03-11 14:27"))
    assert (start, end) == (utc("2026-03-11 13:30"), utc("2026-03-11 14:30"))


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_hours_are_an_hour_long_where_the_clocks_jump_by_one(day: str):
    window = Window(WindowKind.HOUR, "Europe/Berlin")
    moment, end = ns(day, "Europe/Berlin"), ns(day, "Europe/Berlin") + 5 * 3600 * NS_PER_S
    while moment < end:
        start, following = window_bounds(window, moment)
        assert (start, following - start) == (moment, 3600 * NS_PER_S)
        moment = following


@pytest.mark.parametrize(
    ("jump", "before", "after"),
    [
        ("2026-04-04 15:00", 60, 30),  # back by half an hour
        ("2026-10-03 15:30", 60, 30),  # ahead by half an hour
    ],
)
def test_hours_around_a_jump_of_half_an_hour_are_cut_at_it(jump: str, before: int, after: int):
    window, at = Window(WindowKind.HOUR, "Australia/Lord_Howe"), utc(jump)
    minute_ns = 60 * NS_PER_S
    assert window_bounds(window, at - 1) == (at - before * minute_ns, at)
    assert window_bounds(window, at - 40 * minute_ns) == (at - before * minute_ns, at)
    assert window_bounds(window, at) == (at, at + after * minute_ns)
    assert window_bounds(window, at + 20 * minute_ns) == (at, at + after * minute_ns)


def test_an_hour_is_cut_where_the_clocks_jump_in_its_middle():
    window, at = Window(WindowKind.HOUR, "Asia/Pyongyang"), utc("2018-05-04 15:00")  # 23:30 → 0:00
    half_ns = 1800 * NS_PER_S
    assert window_bounds(window, at - 1) == (at - half_ns, at)
    assert window_bounds(window, at) == (at, at + 2 * half_ns)


@pytest.mark.parametrize("kind", ["minute", "hour", "day", "week", "month", "year"])
def test_the_last_window_ends_where_time_as_we_write_it_does(kind: str):
    start, end = window_bounds(Window(WindowKind(kind)), NEVER_NS - 1)
    assert start < NEVER_NS
    assert end == NEVER_NS


def test_windows_before_the_epoch_exist_too():
    assert window_bounds(Window(WindowKind.DAY), -1) == (-86_400 * NS_PER_S, 0)


def test_a_reservation_that_crosses_a_windows_end_stays_in_the_window_of_its_admit():
    play(
        """
        t=86399 admit r1 8 -> allow
        t=86400 admit r2 10 -> allow
        admit r3 1 -> deny:BUDGET_EXHAUSTED
        settle r1 5 -> ok
        show b@ended -> settled=5
        show b -> settled=0 reserved=10
        """,
        policy(budget("b", "10")),
    )


def test_local_midnight_gives_new_money_in_a_budgets_own_zone():
    play(
        """
        t=0 admit r1 10 -> allow
        t=18h admit r2 1 -> deny:BUDGET_EXHAUSTED resets=66600
        t=66600 admit r3 10 -> allow
        """,
        policy(budget("b", "10", zone="Asia/Kolkata")),
    )


def test_a_clock_that_steps_back_counts_in_the_window_it_says_and_loses_nothing():
    play(
        """
        t=86410 admit r1 8 -> allow
        wall -3600 -> ok
        admit r2 10 -> allow
        wall 3600 -> ok
        admit r3 3 -> deny:BUDGET_EXHAUSTED used=8
        settle r2 10 -> ok
        show b -> reserved=8 settled=0
        """,
        policy(budget("b", "10")),
    )


def test_a_clock_a_year_ahead_and_back_deletes_no_live_window():
    play(
        """
        admit r1 8 -> allow
        settle r1 8 -> ok
        t=5m sweep -> 0
        wall 31536000 -> ok
        t=10m sweep -> 0
        admit r2 10 -> allow
        t=15m sweep -> 0
        wall -31536000 -> ok
        t=20m sweep -> 1     # r2, which nobody closed
        admit r3 3 -> deny:BUDGET_EXHAUSTED used=8
        """,
        policy(budget("b", "10")),
    )
