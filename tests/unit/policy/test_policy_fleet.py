"""`share` and `fleet` in a policy: defaults, every field, and the words of each mistake."""

from fractions import Fraction

import pytest

from costd.errors import InvalidPolicy
from costd.model.policy import FailMode, FleetTerms, Share
from costd.policy import diff, parse_policy

MS = 1_000_000
BUDGET = "budgets: [{id: b, window: day, limit: $5%s}]\n"
RATE = "rates: [{id: r, limit: 5 requests / second%s}]\n"


def policy(text):
    return parse_policy("version: 1\n" + text, "p.yaml")


def test_what_is_left_out_is_the_fleets_and_fails_closed():
    made = policy(BUDGET % "" + RATE % "")
    assert (made.budgets[0].share, made.rates[0].share) == (Share.FLEET, Share.FLEET)
    assert (
        made.fleet
        == FleetTerms()
        == FleetTerms(
            fail_mode=FailMode.CLOSED, safe_share=Fraction(1, 100), lease_wait_ns=250 * MS
        )
    )


def test_every_field_is_read():
    made = policy(
        BUDGET % ", share: host"
        + RATE % ", share: host"
        + "fleet: {fail_mode: safe, safe_share: 1/8, lease_wait_ms: 0}\n"
    )
    assert (made.budgets[0].share, made.rates[0].share) == (Share.HOST, Share.HOST)
    assert made.fleet == FleetTerms(
        fail_mode=FailMode.SAFE, safe_share=Fraction(1, 8), lease_wait_ns=0
    )


@pytest.mark.parametrize("written", ["1%", "1 %", "1/100", "0.01"])
def test_the_safe_share_is_written_like_other_shares(written):
    assert policy(f"fleet: {{safe_share: {written}}}").fleet.safe_share == Fraction(1, 100)


SHARE = "must be more than 0% and at most 100%; change it, or write fail_mode: closed"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("fail_mode", "half", "'half' is not known here; write 'closed', 'open' or 'safe'"),
        ("safe_share", "0%", SHARE),
        ("safe_share", "100.01%", SHARE),
        ("lease_wait_ms", "5001", "must be at most 5000; change it"),
    ],
)
def test_a_mistake_is_refused_with_its_line(field, value, message):
    with pytest.raises(InvalidPolicy) as caught:
        policy(f"fleet:\n  {field}: {value}\n")
    assert str(caught.value) == f"p.yaml:3: fleet.{field}: {message}"


def test_a_share_is_fleet_or_host():
    with pytest.raises(InvalidPolicy, match=r"budgets\[0\].*share"):
        policy(BUDGET % ", share: both")


def test_a_changed_share_and_changed_terms_are_told():
    old = policy(BUDGET % "" + RATE % "")
    new = policy(BUDGET % ", share: host" + RATE % ", share: host" + "fleet: {fail_mode: open}")
    assert [str(change) for change in diff(old, new)] == [
        "changed budgets.b (share: fleet → host): counters kept",
        "changed rates.r (share: fleet → host)",
        "changed settings.fleet (fail_mode: closed → open)",
    ]
