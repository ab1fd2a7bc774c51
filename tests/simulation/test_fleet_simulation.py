"""A short run of the fleet's part of `make sim`."""

import pytest
from fleet_events import MUST_HAPPEN, STEPS_COUNT, run_fleet_order
from simulate import attempt, never_seen, simulate

SEEDS = range(100)


@pytest.fixture(scope="module")
def outcomes():
    return simulate(SEEDS, STEPS_COUNT, jobs_count=2, advance=lambda _: None, run=run_fleet_order)


@pytest.mark.slow
def test_no_limit_is_passed_and_all_books_agree_in_every_order_of_events(outcomes):
    failed = {one.seed: one.problems for one in outcomes if one.problems}
    assert failed == {}, "replay one by: make sim SIM_ARGS='--only fleet --seed N'"


@pytest.mark.slow
def test_everything_that_can_happen_to_a_fleet_does(outcomes):
    assert never_seen(outcomes, MUST_HAPPEN) == []


def test_a_fleets_order_is_the_same_again_from_its_seed():
    assert attempt(7, STEPS_COUNT, run_fleet_order) == attempt(7, STEPS_COUNT, run_fleet_order)
