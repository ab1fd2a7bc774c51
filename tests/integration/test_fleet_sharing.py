"""Two daemons on one budget: how far it is used, and that nobody passes it."""

import threading

from desk import Desk, poll

from costd.wire.pb import admission_pb2 as pb

POLICY = """\
version: 1
unmatched: deny
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes:
  draft: {tier: premium, max_output_tokens: 1000}
budgets:
  - {id: shared, window: total, limit: $2}
  - {id: per-user, match: {user: "*"}, per: user, window: total, limit: $1}
  - {id: here, match: {user: "*"}, window: total, limit: $100, share: host}
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


def test_two_daemons_use_one_budget_up_and_never_pass_it(fleet):
    running = fleet(POLICY).start(daemons=2)
    desks = [Desk(daemon) for daemon in running.daemons]
    outcomes = [[], []]
    threads = [
        threading.Thread(target=spend, args=(desk, 1, outcome))
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
    assert running.problems() == []


def test_the_last_cent_is_found_at_whoever_holds_it(fleet):
    running = fleet(POLICY).start(daemons=2)
    first, second = (Desk(daemon) for daemon in running.daemons)
    held = [first.hold(0.50, labels={"user": "ann"})]
    # Only what the first one holds and does not use is left; it is asked to give that back.
    poll(lambda: second.admit(0.50, labels={"user": "ann"}).reservation_id)
    assert first.admit(0.01, labels={"user": "ann"}).reason == pb.REASON_BUDGET_EXHAUSTED
    first.void(held[0])
    assert second.hold(0.50, labels={"user": "ann"})
    assert running.problems() == []


def test_a_host_budget_never_leaves_its_daemon(fleet):
    running = fleet(POLICY).start(daemons=2)
    first, second = (Desk(daemon) for daemon in running.daemons)
    first.settle(first.hold(0.25, labels={"user": "ann"}), 0.25)
    assert first.budget("here").settled == 25 * CENT
    assert second.budget("here").settled == 0
    assert running.problems() == []
