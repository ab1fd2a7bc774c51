"""Sixteen clients of unequal demand at one budget: it is used up, and everybody gets a fair part."""

import pytest
from sim_market import Buyer, Market, fair_shares
from sim_policies import CALL_NUSD

CALLS_COUNT = 10_000
"""So many calls use the budget up: each is 0.01 % of it."""
USED_MIN = 0.995
FAIR_MIN = 0.5

PATTERNS = {
    "one hog and fifteen small ones": lambda: [Buyer(2_000), *(Buyer(10) for _ in range(15))],
    "a hog of many threads": lambda: [
        Buyer(50_000, threads_count=64),
        *(Buyer(20) for _ in range(15)),
    ],
    "each wants half of what the one before wants": lambda: [
        Buyer(4_000 / 2**number) for number in range(16)
    ],
    "eight come late": lambda: [
        *(Buyer(400) for _ in range(8)),
        *(Buyer(400, joins_s=1.5) for _ in range(8)),
    ],
    "four late hogs": lambda: [
        *(Buyer(100) for _ in range(12)),
        *(Buyer(3_000, joins_s=2, threads_count=32) for _ in range(4)),
    ],
    "all want more than there is": lambda: [Buyer(1_000 + 100 * number) for number in range(16)],
}


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_budget_is_used_up_before_anybody_is_denied_and_shared_fairly(pattern, tmp_path):
    market = Market(CALLS_COUNT, PATTERNS[pattern](), tmp_path / "s").run(at_most_s=60)
    got, wanted = zip(*market.first_deny, strict=True)
    assert sum(got) >= USED_MIN * CALLS_COUNT
    for one, share in zip(got, fair_shares(CALLS_COUNT, wanted), strict=True):
        assert one >= FAIR_MIN * share
    drawn_count = CALLS_COUNT - market.asked_count
    assert drawn_count > 0.5 * CALLS_COUNT, "or it would say nothing of allowances"
    settled, reserved = market.finish()
    assert (settled, reserved) == (sum(buyer.got for buyer in market.buyers) * CALL_NUSD, 0)
    assert settled <= CALLS_COUNT * CALL_NUSD


def test_fair_shares_are_what_is_wanted_or_an_even_part_of_the_rest():
    assert fair_shares(100, [10, 20, 1_000, 1_000]) == [10, 20, 35, 35]
    assert fair_shares(100, [10, 20, 30]) == [10, 20, 30]
    assert fair_shares(90, [100, 100, 100]) == [30, 30, 30]
