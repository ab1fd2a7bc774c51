"""Percentiles and buckets of lengths of time."""

import pytest

from costd.cli.histogram import ROWS_MAX, buckets, percentile

MS = 1_000_000


@pytest.mark.parametrize(
    ("count", "p50", "p99"), [(1, 1, 1), (2, 1, 2), (3, 2, 3), (100, 50, 99), (1_000, 500, 990)]
)
def test_percentiles_are_nearest_ranks(count, p50, p99):
    values = list(range(1, count + 1))
    assert (percentile(values, 50), percentile(values, 99)) == (p50, p99)


def test_bounds_are_one_two_and_five():
    assert buckets([MS // 2, 3 * MS, 4 * MS, 40 * MS]) == [
        (MS // 2, 1),
        (1 * MS, 0),
        (2 * MS, 0),
        (5 * MS, 2),
        (10 * MS, 0),
        (20 * MS, 0),
        (50 * MS, 1),
    ]


def test_a_bound_belongs_to_its_bucket():
    assert buckets([MS, 2 * MS]) == [(MS, 1), (2 * MS, 1)]
    assert buckets([1]) == [(100_000, 1)]
    assert buckets([]) == []


def test_every_value_is_counted_however_far_they_lie_apart():
    counted = buckets([1, MS, 3_600_000 * MS])
    assert len(counted) == ROWS_MAX
    assert [count for _, count in counted] == [2, 0, 0, 0, 0, 0, 0, 1]
