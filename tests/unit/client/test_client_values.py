"""Ids, labels in context, retry schedules, errors."""

import asyncio
import pickle
import uuid

import grpc
import pytest
from costd_client import Denied, labels
from costd_client.context import ambient
from costd_client.decision import Decision, Reason, Source
from costd_client.ids import new_ask_id, uuid7
from costd_client.pb import admission_pb2 as pb
from costd_client.retry import Attempt, backoff_s, may_have_arrived


def test_an_id_is_a_uuid_of_version_7_that_begins_with_its_time():
    made = uuid.UUID(uuid7(0x0123_4567_89AB, b"\xff" * 10))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.hex == "0123456789ab7fffbfffffffffffffff"
    assert uuid7(1, b"\xff" * 10) < uuid7(2, b"\x00" * 10)
    assert len({new_ask_id() for _ in range(1_000)}) == 1_000


def test_labels_nest_and_end_with_their_block():
    with labels(run="r1", team="a", task_class="draft"):
        with labels(team="b", step=3, override_grant="g"):
            assert dict(ambient().labels) == {"run": "r1", "team": "b", "step": "3"}
            assert (ambient().task_class, ambient().override_grant) == ("draft", "g")
        assert dict(ambient().labels) == {"run": "r1", "team": "a"}
    assert dict(ambient().labels) == {}


async def test_labels_do_not_leak_between_tasks():
    async def work(name):
        with labels(agent=name):
            await asyncio.sleep(0)
            return dict(ambient().labels)

    assert await asyncio.gather(work("x"), work("y")) == [{"agent": "x"}, {"agent": "y"}]


@pytest.mark.parametrize(
    ("number", "jitter", "wait_ms"),
    [(1, 0.0, 10), (1, 0.999, 20), (2, 0.999, 40), (5, 0.999, 320)],
)
def test_waits_double_with_jitter(number, jitter, wait_ms):
    attempt = Attempt(number, now_s=0, deadline_s=10)
    assert round(backoff_s(attempt, jitter=jitter, attempts_count_max=6) * 1_000) == wait_ms


def test_tries_end():
    assert backoff_s(Attempt(6, now_s=0, deadline_s=10), jitter=0, attempts_count_max=6) is None


def test_no_wait_goes_past_the_deadline():
    attempt = Attempt(1, now_s=9.995, deadline_s=10)
    assert backoff_s(attempt, jitter=0, attempts_count_max=6) is None
    assert attempt.timeout_s == pytest.approx(0.005)
    assert Attempt(1, now_s=11, deadline_s=10).timeout_s == 0.001


@pytest.mark.parametrize(
    ("code", "details", "arrived"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", True),
        (grpc.StatusCode.CANCELLED, "CANCELLED", True),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", True),
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses", False),
        (grpc.StatusCode.INVALID_ARGUMENT, "", False),
    ],
)
def test_what_may_have_arrived_is_told_from_the_status(code, details, arrived):
    assert may_have_arrived(code, details) is arrived


def test_a_denial_survives_a_process_boundary():
    wire = pb.Decision(verdict=pb.VERDICT_DENY, reason=pb.REASON_KILL_SWITCH, message="stop")
    ask = pb.AdmitRequest(ask_id="x" * 16)
    error = Denied(Decision(wire, ask=ask, ask_id=ask.ask_id, source=Source.DAEMON))
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "KILL_SWITCH: stop"
    assert copy.decision.ask == ask


def test_a_reason_of_a_newer_daemon_is_unknown_not_an_error():
    wire = pb.Decision()
    wire.ParseFromString(b"\x10\x63")
    decision = Decision(wire, ask=pb.AdmitRequest(), ask_id="", source="daemon")
    assert decision.reason is Reason.UNKNOWN
    assert decision.wire.reason == 99


def test_the_enums_are_those_of_the_contract():
    assert {reason.name: reason.value for reason in Reason if reason} == {
        name.removeprefix("REASON_"): number for name, number in pb.Reason.items() if number
    }
