"""Two daemons on one budget: how far it is used, and that nobody passes it."""

import threading

import grpc
import pytest
from desk import Desk, poll

from costd.daemon.servers import ENVOY_NAME
from costd.testing.fleet import FleetProcesses
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb.ratelimit_pb2 import RateLimitRequest, RateLimitResponse

POLICY = """\
version: 1
unmatched: deny
fleet: {lease_wait_ms: 5000}
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes:
  draft: {tier: premium, max_output_tokens: 1000}
budgets:
  - {id: shared, match: {stock: "*"}, per: stock, window: total, limit: $2}
  - {id: per-user, match: {user: "*"}, per: user, window: total, limit: $1}
  - {id: here, match: {user: "*"}, per: user, window: total, limit: $100, share: host}
envoy:
  - id: ask
    domain: llm
    labels: {user: user}
    task_class: {value: draft}
    hits_addend: cost_microusd
"""
CENT = 10_000_000


def spend(desk, cents_each, outcome, **fields):
    """Ask and settle until refused; note what was told."""
    while True:
        decision = desk.admit(cents_each / 100, **fields)
        if not decision.reservation_id:
            outcome.append((decision.reason, 0))
            return
        closed = desk.settle(decision.reservation_id, cents_each / 100)
        outcome.append((decision.reason, closed.cost_nusd))


@pytest.fixture(scope="module")
def shared(shared_database, tmp_path_factory):
    """One coordinator, two daemons, for all of these tests."""
    policy = tmp_path_factory.mktemp("sharing") / "policy.yaml"
    policy.write_text(POLICY)
    running = FleetProcesses(database_url=shared_database, policy=policy)
    try:
        yield running.start(daemons=2)
    finally:
        running.close()


@pytest.fixture
def desks(shared):
    opened = [Desk(daemon) for daemon in shared.daemons]
    yield opened
    for desk in opened:
        desk.close()


def test_two_daemons_use_one_budget_up_and_never_pass_it(shared, desks):
    outcomes = [[], []]
    threads = [
        threading.Thread(target=spend, args=(desk, 1, outcome), kwargs={"labels": {"stock": "a"}})
        for desk, outcome in zip(desks, outcomes, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome[-1][0] for outcome in outcomes] == [pb.REASON_BUDGET_EXHAUSTED] * 2
    told = sum(cost for outcome in outcomes for _, cost in outcome)
    assert told == 200 * CENT, [len(outcome) for outcome in outcomes]
    assert all(len(outcome) > 10 for outcome in outcomes), "one of them got nothing"
    assert shared.problems() == []


def test_the_last_cent_is_found_at_whoever_holds_it(shared, desks):
    first, second = desks
    held = [first.hold(0.50, labels={"user": "ann"})]
    # Only what the first one holds and does not use is left; it is asked to give that back.
    poll(lambda: second.admit(0.50, labels={"user": "ann"}).reservation_id)
    # Once the coordinator has had the time to answer, the reason is the budget's.
    poll(lambda: _reason(first) == pb.REASON_BUDGET_EXHAUSTED)
    first.void(held[0])
    poll(lambda: second.admit(0.50, labels={"user": "ann"}).reservation_id)
    assert shared.problems() == []


def test_what_comes_through_envoy_waits_for_leases_and_uses_the_same_budget(shared):
    def ask(daemon):
        request = RateLimitRequest(domain="llm", hits_addend=300_000)
        request.descriptors.add().entries.add(key="user", value="eno")
        with grpc.insecure_channel(daemon.address) as channel:
            call = channel.unary_unary(f"/{ENVOY_NAME}/ShouldRateLimit")
            answer = RateLimitResponse.FromString(call(request.SerializeToString(), timeout=20))
        return {each.key: each.value for each in answer.response_headers_to_add}["x-costd-reason"]

    first, second = shared.daemons
    assert [ask(first), ask(second), ask(first)] == ["OK", "OK", "OK"]
    # What is left lies with either of them.
    assert ask(second) in {"BUDGET_EXHAUSTED", "NO_LEASE"}


def _reason(desk):
    decision = desk.admit(0.01, labels={"user": "ann"})
    assert not decision.reservation_id
    return decision.reason


def test_a_host_budget_never_leaves_its_daemon(shared, desks):
    first, second = desks
    first.settle(first.hold(0.25, labels={"user": "bob"}), 0.25)
    assert first.budget("here", "user=bob").settled == 25 * CENT
    rows = second.operators.ListBudgets(cpb.ListBudgetsRequest(budget="here")).budgets
    assert "user=bob" not in {row.key for row in rows}
    assert shared.problems() == []
