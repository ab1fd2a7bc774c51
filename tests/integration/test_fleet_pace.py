"""How often a busy daemon troubles its coordinator, and with what."""

import pytest
from fleet_by_hand import Fleet
from policy_parts import budget, policy, rate

from costd.model.decision import Reason

USERS = [f"u{number}" for number in range(20)]
EACH = policy(budget("each", "1000000", per=("user",)))
ALL = policy(budget("all", "1000000"))


def kinds(messages):
    return [message.WhichOneof("message") for message in messages]


def requests(batches):
    return [m.request for batch in batches for m in batch if m.HasField("request")]


def busy(fleet, for_s, *, every_s=0.1, users=("",)):
    """Have daemon a admit one call of each user every so often; returns what it said meanwhile."""
    said_before = len(fleet.batches)
    for _ in range(round(for_s / every_s)):
        for user in users:
            assert fleet["a"].admit(user=user) is Reason.OK
        fleet.pass_s(every_s)
    return fleet.batches[said_before:]


def test_a_steady_daemon_says_all_it_has_to_say_once_a_second():
    fleet = Fleet(EACH, names="a")
    busy(fleet, 60, every_s=0.5, users=USERS)
    said = busy(fleet, 60, every_s=0.5, users=USERS)
    assert len(said) <= 60 + 1
    assert all(request.ahead for request in requests(said))
    assert {tuple(kinds(batch)) for batch in said} == {("report",), ("request", "report")}


def test_what_runs_low_at_once_is_asked_for_in_one_request():
    fleet = Fleet(EACH, names="a")
    said = requests(busy(fleet, 60, every_s=0.5, users=USERS))
    ahead = [request for request in said if request.ahead]
    assert max(len(request.wants) for request in ahead) == len(USERS)
    assert sum(len(request.wants) for request in ahead) > 4 * len(ahead)


@pytest.mark.parametrize("every_s", [0.02, 0.1, 1])
def test_a_lease_comes_to_last_ten_to_twenty_seconds(every_s):
    fleet = Fleet(ALL, names="a")
    busy(fleet, 120, every_s=every_s)
    asked = requests(busy(fleet, 120, every_s=every_s))
    assert 120 / 20 <= len(asked) <= 120 / 5 + 1  # it asks for more when half of one is used
    for request in asked:
        [want] = request.wants
        stand = want.stand
        wanted = want.amount_wanted - stand.settled - stand.reserved
        assert wanted * every_s <= 21e9


def test_a_share_that_is_drawn_from_is_not_given_back_though_its_bucket_is_full_at_once():
    fleet = Fleet(policy(budget("any"), rate("each", 10**9, per=("user",))), names="a")
    busy(fleet, 10, every_s=5, users=USERS)
    assert not requests(busy(fleet, 100, every_s=5, users=USERS))


def test_a_share_that_is_not_drawn_from_is_given_back_though_others_are():
    fleet = Fleet(policy(budget("any"), rate("each", 10**9, per=("user",))), names="a")
    busy(fleet, 10, every_s=5, users=USERS)
    busy(fleet, 30, every_s=5, users=USERS[:3])
    shares = [fleet["a"].ledger.lease(key) for key in fleet["a"].ledger.lent.held]
    assert len([share for share in shares if share.amount]) == 3


def test_what_was_lent_is_no_more_than_what_is_used_in_a_while():
    fleet = Fleet(ALL, names="a")
    busy(fleet, 240, every_s=0.1)
    lease = fleet["a"].ledger.lease(next(iter(fleet["a"].ledger.lent.held)))
    used = fleet["a"].passed * 10**9
    assert lease.amount - used <= 10 * 21 * 10**9
