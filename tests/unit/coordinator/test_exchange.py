import pytest
from policy_parts import budget, policy

from costd.coordinator.exchange import Exchange
from costd.coordinator.lendable import Span
from costd.coordinator.rows import Daemon, Rows
from costd.daemon.books.enacting import compiled
from costd.model.time import NS_PER_S
from costd.testing import FakeClock
from costd.wire.pb import fleet_pb2 as pb

CLOCK = FakeClock()
NOW_NS = CLOCK.wall_ns
RULES = compiled(policy(budget("b", "100")), NOW_NS, in_fleet=True)
KEY = next(iter(RULES.budgets.values())).counter_key({}, NOW_NS)
GONE = KEY[:8] + b"8 bytes." + KEY[16:]
"""A counter of a budget that the policy does not have."""


def asked(*, ahead, wants=(KEY, GONE)):
    """Ask for one call's worth of each."""
    rows = Rows(daemons={"d1": Daemon(daemon_id="d1", epoch=1)})
    request = pb.LeaseRequest(
        request_id="1-1",
        epoch=1,
        sequence=1,
        ahead=ahead,
        wants=[
            pb.Want(
                stand=pb.Stand(counter_key=key),
                amount_min=0 if ahead else NS_PER_S,
                amount_wanted=NS_PER_S,
            )
            for key in wants
        ],
    )
    reply = Exchange(rows, RULES, now_ns=NOW_NS, span=Span()).request("d1", request)
    return {grant.counter_key: (grant.outcome, grant.amount) for grant in reply.grants}


def test_what_a_call_needs_is_granted_whole_or_not_at_all():
    assert asked(ahead=False) == {
        KEY: (pb.LEASE_OUTCOME_SET_FAILED, 0),
        GONE: (pb.LEASE_OUTCOME_NO_BUDGET, 0),
    }


def test_what_is_asked_for_ahead_of_need_is_granted_each_by_itself():
    assert asked(ahead=True) == {
        KEY: (pb.LEASE_OUTCOME_GRANTED, NS_PER_S),
        GONE: (pb.LEASE_OUTCOME_NO_BUDGET, 0),
    }


@pytest.mark.parametrize("ahead", [False, True])
def test_a_budget_with_room_lends(ahead):
    assert asked(ahead=ahead, wants=(KEY,)) == {KEY: (pb.LEASE_OUTCOME_GRANTED, NS_PER_S)}
