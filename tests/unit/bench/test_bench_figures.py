import pytest

from bench.figures import Figure, p99, p99_us


def figure(*samples, **fields):
    return Figure(**{"key": "k", "what": "w", "unit": "/s", "samples": samples, **fields})


def test_of_a_hundred_samples_one_lies_above_the_99th_percentile():
    assert p99(range(100)) == 99
    assert p99(range(1_000)) == 990


def test_of_few_samples_the_largest_is_the_99th_percentile():
    assert p99([3.0, 9.0, 1.0]) == 9.0
    assert p99([-2.5]) == -2.5


def test_the_99th_percentile_of_nanoseconds_is_told_in_microseconds():
    assert p99_us([1_000, 2_000, 7_000]) == 7


@pytest.mark.parametrize(
    ("samples", "verdict"),
    [((11, 12, 13), "met"), ((7, 8, 9), "missed"), ((7, 11, 13), "inconclusive")],
)
def test_where_more_is_better_the_lower_quartile_has_to_reach_the_target(samples, verdict):
    assert figure(*samples, target=10, more_is_better=True).verdict == verdict


def test_a_single_sample_that_equals_its_target_meets_it_either_way():
    assert figure(10, target=10).verdict == "met"
    assert figure(10, target=10, more_is_better=True).verdict == "met"


def test_a_skipped_figure_says_why_and_has_no_numbers():
    skipped = figure(target=100, skipped="no redis here")
    assert skipped.verdict == "skipped"
    report = skipped.as_json()
    assert report["skipped"] == "no redis here"
    assert report["target"] == 100
    assert report["rounds"] == 0
    assert "median" not in report


@pytest.mark.parametrize("fields", [{"samples": ()}, {"samples": (1.0,), "skipped": "why"}])
def test_a_figure_has_either_samples_or_a_word_on_why_not(fields):
    with pytest.raises(ValueError, match="skipped"):
        figure(**fields)
