"""The same request twice, over the socket: one decision, one reservation, one charge."""

import signal

import pytest
from desk import Desk, ask, new_id
from google.protobuf.duration_pb2 import Duration

from costd.testing import DaemonProcess
from costd.wire.pb import admission_pb2 as pb

POLICY = """\
version: 1
unmatched: deny
tiers:
  premium: {models: [openai/gpt-4o]}
  economy: {models: [openai/gpt-4o-mini]}
task_classes:
  draft: {tier: premium, max_output_tokens: 1000}
  review: {critical: true, tier: premium}
budgets:
  - {id: all, window: total}
  - {id: per-user, match: {user: "*"}, per: user, window: total, limit: $5}
expiry: {ttl: 1h, ttl_max: 2h}
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    policy = tmp_path_factory.mktemp("replays") / "policy.yaml"
    policy.write_text(POLICY)
    with DaemonProcess(policy, "--claims", "*") as daemon:
        desk = Desk(daemon)
        yield desk
        desk.close()


def same_answer(first, again):
    """Compare all that a replay must repeat; only its state may have moved on."""
    expected = pb.Decision()
    expected.CopyFrom(first)
    expected.replayed, expected.state = True, again.state
    assert again == expected


# ---- asks ---------------------------------------------------------------------------------------


def test_the_same_ask_gets_the_same_answer_and_holds_once(desk):
    request = ask(1, labels={"user": "ann"})
    first = desk.agents.Admit(request)
    before = desk.books()
    for _ in range(3):
        again = desk.agents.Admit(request)
        same_answer(first, again)
        assert again.state == pb.RESERVATION_STATE_HELD
    assert not first.replayed
    assert desk.books() == before
    assert desk.budget("per-user", "user=ann").reserved == 1_000_000_000


def test_a_field_that_is_set_to_what_it_is_by_default_is_the_same_ask(desk):
    first = ask(0.5, labels={"user": "bea"})
    again = pb.AdmitRequest()
    again.CopyFrom(first)
    again.ttl.seconds, again.tier, again.batch = 0, "", False
    assert desk.agents.Admit(first).reservation_id == desk.agents.Admit(again).reservation_id


OTHER_FIELDS = {
    "estimated_cost_nusd": 999,
    "prompt_tokens": 10,
    "max_output_tokens": 10,
    "task_class": "review",
    "labels": {"user": "cat", "project": "x"},
    "provider": "openai",
    "model": "gpt-4o-mini",
    "tier": "economy",
    "acceptable_models": ["gpt-4o"],
    "override_grant": "a.b.c",
    "ttl": Duration(seconds=60),
    "batch": True,
    "cost_kind": "image",
    "units": {"requests": 2},
}


def test_every_field_of_an_ask_is_tried_below():
    fields = {field.name for field in pb.AdmitRequest.DESCRIPTOR.fields}
    assert fields == {"ask_id", *OTHER_FIELDS}


@pytest.mark.parametrize("field", OTHER_FIELDS)
def test_the_same_id_with_another_field_is_refused_by_the_field_s_name(desk, field):
    sound = {"ask_id": new_id(), "labels": {"user": "cat"}, "estimated_cost_nusd": 1000}
    first = desk.agents.Admit(ask(**sound))
    before = desk.books()
    refusal = desk.refusal(desk.agents.Admit, ask(**(sound | {field: OTHER_FIELDS[field]})))
    assert refusal.code == "ALREADY_EXISTS"
    assert f"with another {field};" in refusal.details
    assert sound["ask_id"] in refusal.details
    assert desk.books() == before
    same_answer(first, desk.agents.Admit(ask(**sound)))


def test_two_callers_with_the_same_id_do_not_share_a_reservation(desk):
    request = ask(0.25, labels={"user": "dan"})
    calls = {
        caller: desk.agents.Admit(request, metadata=(("costd-caller", caller),) if caller else ())
        for caller in ("", "ann", "bob", "ann ")
    }
    assert len({decision.reservation_id for decision in calls.values()}) == 4
    assert not any(decision.replayed for decision in calls.values())
    assert desk.budget("per-user", "user=dan").reserved == 1_000_000_000
    desk.void(calls["ann"].reservation_id)
    again = desk.agents.Admit(request, metadata=(("costd-caller", "bob"),))
    assert again.state == pb.RESERVATION_STATE_HELD
    assert desk.reservation(again.reservation_id).caller == "bob"


def test_other_fields_under_another_caller_s_id_are_another_ask(desk):
    identity = new_id()
    mine = desk.admit(0.1, ask_id=identity, caller="ann")
    theirs = desk.admit(0.2, ask_id=identity, caller="bob", task_class="review")
    assert mine.reservation_id != theirs.reservation_id


def test_a_denial_is_decided_anew(desk):
    request = ask(5, labels={"user": "eve"})
    held = desk.hold(1, labels={"user": "eve"})
    assert desk.agents.Admit(request).verdict == pb.VERDICT_DENY
    desk.void(held)
    decision = desk.agents.Admit(request)
    assert decision.verdict == pb.VERDICT_ALLOW
    assert not decision.replayed


@pytest.mark.parametrize(
    ("close", "state"),
    [
        (lambda desk, held: desk.settle(held, 0.7), pb.RESERVATION_STATE_SETTLED),
        (lambda desk, held: desk.void(held), pb.RESERVATION_STATE_VOIDED),
    ],
    ids=["settled", "voided"],
)
def test_a_replay_shows_how_its_reservation_was_closed(desk, close, state):
    request = ask(1, labels={"user": "fay"})
    first = desk.agents.Admit(request)
    close(desk, first.reservation_id)
    before = desk.books()
    again = desk.agents.Admit(request)
    same_answer(first, again)
    assert again.state == state
    assert desk.books() == before


def test_a_kill_switch_beats_a_replay_until_it_is_released(desk):
    request = ask(0.5, labels={"user": "gil"})
    first = desk.agents.Admit(request)
    desk.engage("gil-stops", scope={"user": "gil"})
    stopped = desk.agents.Admit(request)
    assert stopped.verdict == pb.VERDICT_DENY
    assert stopped.reason == pb.REASON_KILL_SWITCH
    assert stopped.binding.rule == "gil-stops"
    assert desk.budget("per-user", "user=gil").reserved == 500_000_000
    desk.release("gil-stops")
    same_answer(first, desk.agents.Admit(request))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "kill -9"])
def test_replays_survive_a_restart(desk, number):
    held, closed = ask(0.5, labels={"user": "hal"}), ask(0.25, labels={"user": "hal"})
    first, second = desk.agents.Admit(held), desk.agents.Admit(closed)
    desk.settle(second.reservation_id, 0.3)
    record = pb.RecordRequest(record_id=new_id(), task_class="draft", cost_nusd=7)
    desk.agents.Record(record)
    before = desk.books()
    if number is signal.SIGKILL:
        desk.kill_9()
    else:
        desk.restart()
    again = desk.agents.Admit(held)
    same_answer(first, again)
    assert again.state == pb.RESERVATION_STATE_HELD
    assert desk.agents.Admit(closed).state == pb.RESERVATION_STATE_SETTLED
    assert desk.settle(second.reservation_id, 0.3).replayed
    assert desk.agents.Record(record).replayed
    refusal = desk.refusal(desk.agents.Admit, ask(0.6, ask_id=held.ask_id, labels={"user": "hal"}))
    assert refusal.code == "ALREADY_EXISTS"
    assert "estimated_cost_nusd" in refusal.details
    assert desk.books() == before
    desk.void(first.reservation_id)


# ---- settles, voids, extensions -----------------------------------------------------------------


def test_the_same_settle_twice_charges_once_and_another_is_refused(desk):
    held = desk.hold(1, labels={"user": "ida"})
    first = desk.settle(held, 0.75)
    before = desk.books()
    again = desk.settle(held, 0.75)
    assert (first.replayed, again.replayed) == (False, True)
    assert (again.cost_nusd, again.state) == (750_000_000, pb.RESERVATION_STATE_SETTLED)
    refusal = desk.refusal(desk.settle, held, 0.76)
    assert refusal.code == "FAILED_PRECONDITION"
    assert "settled at 750000000 nano-USD" in refusal.details
    assert "760000000" in refusal.details
    assert desk.refusal(desk.void, held).code == "FAILED_PRECONDITION"
    assert desk.refusal(desk.extend, held, 0.1).code == "FAILED_PRECONDITION"
    assert desk.books() == before
    assert desk.budget("per-user", "user=ida").settled == 750_000_000


def test_the_same_void_twice_changes_nothing_and_a_settle_after_it_is_refused(desk):
    held = desk.hold(1, labels={"user": "jon"})
    assert not desk.void(held).replayed
    before = desk.books()
    assert desk.void(held).replayed
    refusal = desk.refusal(desk.settle, held, 0.1)
    assert refusal.code == "FAILED_PRECONDITION"
    assert "voided" in refusal.details
    assert desk.books() == before


# ---- records ------------------------------------------------------------------------------------


def test_a_record_twice_is_charged_once_and_another_under_its_id_is_refused(desk):
    fields = {"record_id": new_id(), "labels": {"user": "kay"}}
    first = desk.record(0.5, **fields)
    before = desk.books()
    again = desk.record(0.5, **fields)
    assert (first.replayed, again.replayed) == (False, True)
    assert again.reservation_id == first.reservation_id
    refusal = desk.refusal(desk.record, 0.6, **fields)
    assert refusal.code == "ALREADY_EXISTS"
    assert "cost_nusd" in refusal.details or "nano-USD" in refusal.details
    refusal = desk.refusal(desk.record, 0.5, **(fields | {"labels": {"user": "lee"}}))
    assert refusal.code == "ALREADY_EXISTS"
    assert "another labels;" in refusal.details
    assert desk.books() == before
    row = desk.budget("per-user", "user=kay")
    assert (row.settled, row.unadmitted) == (500_000_000, 500_000_000)


def test_two_callers_records_under_one_id_are_both_charged(desk):
    fields = {"record_id": new_id(), "labels": {"user": "max"}}
    desk.record(0.5, caller="ann", **fields)
    assert not desk.record(0.25, caller="bob", **fields).replayed
    assert desk.budget("per-user", "user=max").settled == 750_000_000


def test_a_record_under_an_admitted_ask_s_id_settles_it(desk):
    """A client whose answer was lost failed open, and records the call under the ask's id."""
    identity = new_id()
    held = desk.hold(1, ask_id=identity, labels={"user": "ned"})
    recorded = desk.record(0.4, record_id=identity, labels={"user": "ned"})
    assert recorded.reservation_id == held
    assert recorded.state == pb.RESERVATION_STATE_SETTLED
    assert recorded.hold_nusd == 1_000_000_000
    row = desk.budget("per-user", "user=ned")
    assert (row.settled, row.reserved, row.unadmitted) == (400_000_000, 0, 0)
    assert desk.record(0.4, record_id=identity, labels={"user": "ned"}).replayed
    assert desk.settle(held, 0.4).replayed
    refusal = desk.refusal(desk.record, 0.5, record_id=identity, labels={"user": "ned"})
    assert refusal.code in {"FAILED_PRECONDITION", "ALREADY_EXISTS"}
    assert desk.budget("per-user", "user=ned").settled == 400_000_000


def test_an_ask_under_a_record_s_id_does_not_pass_for_new(desk):
    identity = new_id()
    desk.record(0.4, record_id=identity, labels={"user": "oda"})
    refusal = desk.refusal(desk.admit, 0.4, ask_id=identity, labels={"user": "oda"})
    assert refusal.code == "ALREADY_EXISTS"
    assert desk.budget("per-user", "user=oda").settled == 400_000_000
