"""Orders of events as tests, one for each seed: for whoever wants to stop at the first that fails."""

import pytest
from fleet_events import run_fleet_order
from sim_events import run_order
from simulate import SIMULATIONS, attempt

SEEDS = range(10)
STEPS = {each.run: each.steps_count for each in SIMULATIONS}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_books_of_a_daemon_add_up_in_order(seed):
    assert attempt(seed, STEPS[run_order], run_order).problems == []


@pytest.mark.parametrize("seed", SEEDS)
def test_the_books_of_a_fleet_add_up_in_order(seed):
    assert attempt(seed, STEPS[run_fleet_order], run_fleet_order).problems == []
