import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

import grpc
import pytest

from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb.admission_pb2_grpc import AdmissionStub
from costd.wire.pb.control_pb2_grpc import ControlStub

CALLERS_COUNT = 32
DOLLAR_NUSD = 1_000_000_000
POLICY = """\
version: 1
task_classes: {draft: {}}
default_task_class: draft
budgets:
  - {id: shared, match: {project: shared}, window: total, limit: $1}
  - {id: last-nanos, match: {project: nanos}, window: total, limit: "$0.00000001"}
  - {id: each, match: {project: each}, per: user, window: total, limit: $1}
  - {id: churned, match: {project: churned}, per: user, window: total, limit: $1}
"""


@pytest.fixture
def daemon(fresh_daemon):
    return fresh_daemon(POLICY).start()


def ask(project, user, cost_nusd):
    return pb.AdmitRequest(
        ask_id=str(uuid.uuid4()),
        labels={"project": project, "user": user},
        estimated_cost_nusd=cost_nusd,
    )


def race(daemon, run):
    """Let so many callers, each on a connection of its own, begin `run(stub, number)` at once."""
    barrier = Barrier(CALLERS_COUNT)
    with ExitStack() as stack:
        stubs = []
        for number in range(CALLERS_COUNT):
            # Without this, gRPC would share one connection between all channels.
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(daemon.address, options=options))
            grpc.channel_ready_future(channel).result(timeout=30)
            stubs.append((AdmissionStub(channel), number))

        def caller(stub_and_number):
            barrier.wait()
            return run(*stub_and_number)

        with ThreadPoolExecutor(CALLERS_COUNT) as threads:
            return list(threads.map(caller, stubs))


def budget(daemon, name, key=""):
    with grpc.insecure_channel(daemon.control_address) as channel:
        listed = ControlStub(channel).ListBudgets(cpb.ListBudgetsRequest(budget=name)).budgets
    (row,) = [row for row in listed if row.key == key]
    return row


def allowed(decisions):
    return [decision for decision in decisions if decision.verdict == pb.VERDICT_ALLOW]


def test_callers_racing_for_the_last_dollar_stop_at_the_last_hold_that_fits(daemon):
    cost_nusd = 37_000_001
    decisions = race(daemon, lambda stub, _: stub.Admit(ask("shared", "ann", cost_nusd)))
    held = sum(decision.hold_nusd for decision in allowed(decisions))
    row = budget(daemon, "shared")
    assert len(allowed(decisions)) == DOLLAR_NUSD // cost_nusd == 27
    assert row.reserved == held <= row.limit == DOLLAR_NUSD
    refused = {d.reason for d in decisions if d.verdict != pb.VERDICT_ALLOW}
    assert refused == {pb.REASON_BUDGET_EXHAUSTED}


def test_the_last_ten_nano_dollars_buy_exactly_ten_calls_of_one(daemon):
    decisions = race(daemon, lambda stub, _: stub.Admit(ask("nanos", "ann", 1)))
    assert len(allowed(decisions)) == 10
    assert budget(daemon, "last-nanos").reserved == 10


@pytest.mark.parametrize("user", ["new-1", "new-2", "new-3"])
def test_first_asks_of_an_unknown_user_share_one_counter(daemon, user):
    cost_nusd = 70_000_003
    decisions = race(daemon, lambda stub, _: stub.Admit(ask("each", user, cost_nusd)))
    assert len(allowed(decisions)) == DOLLAR_NUSD // cost_nusd == 14
    assert budget(daemon, "each", f"user={user}").reserved == 14 * cost_nusd


def test_first_asks_of_many_unknown_users_each_have_their_own_dollar(daemon):
    users = [f"user-{number % 8}" for number in range(CALLERS_COUNT)]
    decisions = race(
        daemon, lambda stub, number: stub.Admit(ask("each", users[number], 400_000_000))
    )
    for user in set(users):
        got = [d for d, asked in zip(decisions, users, strict=True) if asked == user]
        assert len(allowed(got)) == 2
        assert budget(daemon, "each", f"user={user}").reserved == 800_000_000


def test_callers_that_hold_and_let_go_never_hold_more_than_the_dollar_together(daemon):
    def churn(stub, number):
        chance, open_nusd, spent_nusd = random.Random(number), 0, 0
        for _ in range(15):
            decision = stub.Admit(ask("churned", "zed", chance.randrange(1, 200_000_000)))
            if decision.verdict != pb.VERDICT_ALLOW:
                assert decision.binding.used <= DOLLAR_NUSD
                continue
            what = chance.random()
            if what < 0.7:
                stub.Void(pb.VoidRequest(reservation_id=decision.reservation_id))
            elif what < 0.9:
                cost_nusd = chance.randrange(decision.hold_nusd // 20 + 1)
                stub.Settle(
                    pb.SettleRequest(reservation_id=decision.reservation_id, cost_nusd=cost_nusd)
                )
                spent_nusd += cost_nusd
            else:
                open_nusd += decision.hold_nusd
        return open_nusd, spent_nusd

    kept = race(daemon, churn)
    row = budget(daemon, "churned", "user=zed")
    assert row.reserved == sum(open_nusd for open_nusd, _ in kept)
    assert row.settled == sum(spent_nusd for _, spent_nusd in kept)
    assert 0 < row.reserved + row.settled <= DOLLAR_NUSD
