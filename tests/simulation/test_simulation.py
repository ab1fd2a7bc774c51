"""A short run of `make sim`, and proof that an order is the same again from its seed."""

from collections import Counter

import pytest
from sim_events import STEPS_COUNT
from sim_truth import Truth
from simulate import MUST_HAPPEN, attempt, main, never_seen, simulate

SEEDS = range(40)


@pytest.fixture(scope="module")
def outcomes():
    return simulate(SEEDS, STEPS_COUNT, jobs_count=1, advance=lambda _: None)


@pytest.mark.slow
def test_the_books_add_up_in_every_order_of_events(outcomes):
    failed = {one.seed: one.problems for one in outcomes if one.problems}
    assert failed == {}, "replay one by: make sim SIM_ARGS='--only clients --seed N'"


@pytest.mark.slow
def test_everything_that_can_happen_does(outcomes):
    assert never_seen(outcomes) == []
    seen = sum((Counter(one.seen) for one in outcomes), Counter())
    assert seen["calls drawn"] > 500
    assert seen["daemon killed -9"] > len(SEEDS)


def test_an_order_is_the_same_again_from_its_seed():
    assert attempt(7, STEPS_COUNT) == attempt(7, STEPS_COUNT)


def test_a_failing_order_says_how_it_is_replayed(capsys, monkeypatch):
    monkeypatch.setattr(Truth, "problems", lambda *_: ["a rule was broken"])
    assert main(["--only", "clients", "--seed", "7", "--steps", "30"]) == 1
    report = " ".join(capsys.readouterr().out.split())
    assert "make sim SIM_ARGS='--only clients --seed 7 --steps 30'" in report
    assert "a rule was broken" in report


def test_what_never_happened_is_named():
    assert never_seen([]) == list(MUST_HAPPEN)
