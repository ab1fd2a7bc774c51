"""Windows tile time: every moment lies in exactly one, whatever the calendar does."""

import hypothesis.strategies as st
from hypothesis import example, given, settings

from costd.engine.rules import BudgetRule
from costd.engine.window import window_bounds
from costd.model.labels import Selector
from costd.model.policy import Budget, Window, WindowKind
from costd.model.time import NEVER_NS, NS_PER_S

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Havana",
    "Africa/Cairo",
    "Asia/Beirut",
    "Pacific/Apia",
    "Asia/Pyongyang",
    "America/St_Johns",
    "Pacific/Kiritimati",
]
CALENDAR = [kind for kind in WindowKind if kind not in {WindowKind.RUN, WindowKind.TOTAL}]
windows = st.builds(Window, st.sampled_from(CALENDAR), st.sampled_from(ZONES), st.integers(0, 6))
moments = st.one_of(
    st.integers(0, 2**62),
    # A week around a jump of the clocks, where mistakes live.
    st.builds(
        lambda jump_s, off_s: (jump_s + off_s) * NS_PER_S,
        st.sampled_from(
            [
                *(1743296400, 1774746000, 1792890000, 1772953200, 1793512800, 1775314800),
                *(1791041400, 1325239200, 1525446000, 1776981600, 1793620800),
            ]
        ),
        st.integers(-7200, 7200),
    ),
)
UNHURRIED = settings(max_examples=400, deadline=None)


@UNHURRIED
@given(windows, moments)
@example(Window(WindowKind.HOUR, "Australia/Lord_Howe"), 1775314800 * NS_PER_S)
@example(Window(WindowKind.YEAR), NEVER_NS - 1)
def test_a_window_holds_its_moment_and_every_other_moment_in_it_says_the_same(window, wall_ns):
    start, end = window_bounds(window, wall_ns)
    assert start <= wall_ns < end
    for moment in (start, end - 1, (start + end) // 2):
        assert window_bounds(window, moment) == (start, end)


@UNHURRIED
@given(windows, moments)
def test_windows_neither_overlap_nor_leave_gaps(window, wall_ns):
    start, end = window_bounds(window, wall_ns)
    assert window_bounds(window, start - 1)[1] == start
    if end < NEVER_NS:
        assert window_bounds(window, end)[0] == end


@UNHURRIED
@given(windows, st.lists(moments, min_size=2, max_size=6))
def test_a_rule_remembers_a_window_only_while_it_lasts(window, times):
    rule = BudgetRule(Budget(budget_id="b", selector=Selector(), window=window))
    for wall_ns in times:
        assert rule.window(wall_ns) == window_bounds(window, wall_ns)
        assert rule.counter_key({}, wall_ns)[:8] == rule.window(wall_ns)[1].to_bytes(8, "big")
