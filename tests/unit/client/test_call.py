"""What leaving the `with` block does."""

import asyncio
from dataclasses import replace

import grpc
import pytest
from costd_client import AsyncClient, Client, Denied, InvalidAsk, ReservationClosed
from costd_client.decision import Outcome
from costd_client.ending import Ending, ending, outcome_of
from costd_client.pb import admission_pb2 as pb
from costd_client.rules import Clock

ASK = {"task_class": "draft", "model": "m", "prompt_tokens": 10, "max_output_tokens": 20}


class StoppedClock:
    now_ns = 10**18


def stop_clock(client):
    """Give a client a clock that only the test moves."""
    clock = StoppedClock()
    client.rules.settings = replace(
        client.rules.settings,
        clock=Clock(monotonic_ns=lambda: clock.now_ns, wall_ns=lambda: clock.now_ns),
    )
    return clock


class ServerFailed(Exception):
    status_code = 503


@pytest.mark.parametrize(
    ("usage_given", "voided", "sent", "error", "does"),
    [
        (True, False, False, None, Ending.SETTLE),
        (True, True, True, ValueError(), Ending.SETTLE),
        (False, True, False, None, Ending.VOID),
        (False, True, True, ValueError(), Ending.VOID),
        (False, False, False, None, Ending.LEAVE),
        (False, False, True, None, Ending.LEAVE),
        (False, False, True, ValueError(), Ending.LEAVE),
        (False, False, False, ValueError(), Ending.VOID),
        (False, False, False, KeyboardInterrupt(), Ending.VOID),
        (False, False, False, TimeoutError(), Ending.LEAVE),
        (False, False, False, ServerFailed(), Ending.LEAVE),
    ],
)
def test_the_ending_follows_from_what_is_known(usage_given, voided, sent, error, does):
    assert ending(usage_given=usage_given, voided=voided, sent=sent, error=error) is does


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.OK),
        (ValueError(), Outcome.ERROR),
        (TimeoutError(), Outcome.TIMEOUT),
        (asyncio.CancelledError(), Outcome.CANCELLED),
        (KeyboardInterrupt(), Outcome.CANCELLED),
        (GeneratorExit(), Outcome.CANCELLED),
    ],
)
def test_the_outcome_is_read_from_the_exception(error, outcome):
    assert outcome_of(error) is outcome


def test_a_call_is_settled_with_usage_duration_and_outcome(client, admission):
    clock = stop_clock(client)
    with client.call(**ASK, labels={"run": "r1"}) as call:
        assert call.decision.allowed
        assert (call.model, call.max_output_tokens, call.max_retries) == ("m", 20, None)
        clock.now_ns += 7_000
        call.sent()
        clock.now_ns += 2_000_000
        call.settle({"prompt_tokens": 9, "completion_tokens": 4}, retry_count=1)
        clock.now_ns += 7_000
    settle = admission.of("Settle")[0]
    assert (settle.usage.prompt_tokens, settle.usage.output_tokens) == (9, 4)
    assert settle.duration.ToNanoseconds() == 2_000_000
    assert (settle.outcome, settle.retry_count) == (pb.OUTCOME_OK, 1)
    assert call.settlement.cost_nusd == 77


def test_usage_given_before_an_error_is_settled_with_that_outcome(client, admission):
    def work():
        with client.call(**ASK) as call:
            call.settle(output_tokens=4, prompt_tokens=1)
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        work()
    assert admission.of("Settle")[0].outcome == pb.OUTCOME_ERROR


def test_a_denied_call_raises_and_its_block_does_not_run(client, admission):
    admission.then(
        "Admit",
        pb.Decision(
            verdict=pb.VERDICT_DENY,
            reason=pb.REASON_RATE_LIMITED,
            binding=pb.Binding(rule="per-minute", kind="rate", resets_ns=9),
        ),
    )
    refusal = pytest.raises(Denied, match=r"RATE_LIMITED.*\[rate per-minute\]")
    with refusal as caught, client.call(**ASK):
        pytest.fail("the block ran")
    assert caught.value.resets_ns == 9
    assert admission.of("Settle") == admission.of("Void") == []


def test_a_call_that_never_left_is_voided(client, admission):
    with pytest.raises(ValueError, match="before"), client.call(**ASK):
        raise ValueError("before")
    assert list(admission.states.values()) == ["voided"]


def test_a_call_can_be_voided_by_hand(client, admission):
    with client.call(**ASK) as call:
        call.void()
    assert list(admission.states.values()) == ["voided"]


def test_a_sent_call_without_usage_is_left_with_what_was_reported(client, admission):
    def work():
        with client.call(**ASK) as call:
            call.sent()
            call.progress(prompt_tokens=10, output_tokens=3)
            call.progress(prompt_tokens=10, output_tokens=6)
            raise ConnectionError

    with pytest.raises(ConnectionError):
        work()
    assert list(admission.states.values()) == ["held"]
    reports = admission.of("Extend")
    assert [report.usage_so_far.output_tokens for report in reports] == [3, 6]


def test_progress_is_sent_at_most_once_a_second(client, admission):
    clock = stop_clock(client)
    with client.call(**ASK) as call:
        assert call.progress(output_tokens=1).extended
        assert [call.progress(output_tokens=n) for n in range(2, 50)] == [None] * 48
        clock.now_ns += 1_000_000_000
        assert call.progress(output_tokens=50).extended
        call.settle(output_tokens=50)
    reports = [report.usage_so_far.output_tokens for report in admission.of("Extend")]
    assert reports == [1, 50]


def test_progress_renews_the_time_to_live_once_half_of_it_has_passed(client, admission):
    clock = stop_clock(client)
    admission.then(
        "Admit",
        pb.Decision(
            verdict=pb.VERDICT_ALLOW, reservation_id="r", expires_ns=clock.now_ns + 60 * 10**9
        ),
    )
    with client.call(**ASK) as call:
        for _ in range(4):
            clock.now_ns += 11 * 10**9
            call.progress(output_tokens=1)
        call.settle(output_tokens=1)
    assert [report.ttl.seconds for report in admission.of("Extend")] == [0, 0, 60, 60]


def test_a_hold_is_enlarged_on_request(client, admission):
    refusal = pb.Extension(reason=pb.REASON_BUDGET_EXHAUSTED, directives=pb.Directives(stop=True))
    admission.then("Extend", pb.Extension(extended=True, hold_nusd=2_000), refusal)
    with client.call(**ASK) as call:
        assert call.extend(additional_output_tokens=500, ttl_s=60).hold_nusd == 2_000
        assert call.extend(additional_cost_nusd=5).directives.stop
        call.settle(cost_nusd=3)
    first = admission.of("Extend")[0]
    assert (first.additional_output_tokens, first.ttl.seconds) == (500, 60)
    assert first.reservation_id == call.decision.reservation_id


def test_a_closing_that_fails_is_raised_unless_the_body_already_failed(client, admission, caplog):
    admission.then("Settle", *[grpc.StatusCode.FAILED_PRECONDITION] * 2)
    with pytest.raises(ReservationClosed), client.call(**ASK) as call:
        call.settle(cost_nusd=1)

    def work():
        with client.call(**ASK) as call:
            call.settle(cost_nusd=1)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()
    assert "scripted FAILED_PRECONDITION" in caplog.text


def test_unreadable_usage_is_refused_where_it_is_given(client, admission):
    with client.call(**ASK) as call:
        with pytest.raises(InvalidAsk, match="say what the call used"):
            call.settle()
        with pytest.raises(InvalidAsk, match="not both"):
            call.settle({"prompt_tokens": 1}, cost_nusd=1)
        with pytest.raises(InvalidAsk, match="cost_nusd is -1"):
            call.settle(cost_nusd=-1)
        call.settle(cost_nusd=0)
    assert admission.of("Settle")[0].HasField("cost_nusd")


async def test_an_asyncio_call_does_the_same(daemon, admission):
    async with AsyncClient(daemon.address, caller="a") as client:
        async with client.call(**ASK) as call:
            await call.progress(output_tokens=1)
            await call.extend(ttl_s=5)
            call.settle({"input_tokens": 3, "output_tokens": 4})
        with pytest.raises(ValueError, match="before"):
            async with client.call(**ASK):
                raise ValueError("before")
        decision = await client.admit(**ASK)
        await client.void(decision)
        decision = await client.admit(**ASK)
        assert (await client.settle(decision, cost_nusd=4)).cost_nusd == 4
        await client.record(cost_nusd=3, ask={"model": "m"}, record_id="batch-0123456789")
        await client.explain(**ASK)
    assert list(admission.states.values()) == ["settled", "voided", "voided", "settled"]
    assert admission.of("Record")[0].record_id == "batch-0123456789"


async def test_a_cancelled_asyncio_call_that_was_sent_is_left(daemon, admission):
    async with AsyncClient(daemon.address, caller="a") as client:
        begun = asyncio.Event()

        async def work():
            async with client.call(**ASK) as call:
                call.sent()
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert list(admission.states.values()) == ["held"]


def test_decisions_are_settled_voided_recorded_and_explained_without_a_block(client, admission):
    decision = client.admit(**ASK)
    client.settle(decision, prompt_tokens=1, output_tokens=2, duration_s=0.5)
    assert admission.of("Settle")[0].duration.nanos == 500_000_000
    assert client.void(client.admit(**ASK)).cost_nusd == 0
    client.record({"prompt_tokens": 4}, ask={"model": "m", "labels": {"team": "b"}})
    record = admission.of("Record")[0]
    assert len(record.record_id) == 36
    assert record.happened_ns > 10**18
    assert client.explain(**ASK) == pb.Explanation()
    with pytest.raises(InvalidAsk, match="record_id"):
        client.record(cost_nusd=1, ask={"ask_id": "x" * 16})


def test_an_asyncio_client_outlives_event_loops(daemon, admission):
    client = AsyncClient(daemon.address, caller="a")
    for _ in range(2):
        asyncio.run(client.admit(**ASK))
    asyncio.run(client.close())
    assert len(admission.of("Admit")) == 2


def test_callers_must_fit_into_metadata():
    with pytest.raises(ValueError, match="printable ASCII"):
        Client("unix:/nowhere", caller="größer")
