"""How far a daemon may pass its budgets at worst, cause by cause."""

from fractions import Fraction

import pytest
from msgspec.structs import replace
from policy_parts import budget

from costd.engine.rules import BudgetRule
from costd.engine.worst import overspend_bound
from costd.model.counter import Counter
from costd.model.grant import GrantUse
from costd.model.lease import Lease
from costd.model.policy import FailMode, FleetTerms, Share

USD = 10**9
TEAM = BudgetRule(budget("team", "100"), in_fleet=True)
CALLS = BudgetRule(budget("calls", 100, unit="calls"), in_fleet=True)
HOST = BudgetRule(budget("host", "100", share=Share.HOST), in_fleet=True)
SAFE = FleetTerms(fail_mode=FailMode.SAFE, safe_share=Fraction(1, 100))


def use(**fields):
    left = GrantUse(
        grant_id="g", issuer="i", subject="s", uses_count=1, used_nusd=4 * USD,
        uses_max_count=2, amount_nusd=10 * USD, expires_ns=50,
    )  # fmt: skip
    return replace(left, **fields)


def bound(*counters, exposure=0, uses=(), terms=SAFE):
    return overspend_bound(exposure, counters, uses, terms=terms, wall_ns=49)


def test_nothing_out_and_nothing_granted_is_nothing_to_pass_by():
    assert bound((TEAM, Counter()), terms=FleetTerms()) == 0


@pytest.mark.parametrize("mode", [FailMode.CLOSED, FailMode.OPEN])
def test_only_a_safe_share_adds_what_it_may_excuse(mode):
    terms = FleetTerms(fail_mode=mode)
    assert bound((TEAM, Counter()), exposure=3, terms=terms) == 3


@pytest.mark.parametrize(
    ("rule", "counter", "expected"),
    [
        (TEAM, Counter(), USD),
        (TEAM, Counter(unadmitted=USD // 4), USD * 3 // 4),
        (TEAM, Counter(unadmitted=2 * USD), 0),  # a record said so
        (TEAM, Counter(lease=Lease(limit=500 * USD)), 5 * USD),  # topped up
        (CALLS, Counter(), 0),  # no money
        (HOST, Counter(), 0),  # needs no lease
    ],
)
def test_a_safe_share_excuses_what_is_left_of_it(rule, counter, expected):
    assert bound((rule, counter)) == expected


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (use(), 6 * USD),
        (use(used_nusd=11 * USD), 0),
        (use(uses_count=2), 0),
        (use(expires_ns=49), 0),
        (use(is_offline=False), 0),  # only what is lent of it
    ],
)
def test_a_grant_lets_pass_what_is_left_of_it_while_it_lasts(used, expected):
    assert bound(uses=[used]) == expected


def test_all_causes_add_up():
    counters = (TEAM, Counter()), (TEAM, Counter(unadmitted=USD))
    assert bound(*counters, exposure=7, uses=[use(), use()]) == 7 + USD + 12 * USD
