import pytest

from bench.tally import BooksDiffer, Spent, Tally, compare


def test_equal_books_pass():
    compare("what", Tally(drawn_count=1), Tally(drawn_count=1))


@pytest.mark.parametrize("field", ["drawn_count", "asked_count", "amount_nusd", "tokens_count"])
def test_a_difference_of_one_anywhere_fails_the_run(field):
    with pytest.raises(BooksDiffer, match="what: the client counted"):
        compare("what", Tally(), Tally(**{field: 1}))


@pytest.mark.parametrize("field", ["calls_count", "cost_nusd"])
def test_a_lost_usage_event_or_another_cost_fails_the_run(field):
    with pytest.raises(BooksDiffer):
        compare("what", Spent(calls_count=2, cost_nusd=9), Spent(**{field: 2}))


def test_tallies_add_up_field_by_field():
    one = Tally(drawn_count=1, asked_count=2, amount_nusd=3, tokens_count=4)
    two = Tally(drawn_count=10, asked_count=20, amount_nusd=30, tokens_count=40)
    assert one.plus(two) == Tally(drawn_count=11, asked_count=22, amount_nusd=33, tokens_count=44)
