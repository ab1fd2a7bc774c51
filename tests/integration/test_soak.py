import pytest

from bench.soak import Sample, Soak, growth_problems, main, sparkline
from costd.engine.changes import Family

ASKS_COUNT = 16_000
"""160 windows of a minute: the second quarter begins when all that is kept is kept."""


def samples(records, size_bytes=1):
    return [
        Sample(
            asks_count=number,
            peak_bytes=size_bytes,
            records=dict.fromkeys(Family, 0) | {Family.USAGE: count},
            rss_mib=1.0,
            elapsed_s=1.0,
        )
        for number, count in enumerate(records)
    ]


@pytest.mark.slow
def test_asks_through_many_short_windows_leave_the_store_bounded(capsys):
    exit_code = main(["--asks", str(ASKS_COUNT)])
    report = capsys.readouterr().out
    assert exit_code == 0, report
    assert "160 windows" in report
    assert "bounded" in report


@pytest.mark.slow
def test_a_store_that_forgets_nothing_is_found_growing(tmp_path):
    soak = Soak(tmp_path / "store", 1, keep_s=10 * 86_400)
    try:
        outcome = soak.run(4_000, advance=lambda _sample: None)
    finally:
        soak.close()
    grown = {problem.split()[0] for problem in outcome.problems}
    assert grown == {"counters", "reservations", "due", "usage", "alerts"}


def test_a_plateau_is_no_growth():
    assert growth_problems(samples([0, 0, 900, 1_000, 1_000, 1_010, 990, 1_000])) == []


def test_records_that_keep_growing_are_a_problem():
    (problem,) = growth_problems(samples([0, 0, 1_000, 1_100, 1_200, 1_300, 1_400, 1_500]))
    assert problem == "usage grew from 1,100 to 1,500 records"


def test_a_store_that_keeps_growing_on_disk_is_a_problem():
    small, large = samples([5] * 4, 10**9), samples([5] * 4, 2 * 10**9)
    (problem,) = growth_problems(small + large)
    assert problem == "the store grew from 1,000,000,000 to 2,000,000,000 bytes"


def test_a_sparkline_goes_from_nothing_to_the_highest():
    assert sparkline([0, 1, 2]) == " ▄█"
