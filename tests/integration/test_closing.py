"""Settling, voiding, extending and expiring over the socket, where it does not go as asked."""

import pytest
from desk import USD, Desk, poll
from google.protobuf.duration_pb2 import Duration

from costd.testing import DaemonProcess
from costd.wire.pb import admission_pb2 as pb

POLICY = """\
version: 1
unmatched: deny
tiers:
  premium: {models: [openai/gpt-4o]}
  free: {models: [mine/free]}
task_classes:
  draft: {tier: premium, max_output_tokens: 1000}
budgets:
  - {id: all, window: total}
  - {id: per-user, match: {user: "*"}, per: user, window: total, limit: $5}
prices:
  - {models: mine/free, input: $0, output: $0}
expiry: {ttl: 1h, ttl_max: 2h, late_settle: 1h}
"""
SECOND = Duration(seconds=1)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    policy = tmp_path_factory.mktemp("closing") / "policy.yaml"
    policy.write_text(POLICY)
    with DaemonProcess(policy) as daemon:
        desk = Desk(daemon)
        yield desk
        desk.close()


def user(name):
    return {"labels": {"user": name}}


def columns(desk, name, *wanted):
    row = desk.budget("per-user", f"user={name}")
    return tuple(getattr(row, column) / USD for column in wanted)


def test_a_settle_above_the_hold_is_charged_counted_and_alerted(desk):
    held = desk.hold(1, **user("ann"))
    settled = desk.settle(held, 1.75)
    assert (settled.cost_nusd, settled.overrun_nusd) == (1_750_000_000, 750_000_000)
    assert columns(desk, "ann", "settled", "reserved", "overrun") == (1.75, 0, 0.75)
    ask_id = desk.reservation(held).ask_id
    (alert,) = [alert for alert in desk.alerts("overrun") if ask_id in alert.message]
    assert alert.amount_nusd == 750_000_000
    assert "$0.75 more than the $1.00 held" in alert.message
    desk.daemon.wait_for("alert", kind="overrun", amount_nusd=750_000_000)


def test_a_settle_far_above_the_limit_is_charged_in_full_and_the_books_say_why(desk):
    desk.settle(desk.hold(5, **user("bob")), 50)
    assert columns(desk, "bob", "settled", "limit", "overrun") == (50, 5, 45)
    assert desk.admit(0.01, **user("bob")).reason == pb.REASON_BUDGET_EXHAUSTED


@pytest.mark.parametrize(
    "zero",
    [{"cost_nusd": 0}, {"usage": pb.Usage(prompt_tokens=0, output_tokens=0)}],
    ids=["cost", "usage"],
)
def test_an_explicit_zero_stays_zero(desk, zero):
    held = desk.hold(1, **user("cat"))
    settled = desk.settle(held, **zero)
    assert settled.state == pb.RESERVATION_STATE_SETTLED
    assert (settled.cost_nusd, settled.overrun_nusd) == (0, 0)
    assert columns(desk, "cat", "settled", "reserved") == (0, 0)
    (event,) = [event for event in desk.usage() if event.reservation_id == held]
    if "usage" in zero:
        assert event.usage.HasField("prompt_tokens")
        assert event.usage.prompt_tokens == 0
        assert not event.usage.HasField("cached_tokens")
    else:
        assert not event.HasField("usage")


def test_a_call_that_costs_nothing_passes_an_empty_budget(desk):
    desk.settle(desk.hold(5, **user("dan")), 5)
    free = {"model": "free", "provider": "mine", "prompt_tokens": 1000, "max_output_tokens": 1000}
    held = desk.admit(**free, **user("dan"))
    assert (held.verdict, held.hold_nusd) == (pb.VERDICT_ALLOW, 0)
    usage = pb.Usage(prompt_tokens=1000, output_tokens=1000)
    assert desk.settle(held.reservation_id, usage=usage).cost_nusd == 0
    assert desk.admit(0.000_000_001, **user("dan")).verdict == pb.VERDICT_DENY


def test_the_smallest_amount_is_held_and_charged_to_the_nano_dollar(desk):
    held = desk.agents.Admit(
        pb.AdmitRequest(ask_id="a-single-nano-dollar", task_class="draft", estimated_cost_nusd=1,
                        labels={"user": "eve"})
    )  # fmt: skip
    assert held.hold_nusd == 1
    assert desk.settle(held.reservation_id, cost_nusd=1).cost_nusd == 1
    assert desk.budget("per-user", "user=eve").settled == 1


def test_the_last_nano_dollar_passes_and_one_more_does_not(desk):
    desk.hold(4.999_999_999, **user("fay"))
    assert desk.admit(0.000_000_002, **user("fay")).would_pass
    assert desk.admit(0.000_000_001, **user("fay")).verdict == pb.VERDICT_ALLOW
    assert desk.admit(0.000_000_001, **user("fay")).verdict == pb.VERDICT_DENY


def test_a_void_after_usage_was_reported_is_refused(desk):
    held = desk.hold(1, model="gpt-4o", **user("gil"))
    usage = pb.Usage(prompt_tokens=1000, output_tokens=100)
    assert desk.extend(held, usage_so_far=usage).reported_nusd == 3_500_000
    before = desk.books()
    refusal = desk.refusal(desk.void, held)
    assert refusal.code == "FAILED_PRECONDITION"
    assert "reported usage" in refusal.details
    assert "settle it" in refusal.details
    assert desk.books() == before
    assert desk.settle(held, usage=usage).cost_nusd == 3_500_000


def test_an_extension_that_does_not_fit_is_an_answer_that_says_stop(desk):
    held = desk.hold(4, **user("hal"))
    fits = desk.extend(held, 1)
    assert (fits.extended, fits.hold_nusd) == (True, 5 * USD)
    assert not fits.HasField("directives")
    before = desk.books()
    refused = desk.extend(held, 0.000_000_001)
    assert not refused.extended
    assert refused.directives.stop
    assert (refused.reason, refused.binding.rule) == (pb.REASON_BUDGET_EXHAUSTED, "per-user")
    assert refused.hold_nusd == 5 * USD
    assert desk.books() == before
    assert desk.settle(held, 5).overrun_nusd == 0


def test_an_extension_moves_the_expiry_never_past_the_policy_s_longest(desk):
    held = desk.hold(0.1, ttl=SECOND, **user("ida"))
    admitted_ns = desk.reservation(held).admitted_ns
    extended = desk.extend(held, ttl=Duration(seconds=9_000))
    assert extended.extended
    assert extended.expires_ns == admitted_ns + 7_200 * USD
    assert desk.reservation(held).expires_ns == extended.expires_ns


def test_what_nobody_closed_is_charged_and_a_late_settle_replaces_it(desk):
    """All of it in one second: an expiry cannot be had sooner."""
    plain, reported, unsettled, replayed = (
        desk.hold(1, ask_id=f"an-ask-that-expires-{n}", model="gpt-4o", ttl=SECOND, **user(name))
        for n, name in enumerate(("plain", "reported", "unsettled", "replayed"))
    )
    usage = pb.Usage(prompt_tokens=1_000_000)  # $2.50
    assert desk.extend(reported, usage_so_far=usage).reported_nusd == 2_500_000_000
    held = (plain, reported, unsettled, replayed)
    poll(lambda: {desk.reservation(each).state for each in held} == {pb.RESERVATION_STATE_EXPIRED})
    assert columns(desk, "plain", "settled", "reserved", "late") == (1, 0, 0)
    assert columns(desk, "reported", "settled", "reserved", "overrun") == (2.5, 0, 1.5)
    events = {event.reservation_id: event for event in desk.usage()}
    assert {events[each].closed_as for each in held} == {"expired"}

    assert desk.refusal(desk.void, unsettled).code == "FAILED_PRECONDITION"
    assert desk.refusal(desk.extend, unsettled, 1).code == "FAILED_PRECONDITION"
    again = desk.admit(
        1, ask_id="an-ask-that-expires-3", model="gpt-4o", ttl=SECOND, **user("replayed")
    )
    assert (again.replayed, again.state) == (True, pb.RESERVATION_STATE_EXPIRED)

    cheaper = desk.settle(plain, 0.25)
    assert (cheaper.late, cheaper.state) == (True, pb.RESERVATION_STATE_SETTLED)
    assert columns(desk, "plain", "settled", "late", "overrun") == (0.25, 0, 0)
    dearer = desk.settle(reported, 3)
    assert (dearer.late, dearer.overrun_nusd) == (True, 2 * USD)
    assert columns(desk, "reported", "settled", "late", "overrun") == (3, 2, 0)
    assert desk.settle(plain, 0.25).replayed
    for name in ("plain", "reported", "unsettled"):
        settled = desk.budget("per-user", f"user={name}").settled
        for by in ("user", "model", "closed_as"):
            assert desk.spent(by, user=name) == (settled, 1), by
    assert desk.spent("outcome", user="plain", outcome="TIMEOUT") == (0, 0)
    assert columns(desk, "unsettled", "settled", "reserved") == (1, 0)


def test_a_record_of_spend_past_the_limit_is_charged_as_unadmitted(desk):
    recorded = desk.record(7, **user("kay"))
    assert recorded.overrun_nusd == 0
    assert columns(desk, "kay", "settled", "unadmitted") == (7, 7)
    assert desk.admit(0.01, **user("kay")).reason == pb.REASON_BUDGET_EXHAUSTED
