"""The client's rules without I/O: effects are played by hand, time is a number."""

import grpc
import pytest
from costd_client.decision import Outcome
from costd_client.errors import (
    CostdError,
    DaemonFailed,
    IdReused,
    InvalidAsk,
    NotPermitted,
    OutboxFull,
    Overloaded,
    ReservationClosed,
    ReservationNotFound,
    Unauthenticated,
    Unavailable,
)
from costd_client.fail_mode import FailMode, SafeAllowance
from costd_client.outbox import Delivery, Outbox
from costd_client.pb import admission_pb2 as pb
from costd_client.requests import Closing, Defaults
from costd_client.rules import Clock, Rules, Settings
from costd_client.spool import Entry
from costd_client.steps import Rpc, RpcFailed, Sleep

DOWN = RpcFailed(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses")
BROKE_OFF = RpcFailed(grpc.StatusCode.UNAVAILABLE, "Socket closed")
TOO_LATE = RpcFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
ALLOW = pb.Decision(verdict=pb.VERDICT_ALLOW, reservation_id="res-1", model="m", source="daemon")
ASK = {"model": "m", "prompt_tokens": 600, "max_output_tokens": 400, "labels": {"run": "r1"}}


class Desk:
    """Rules with a clock that only waiting moves, and an outbox that nobody empties."""

    def __init__(self, mode=FailMode.CLOSED, *, allowance_nusd=0, capacity_count=5, **settings):
        self.now_ns = 1_000_000_000_000
        self.sent = []
        self.waits_s = []
        self.outbox = Outbox(lambda _: Delivery.UNREACHABLE, capacity_count=capacity_count)
        self.outbox._start = lambda: None
        clock = Clock(
            monotonic_ns=lambda: self.now_ns, wall_ns=lambda: self.now_ns, jitter=lambda: 0.5
        )
        self.rules = Rules(
            Settings(
                fail_mode=mode, clock=clock, defaults=Defaults(labels={"team": "a"}), **settings
            ),
            self.outbox,
            SafeAllowance(allowance_nusd),
        )

    def play(self, steps, *answers, took_s=0.0):
        """Answer each request with the next answer, the last one for ever."""
        answers = list(answers)
        try:
            effect = next(steps)
            while True:
                match effect:
                    case Sleep(seconds):
                        self.waits_s.append(seconds)
                        self.now_ns += round(seconds * 1e9)
                        effect = steps.send(None)
                    case Rpc():
                        self.sent.append(effect)
                        self.now_ns += round(took_s * 1e9)
                        answer = answers.pop(0) if len(answers) > 1 else answers[0]
                        if isinstance(answer, BaseException):
                            effect = steps.throw(answer)
                        else:
                            effect = steps.send(answer)
        except StopIteration as done:
            return done.value

    def queued(self):
        """What waits in the outbox, by method."""
        return {entry.method: entry for entry in self.outbox._queue.values()}


def test_an_ask_carries_the_clients_labels_and_an_id_of_its_own():
    desk = Desk()
    decision = desk.play(desk.rules.admit(ASK), ALLOW)
    request = desk.sent[0].request
    assert dict(request.labels) == {"team": "a", "run": "r1"}
    assert len(request.ask_id) == 36
    assert decision.allowed
    assert decision.source == "daemon"
    assert decision.max_output_tokens == 400
    with pytest.raises(TypeError, match="no truth value"):
        bool(decision)


def test_an_ask_is_repeated_with_the_same_id_until_it_is_answered():
    desk = Desk()
    decision = desk.play(desk.rules.admit(ASK), DOWN, BROKE_OFF, ALLOW)
    assert decision.allowed
    assert len({rpc.request.ask_id for rpc in desk.sent}) == 1
    assert desk.waits_s == [0.015, 0.03]
    assert desk.outbox.pending.queued_count == 0


def test_retries_end_with_the_deadline():
    desk = Desk(timeout_s=1.0)
    with pytest.raises(Unavailable, match="fail mode is closed"):
        desk.play(desk.rules.admit(ASK), BROKE_OFF, took_s=0.4)
    assert [round(rpc.timeout_s, 3) for rpc in desk.sent] == [1.0, 0.585, 0.155]


def test_who_fails_closed_always_waits_for_the_deadline():
    desk = Desk()
    for _ in range(2):
        began_ns = desk.now_ns
        with pytest.raises(Unavailable):
            desk.play(desk.rules.admit(ASK), DOWN)
        assert 1.5 <= (desk.now_ns - began_ns) / 1e9 < 2


def test_who_fails_open_waits_once_and_then_tries_once_until_the_daemon_answers():
    desk = Desk(FailMode.OPEN, capacity_count=50)
    desk.play(desk.rules.admit(ASK), DOWN)
    assert len(desk.sent) > 5
    desk.sent.clear()
    desk.play(desk.rules.admit(ASK), DOWN)
    assert [rpc.timeout_s for rpc in desk.sent] == [0.5]
    desk.play(desk.rules.admit(ASK), ALLOW)
    desk.play(desk.rules.admit(ASK), DOWN, ALLOW)
    assert len(desk.sent) == 4, "patient again, because the daemon answered"


def test_who_fails_open_becomes_patient_again_after_a_while():
    desk = Desk(FailMode.OPEN)
    desk.play(desk.rules.admit(ASK), DOWN)
    desk.now_ns += 6_000_000_000
    assert desk.play(desk.rules.admit(ASK), DOWN, ALLOW).source == "daemon"


def test_a_delivery_that_succeeds_makes_patient_too():
    desk = Desk(FailMode.OPEN)
    desk.play(desk.rules.admit(ASK), DOWN)
    desk.play(desk.rules.deliver(Entry("x", "Record", b"")), pb.Settlement())
    assert desk.play(desk.rules.admit(ASK), DOWN, ALLOW).source == "daemon"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidAsk),
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
        (grpc.StatusCode.PERMISSION_DENIED, NotPermitted),
        (grpc.StatusCode.NOT_FOUND, ReservationNotFound),
        (grpc.StatusCode.ALREADY_EXISTS, IdReused),
        (grpc.StatusCode.FAILED_PRECONDITION, ReservationClosed),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.DATA_LOSS, DaemonFailed),
        (grpc.StatusCode.INTERNAL, DaemonFailed),
        (grpc.StatusCode.UNIMPLEMENTED, DaemonFailed),
    ],
)
def test_any_other_error_is_raised_even_when_failing_open(status, error):
    desk = Desk(FailMode.OPEN)
    with pytest.raises(error, match="what and where") as caught:
        desk.play(desk.rules.admit(ASK), RpcFailed(status, "what and where"))
    assert caught.value.code is status
    assert isinstance(caught.value.__cause__, RpcFailed)
    assert desk.outbox.pending == (0, 0, 0)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prompt_tokens": -1}, "prompt_tokens"),
        ({"prompt_tokens": 2**70}, "prompt_tokens"),
        ({"prompt_tokens": "many"}, "prompt_tokens"),
        ({"estimated_cost_nusd": -5}, "estimated_cost_nusd"),
        ({"labels": {"model": "x"}}, r"labels\[model\]"),
        ({"labels": {"a": "x" * 257}}, r"labels\[a\]"),
        ({"labels": {"a": "\x00"}}, "cannot be printed"),
        ({"labels": {"": "x"}}, "labels: key"),
        ({"labels": {str(n): "x" for n in range(65)}}, "labels has 66"),
        ({"ask_id": "short"}, "ask_id has 5"),
        ({"acceptable_models": ["m"] * 65}, "acceptable_models"),
        ({"ttl_s": -1}, "-1 seconds"),
        ({"model": "\ud800"}, "model"),
        ({"max_tokens": 5}, "max_tokens"),
    ],
)
def test_a_malformed_ask_never_leaves_even_when_failing_open(fields, named):
    desk = Desk(FailMode.OPEN)
    with pytest.raises(InvalidAsk, match=named):
        desk.play(desk.rules.admit({**ASK, **fields}), DOWN)
    assert desk.sent == []


def test_failing_open_lets_the_call_go_and_records_it_under_the_asks_id():
    desk = Desk(FailMode.OPEN)
    decision = desk.play(desk.rules.admit({**ASK, "task_class": "draft"}), DOWN)
    assert decision.allowed
    assert decision.source == "fail_open"
    assert decision.model == "m"
    assert desk.outbox.pending == (0, 1, 0)
    closing = Closing(
        usage=pb.Usage(prompt_tokens=7, output_tokens=3),
        duration_ns=5,
        outcome=Outcome.OK,
        retry_count=2,
    )
    assert desk.play(desk.rules.settle(decision, closing), DOWN).queued
    record = pb.RecordRequest.FromString(desk.queued()["Record"].request)
    assert record.record_id == decision.ask_id
    assert dict(record.labels) == {"team": "a", "run": "r1"}
    assert (record.task_class, record.model) == ("draft", "m")
    assert (record.usage.prompt_tokens, record.usage.output_tokens) == (7, 3)
    assert record.happened_ns == desk.now_ns - 5
    assert (record.outcome, record.retry_count) == (pb.OUTCOME_OK, 2)
    assert desk.outbox.pending == (1, 0, 0)


def test_an_undecided_call_that_never_left_is_forgotten():
    desk = Desk(FailMode.OPEN)
    decision = desk.play(desk.rules.admit(ASK), DOWN)
    desk.play(desk.rules.void(decision), DOWN)
    assert desk.outbox.pending == (0, 0, 0)


def test_an_undecided_call_of_unknown_usage_is_recorded_at_what_it_asked_for():
    desk = Desk(FailMode.OPEN)
    decision = desk.play(desk.rules.admit(ASK), DOWN)
    desk.rules.leave(decision, Closing(outcome=Outcome.TIMEOUT))
    record = pb.RecordRequest.FromString(desk.queued()["Record"].request)
    assert (record.usage.prompt_tokens, record.usage.output_tokens) == (600, 400)
    priced = desk.play(desk.rules.admit({"estimated_cost_nusd": 9}), DOWN)
    desk.outbox._queue.clear()
    desk.rules.leave(priced, Closing())
    assert pb.RecordRequest.FromString(desk.queued()["Record"].request).cost_nusd == 9


def test_failing_open_refuses_calls_that_could_not_be_recorded():
    desk = Desk(FailMode.OPEN, capacity_count=2)
    for _ in range(2):
        desk.play(desk.rules.admit(ASK), DOWN)
    with pytest.raises(OutboxFull, match="outbox_capacity_count"):
        desk.play(desk.rules.admit(ASK), DOWN)


def test_failing_safe_spends_a_fixed_amount_until_the_daemon_answers():
    desk = Desk(FailMode.SAFE, allowance_nusd=25, price_guess_nusd_per_1k_tokens=10)
    first = desk.play(desk.rules.admit(ASK), DOWN)
    assert first.source == "fail_safe"
    second = desk.play(desk.rules.admit(ASK), DOWN)
    with pytest.raises(Unavailable, match="takes 10 nusd and 5 of the safe allowance"):
        desk.play(desk.rules.admit(ASK), DOWN)
    desk.play(desk.rules.void(second), DOWN)
    assert desk.play(desk.rules.admit({"estimated_cost_nusd": 15}), DOWN).allowed
    desk.play(desk.rules.admit(ASK), ALLOW)
    assert desk.rules.allowance.left_nusd == 25


def test_failing_safe_never_lets_an_unknown_cost_go():
    desk = Desk(FailMode.SAFE, allowance_nusd=10**12)
    with pytest.raises(Unavailable, match="cost is unknown"):
        desk.play(desk.rules.admit(ASK), DOWN)
    guessing = Desk(FailMode.SAFE, allowance_nusd=10**12, price_guess_nusd_per_1k_tokens=1)
    with pytest.raises(Unavailable, match="cost is unknown"):
        guessing.play(guessing.rules.admit({"model": "m", "prompt_tokens": 5}), DOWN)


@pytest.mark.parametrize(("failure", "abandoned"), [(DOWN, False), (TOO_LATE, True)])
def test_an_ask_that_may_have_arrived_is_undone_when_its_call_is_not_made(failure, abandoned):
    desk = Desk()
    with pytest.raises(Unavailable):
        desk.play(desk.rules.admit(ASK), RpcFailed(failure.code, failure.details))
    assert ("Abandon" in desk.queued()) is abandoned


def test_a_cancelled_ask_is_undone():
    desk = Desk()
    with pytest.raises(KeyboardInterrupt):
        desk.play(desk.rules.admit(ASK), KeyboardInterrupt())
    assert "Abandon" in desk.queued()


def test_undoing_an_ask_voids_what_it_held():
    desk = Desk()
    entry = Entry("x", "Abandon", pb.AdmitRequest(ask_id="x" * 16).SerializeToString())
    assert desk.play(desk.rules.deliver(entry), ALLOW, pb.Settlement()) is Delivery.DONE
    assert [rpc.method for rpc in desk.sent] == ["Admit", "Void"]
    assert desk.sent[1].request.reservation_id == "res-1"


@pytest.mark.parametrize(
    ("status", "delivery"),
    [
        (grpc.StatusCode.UNAVAILABLE, Delivery.UNREACHABLE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Delivery.UNREACHABLE),
        (grpc.StatusCode.INTERNAL, Delivery.FAILED),
        (grpc.StatusCode.INVALID_ARGUMENT, Delivery.REJECTED),
        (grpc.StatusCode.NOT_FOUND, Delivery.REJECTED),
    ],
)
def test_a_delivery_is_repeated_only_where_that_can_help(status, delivery):
    desk = Desk()
    entry = Entry("x", "Record", b"")
    assert desk.play(desk.rules.deliver(entry), RpcFailed(status, "")) is delivery


@pytest.mark.parametrize(
    "entry",
    [
        Entry("x", "Record", b"\xff torn"),
        Entry("x", "Recall", b""),
        Entry("x", ["Record"], b""),
    ],
)
def test_what_a_spool_holds_and_nobody_can_read_is_kept_for_people(entry, caplog):
    desk = Desk()
    assert desk.play(desk.rules.deliver(entry)) is Delivery.REJECTED
    assert not desk.sent
    assert "cannot be read" in caplog.text


def test_a_settlement_that_cannot_be_delivered_waits():
    desk = Desk()
    decision = desk.play(desk.rules.admit(ASK), ALLOW)
    settlement = desk.play(desk.rules.settle(decision, Closing(cost_nusd=5)), DOWN)
    assert settlement.queued
    assert settlement.cost_nusd is None
    request = pb.SettleRequest.FromString(desk.queued()["Settle"].request)
    assert (request.reservation_id, request.cost_nusd) == ("res-1", 5)


def test_settling_what_holds_nothing_is_an_error():
    desk = Desk()
    denied = desk.play(desk.rules.admit(ASK), pb.Decision(verdict=pb.VERDICT_DENY))
    assert not denied.allowed
    with pytest.raises(CostdError, match="holds no money"):
        desk.play(desk.rules.settle(denied, Closing(cost_nusd=5)), DOWN)


def test_an_explanation_has_no_fail_mode():
    desk = Desk(FailMode.OPEN)
    with pytest.raises(Unavailable):
        desk.play(desk.rules.explain(ASK), DOWN)
