"""Override grants in a real fleet: lent as small budgets are, redeemed offline by their audience."""

import threading
import time

import grpc
import pytest
from desk import USD, Desk, poll

from costd.grants import GrantClaims, issue, keygen, load_private_key
from costd.testing.fleet import FleetProcesses
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb import fleet_control_pb2

LEAD, STRANGER = keygen(), keygen()
POLICY = f"""\
version: 1
unmatched: deny
tiers:
  premium: {{models: [openai/gpt-4o]}}
task_classes:
  draft: {{tier: premium, max_output_tokens: 1000}}
  review: {{critical: true, min_tier: premium}}
budgets:
  - {{id: empty, window: total, limit: $0.01}}
fleet: {{lease_wait_ms: 5000}}
grant_keys:
  - {{id: lead, public_key: {LEAD.public_key}}}
"""
CLAIMS = ("--claims", "*")


@pytest.fixture(scope="module")
def running(shared_database, tmp_path_factory):
    """One coordinator, two daemons, and nothing left of their budget."""
    policy = tmp_path_factory.mktemp("grants") / "policy.yaml"
    policy.write_text(POLICY)
    fleet = FleetProcesses("--tenure-s", "3", database_url=shared_database, policy=policy)
    try:
        fleet.start(daemons=0)
        for _ in range(2):
            fleet.add_daemon(*CLAIMS)
        for daemon in fleet.daemons:
            daemon.wait_for("serving")
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def desks(running):
    opened = [Desk(daemon) for daemon in running.daemons]
    yield opened
    for desk in opened:
        desk.close()


def token(grant_id, *, pair=LEAD, expires_in_s=3600, **claims):
    now_s = int(time.time())
    fields = {
        "jti": grant_id,
        "iss": "lead",
        "sub": "ann",
        "aud": (),
        "nbf": now_s - 60,
        "iat": now_s - 60,
        "exp": now_s + expires_in_s,
        "reason": "release night",
        "scope": {},
        "task_classes": ("review",),
        "amount_nusd": 100 * USD,
        "uses": 5,
        "passes_kill": False,
    }
    return issue(load_private_key(pair.private_pem), "lead", GrantClaims(**(fields | claims)))


def review(desk, dollars, grant):
    return desk.admit(dollars, task_class="review", override_grant=grant)


def listed(running, grant_id):
    control = running.coordinators[0].control
    rows = control.ListGrants(cpb.ListGrantsRequest(), wait_for_ready=True).grants
    return next((row for row in rows if row.grant_id == grant_id), cpb.GrantStatus())


def race(desks, grant, *, dollars, asks_count):
    """Ask at both daemons at once, again and again."""
    found = []

    def ask(desk):
        for _ in range(asks_count):
            found.append((desk, review(desk, dollars, grant)))  # noqa: PERF401  a thread's steps

    threads = [threading.Thread(target=ask, args=(desk,)) for desk in desks for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_so_many_uses_stay_so_many_however_many_daemons_race(running, desks):
    found = race(desks, token("uses"), dollars=0.5, asks_count=5)
    passed = [(desk, each) for desk, each in found if each.reason == pb.REASON_GRANT]
    refused = [each for _, each in found if each.reason != pb.REASON_GRANT]
    assert len(passed) == 5
    assert {each.grant_refusal for each in refused} == {pb.GRANT_REFUSAL_USED_UP}
    for desk, decision in passed:
        desk.settle(decision.reservation_id, 0.25)
    poll(lambda: listed(running, "uses").used_nusd == 5 * USD // 4)
    row = listed(running, "uses")
    assert (row.uses_count, row.uses_max_count, row.amount_nusd) == (5, 5, 100 * USD)
    assert sum(each.uses_count for each in row.holders) == 5
    assert {each.daemon for each in row.holders} <= {"d1", "d2"}
    assert running.problems() == []


def test_the_amount_is_one_for_all(running, desks):
    found = race(desks, token("amount", amount_nusd=2 * USD, uses=100), dollars=0.5, asks_count=3)
    passed = [each for _, each in found if each.reason == pb.REASON_GRANT]
    refused = [each for _, each in found if each.reason != pb.REASON_GRANT]
    assert len(passed) == 4
    assert {each.grant_refusal for each in refused} == {pb.GRANT_REFUSAL_AMOUNT_EXCEEDED}


def test_a_use_that_is_given_back_is_found_by_others(desks):
    first, second = desks
    grant = token("voided", uses=1)
    held = review(first, 0.5, grant)
    assert held.reason == pb.REASON_GRANT
    assert review(second, 0.5, grant).grant_refusal == pb.GRANT_REFUSAL_USED_UP
    first.void(held.reservation_id)
    poll(lambda: review(second, 0.5, grant).reason == pb.REASON_GRANT)
    poll(lambda: review(first, 0.5, grant).grant_refusal == pb.GRANT_REFUSAL_USED_UP)


def test_a_call_that_runs_on_a_grant_is_extended_as_far_as_the_grant_goes(desks):
    first, second = desks
    grant = token("extended", amount_nusd=2 * USD)
    held = review(first, 0.5, grant)
    assert first.extend(held.reservation_id, 0.5).extended
    other = review(second, 0.5, grant)
    assert other.reason == pb.REASON_GRANT
    refused = first.extend(held.reservation_id, 0.75)
    assert (refused.extended, refused.reason) == (False, pb.REASON_GRANT)
    assert second.extend(other.reservation_id, 0.5).extended


@pytest.mark.parametrize(
    ("claims", "refusal"),
    [
        ({"pair": STRANGER}, pb.GRANT_REFUSAL_BAD_SIGNATURE),
        ({"expires_in_s": -10}, pb.GRANT_REFUSAL_EXPIRED),
    ],
)
def test_a_forged_or_expired_grant_is_refused_with_its_reason(desks, claims, refusal):
    decision = review(desks[0], 0.5, token("bad", **claims))
    assert (decision.verdict, decision.grant_refusal) == (pb.VERDICT_DENY, refusal)


def test_who_is_lent_a_use_is_audited_at_the_coordinator(running, desks):
    assert review(desks[0], 0.5, token("audited", uses=1)).reason == pb.REASON_GRANT
    records = running.coordinators[0].control.ListAudit(cpb.ListAuditRequest()).records
    (record,) = [each for each in records if each.subject == "audited"]
    assert (record.action, record.actor) == ("grant_lent", "ann")
    assert record.detail == "lent to d1; issued by lead to ann: release night"


def test_what_is_lent_of_a_grant_is_among_the_leases(running, desks):
    assert review(desks[1], 0.5, token("leased")).reason == pb.REASON_GRANT
    rows = running.coordinators[0].fleet.ListLeases(fleet_control_pb2.ListLeasesRequest()).leases
    found = {(row.unit, row.amount, row.daemon) for row in rows if row.key == "leased"}
    assert found == {("calls", 1, "d2"), ("nusd", USD // 2, "d2")}


def test_without_a_coordinator_only_the_audience_redeems_and_it_is_reconciled(fleet):
    cut = fleet(POLICY, "--tenure-s", "2").start(daemons=0)
    for _ in range(2):
        cut.add_daemon(*CLAIMS)
    for daemon in cut.daemons:
        daemon.wait_for("serving")
    first, second = (Desk(daemon) for daemon in cut.daemons)
    named, for_all = token("named", aud=("d1",), uses=3), token("for-all", uses=3)
    # Lent while somebody lends, to whoever asks.
    assert review(first, 0.5, named).reason == pb.REASON_GRANT
    assert review(second, 0.5, named).reason == pb.REASON_GRANT
    (coordinator,) = cut.coordinators
    coordinator.kill()
    with pytest.raises(grpc.RpcError):
        coordinator.control.GetStatus(cpb.GetStatusRequest())
    assert review(second, 0.5, named).grant_refusal == pb.GRANT_REFUSAL_NO_LEASE
    assert review(first, 0.5, for_all).grant_refusal == pb.GRANT_REFUSAL_NO_LEASE
    # Three uses by this daemon, the one that it was lent included: the bound is amount x audience.
    told = [review(first, 0.5, named) for _ in range(3)]
    assert [each.reason for each in told[:2]] == [pb.REASON_GRANT] * 2
    assert told[2].grant_refusal == pb.GRANT_REFUSAL_USED_UP
    coordinator.restart()
    poll(lambda: listed(cut, "named").uses_count == 4)
    row = listed(cut, "named")
    holders = {each.daemon: (each.uses_count, each.unleased_count) for each in row.holders}
    assert holders == {"d1": (3, 2), "d2": (1, 0)}
    # Now that it is known, nobody is lent any more.
    poll(lambda: review(second, 0.5, named).grant_refusal == pb.GRANT_REFUSAL_USED_UP)
    assert review(second, 0.5, for_all).reason == pb.REASON_GRANT
    assert cut.problems() == []
    first.close()
    second.close()
