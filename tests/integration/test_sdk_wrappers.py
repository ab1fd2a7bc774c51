"""The Python client and its SDK wrappers before a real daemon and a fake provider."""

import signal

import anthropic
import costd_client.anthropic
import costd_client.openai
import grpc
import openai
import pytest
from costd_client import AsyncClient, Client, Denied, NotPermitted, Unavailable, labels
from costd_client.pb import admission_pb2 as pb
from costd_client.pb import control_pb2 as cpb
from costd_client.pb.control_pb2_grpc import ControlStub

from costd.testing import Behaviour, FakeProvider
from costd.testing.provider_replies import Usage

POLICY = """\
version: 1
unmatched: deny
tiers:
  premium: {models: [openai/gpt-4o, anthropic/claude-opus-4-5]}
  economy: {models: [openai/gpt-4o-mini, anthropic/claude-haiku-4-5]}
task_classes:
  draft: {tier: premium, max_output_tokens: 100}
default_task_class: draft
budgets:
  - id: team-day
    match: {team: "*"}
    per: team
    window: day
    limit: $1
    steps:
      - {at: 50%, do: [tier_down, {max_output_tokens: 3}, {max_retries: 0}]}
      - {at: 90%, do: [deny]}
    upgrade: {text: Ask the platform team., url: "https://example.org/more"}
"""
HALF_NUSD = 500_000_000
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "please write a few words"}]}
MESSAGE = {
    "model": "claude-opus-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "please write a few words"}],
}
# Dollars for a million tokens are thousandths of a nano-dollar a token: $2.50 is 2,500 nusd.
GPT_4O_IN_NUSD, GPT_4O_CACHED_NUSD, GPT_4O_OUT_NUSD = 2_500, 1_250, 10_000


@pytest.fixture
def daemon(fresh_daemon):
    return fresh_daemon(POLICY, "--claims", "*").start()


@pytest.fixture
def provider():
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def costd(daemon):
    with Client(daemon.address, caller="wrappers", labels={"team": "a"}) as client:
        yield client


@pytest.fixture
def chat(provider, costd):
    with openai.OpenAI(base_url=provider.openai_url, api_key="any") as sdk:
        yield costd_client.openai.wrap(sdk, costd=costd, task_class="draft")


def control(daemon, method, request):
    with grpc.insecure_channel(daemon.control_address) as channel:
        return getattr(ControlStub(channel), method)(request, timeout=10)


def events(daemon):
    """Closed calls, oldest first."""
    found = control(daemon, "ListUsage", cpb.ListUsageRequest()).events
    return sorted(found, key=lambda event: event.sequence)


def budget(daemon, key="team=a"):
    found = control(daemon, "ListBudgets", cpb.ListBudgetsRequest(budget="team-day")).budgets
    return next(status for status in found if status.key == key)


def spend(costd, cost_nusd, **ask):
    """Put a sum on the books, to get to a step."""
    costd.settle(costd.admit(estimated_cost_nusd=cost_nusd, **ask), cost_nusd=cost_nusd)


def test_a_wrapped_call_costs_what_the_provider_measured(chat, costd, daemon, provider):
    provider.then(Behaviour(usage=Usage(cached_tokens=2, reasoning_tokens=3)))
    with labels(run="r1"):
        chat.chat.completions.create(**CHAT)
    costd.close()  # gives back what was set aside for more such calls
    event = events(daemon)[0]
    assert event.usage.prompt_tokens == 5
    assert event.usage.output_tokens == 11
    assert event.cost_nusd == (3 * GPT_4O_IN_NUSD + 2 * GPT_4O_CACHED_NUSD + 11 * GPT_4O_OUT_NUSD)
    assert dict(event.labels) == {"team": "a", "run": "r1"}
    assert (event.closed_as, event.outcome) == ("settled", pb.OUTCOME_OK)
    assert event.duration_ns > 0
    assert budget(daemon).settled == event.cost_nusd
    assert budget(daemon).reserved == 0


def test_a_half_empty_budget_degrades_the_wrapped_call(chat, daemon, provider, costd):
    spend(costd, HALF_NUSD)
    answer = chat.chat.completions.create(**CHAT, max_completion_tokens=50)
    assert answer.usage.completion_tokens == 3
    assert costd.flush()
    sent = provider.requests[0].body
    assert (sent["model"], sent["max_completion_tokens"]) == ("gpt-4o-mini", 3)
    assert events(daemon)[-1].model == "gpt-4o-mini"
    provider.then(Behaviour(status=500))
    with pytest.raises(openai.InternalServerError):
        chat.chat.completions.create(**CHAT)
    assert len(provider.requests) == 2, "no retries were allowed"
    assert budget(daemon).reserved > 0, "nobody knows what the failed call cost"


def test_an_empty_budget_denies_the_wrapped_call_with_reason_and_way_out(
    chat, daemon, provider, costd
):
    spend(costd, 950_000_000)
    with pytest.raises(costd_client.openai.CallDenied) as caught:
        chat.chat.completions.create(**CHAT)
    error = caught.value
    assert isinstance(error, Denied)
    assert error.reason.name == "STEP_DENY"
    assert (error.binding.rule, error.binding.key) == ("team-day", "team=a")
    assert error.resets_ns == error.binding.window_end_ns > 0
    assert error.upgrade_text == "Ask the platform team."
    assert provider.requests == []
    assert budget(daemon).reserved == 0


def test_streams_of_both_providers_are_settled(chat, daemon, provider, costd):
    assert list(chat.chat.completions.create(**CHAT, stream=True))
    assert list(chat.responses.create(model="gpt-4o", input="a b c", stream=True))
    with anthropic.Anthropic(base_url=provider.url, api_key="any") as sdk:
        messages = costd_client.anthropic.wrap(sdk, costd=costd).messages
        assert list(messages.create(**MESSAGE, stream=True))
        with messages.stream(**MESSAGE) as stream:
            assert stream.get_final_text()
    assert costd.flush()
    assert [
        (event.provider, event.usage.prompt_tokens, event.usage.output_tokens)
        for event in events(daemon)
    ] == [("openai", 5, 8), ("openai", 3, 8), ("anthropic", 5, 8), ("anthropic", 5, 8)]


def test_an_anthropic_call_is_degraded_within_its_provider(daemon, provider, costd):
    spend(costd, HALF_NUSD)
    with anthropic.Anthropic(base_url=provider.url, api_key="any") as sdk:
        answer = costd_client.anthropic.wrap(sdk, costd=costd).messages.create(**MESSAGE)
    assert answer.usage.output_tokens == 3
    assert provider.requests[0].body["model"] == "claude-haiku-4-5"


def test_a_stream_that_was_cancelled_was_not_free(chat, costd, daemon, provider):
    provider.then(Behaviour(stall_after_events=5))
    with chat.chat.completions.create(**CHAT, stream=True) as stream:
        for _ in range(5):
            next(stream)
    assert costd.flush()
    event = events(daemon)[0]
    assert event.outcome == pb.OUTCOME_CANCELLED
    assert 4 <= event.usage.output_tokens <= 12
    assert event.cost_nusd >= 4 * GPT_4O_OUT_NUSD


async def test_asyncio_wrappers_settle_calls_and_streams(daemon, provider):
    async with (
        AsyncClient(daemon.address, caller="wrappers", labels={"team": "a"}) as costd,
        openai.AsyncOpenAI(base_url=provider.openai_url, api_key="any") as openai_sdk,
        anthropic.AsyncAnthropic(base_url=provider.url, api_key="any") as anthropic_sdk,
    ):
        chat = costd_client.openai.wrap(openai_sdk, costd=costd).chat.completions
        messages = costd_client.anthropic.wrap(anthropic_sdk, costd=costd).messages
        await chat.create(**CHAT)
        assert [chunk async for chunk in await chat.create(**CHAT, stream=True)]
        await messages.create(**MESSAGE)
        async with messages.stream(**MESSAGE) as stream:
            await stream.get_final_message()
    assert [event.usage.output_tokens for event in events(daemon)] == [8, 8, 8, 8]
    assert budget(daemon).reserved == 0


def test_a_call_before_a_long_stream_extends_its_hold(daemon, costd):
    with costd.call(model="gpt-4o", prompt_tokens=5, max_output_tokens=10, ttl_s=30) as call:
        held_nusd = call.decision.hold_nusd
        extension = call.extend(additional_output_tokens=100, ttl_s=60)
        assert extension.extended
        assert extension.hold_nusd == held_nusd + 100 * GPT_4O_OUT_NUSD
        assert extension.expires_ns > call.decision.expires_ns
        report = call.progress(prompt_tokens=5, output_tokens=40)
        assert report.reported_nusd == 5 * GPT_4O_IN_NUSD + 40 * GPT_4O_OUT_NUSD
        refused = call.extend(additional_cost_nusd=10**12)
        assert not refused.extended
        assert refused.directives.stop
        call.settle(prompt_tokens=5, output_tokens=90)
    assert budget(daemon).settled == 5 * GPT_4O_IN_NUSD + 90 * GPT_4O_OUT_NUSD


@pytest.mark.parametrize("allowances", [True, False])
def test_calls_made_while_the_daemon_was_dead_are_booked_once(daemon, provider, allowances):
    """Drawn from an allowance where one was there already, else let go by the fail mode."""
    with (
        Client(
            daemon.address,
            caller="w",
            labels={"team": "a"},
            timeout_s=0.5,
            fail_mode="open",
            allowances=allowances,
        ) as costd,
        openai.OpenAI(base_url=provider.openai_url, api_key="any") as sdk,
    ):
        chat = costd_client.openai.wrap(sdk, costd=costd)
        chat.chat.completions.create(**CHAT)
        daemon.kill()
        for _ in range(3):
            chat.chat.completions.create(**CHAT)
        assert costd.unheard_count == 3
        daemon.restart()
        assert costd.flush(20)
    found = events(daemon)
    assert len({event.ask_id for event in found}) == len(found) == 4
    assert len({event.cost_nusd for event in found}) == 1
    recorded = [event for event in found if event.closed_as == "recorded"]
    assert allowances or len(recorded) == 3
    assert budget(daemon).unadmitted == len(recorded) * found[0].cost_nusd
    assert (budget(daemon).settled, budget(daemon).reserved) == (4 * found[0].cost_nusd, 0)


def test_an_ask_that_the_daemon_got_and_could_not_answer_is_charged_once(daemon, provider):
    with (
        Client(
            daemon.address, caller="w", labels={"team": "a"}, timeout_s=0.4, fail_mode="open"
        ) as costd,
        openai.OpenAI(base_url=provider.openai_url, api_key="any") as sdk,
    ):
        chat = costd_client.openai.wrap(sdk, costd=costd)
        chat.chat.completions.create(**CHAT)
        daemon.signal(signal.SIGSTOP)
        chat.chat.completions.create(**CHAT)
        daemon.signal(signal.SIGCONT)
        assert costd.flush(20)
    assert len(events(daemon)) == 2
    assert budget(daemon).settled == 2 * events(daemon)[0].cost_nusd
    assert budget(daemon).reserved == 0


def test_a_record_under_the_id_of_an_admitted_ask_settles_it(daemon, costd):
    ask = {"model": "gpt-4o", "prompt_tokens": 5, "max_output_tokens": 9}
    decision = costd.admit(**ask)
    for _ in range(2):
        costd.record(cost_nusd=7, record_id=decision.ask_id, ask=ask)
    assert [event.cost_nusd for event in events(daemon)] == [7]
    costd.close()  # gives back what was set aside for more such calls
    assert (budget(daemon).settled, budget(daemon).reserved) == (7, 0)


def test_an_ask_that_timed_out_and_was_not_made_holds_nothing(daemon):
    with Client(daemon.address, caller="w", labels={"team": "a"}, timeout_s=0.4) as costd:
        spend(costd, 1_000)
        daemon.signal(signal.SIGSTOP)
        with pytest.raises(Unavailable):
            costd.admit(model="gpt-4o", prompt_tokens=5)
        daemon.signal(signal.SIGCONT)
        assert costd.flush(20)
    assert budget(daemon).reserved == 0
    assert budget(daemon).settled == 1_000


def test_a_class_that_may_not_be_claimed_is_refused_even_when_failing_open(fresh_daemon, provider):
    policy = POLICY.replace("  draft:", "  audit: {critical: true, tier: premium}\n  draft:")
    daemon = fresh_daemon(policy).start()
    with (
        Client(daemon.address, caller="w", labels={"team": "a"}, fail_mode="open") as costd,
        openai.OpenAI(base_url=provider.openai_url, api_key="any") as sdk,
        pytest.raises(NotPermitted, match="audit"),
    ):
        costd_client.openai.wrap(sdk, costd=costd, task_class="audit").chat.completions.create(
            **CHAT
        )
    assert provider.requests == []
