"""The Anthropic wrapper, with the real SDK on one side and a fake provider on the other."""

import anthropic
import pytest
from costd_client import AsyncClient, Denied
from costd_client.anthropic import CallDenied, MessagesEndpoint, wrap
from costd_client.pb import admission_pb2 as pb

from costd.testing.fake_provider import Behaviour
from costd.testing.provider_replies import Usage

MODEL = "claude-of-the-test"  # the SDK warns about real ones as they age
MESSAGES = [{"role": "user", "content": "please write five words about budgets"}]


@pytest.fixture
def wrapped(provider, client):
    with anthropic.Anthropic(base_url=provider.url, api_key="any") as sdk:
        yield wrap(sdk, costd=client, task_class="draft", labels={"team": "a"})


def degrade(**directives):
    return lambda request: pb.Decision(
        verdict=pb.VERDICT_DEGRADE,
        reservation_id=f"res-{request.ask_id}",
        provider="anthropic",
        model="claude-small",
        directives=pb.Directives(**directives),
    )


def create(client, **more):
    return client.messages.create(**{"model": MODEL, "max_tokens": 50, "messages": MESSAGES} | more)


def test_a_message_is_admitted_and_settled_with_what_was_cached(wrapped, admission, provider):
    provider.then(Behaviour(usage=Usage(cached_tokens=2, cache_write_tokens=1)))
    answer = create(wrapped, system="be brief")
    assert answer.content[0].text.startswith("word0")
    ask = admission.of("Admit")[0]
    assert (ask.provider, ask.model, ask.max_output_tokens) == ("anthropic", MODEL, 50)
    assert list(ask.acceptable_models) == ["anthropic/*"]
    assert ask.prompt_tokens >= 8
    usage = admission.of("Settle")[0].usage
    assert usage == pb.Usage(
        prompt_tokens=8, cached_tokens=2, cache_write_tokens=1, output_tokens=8
    )


def test_the_degraded_model_and_shorter_output_reach_the_provider(wrapped, admission, provider):
    admission.then("Admit", degrade(max_output_tokens=3, max_retries=0))
    provider.then(Behaviour(status=529))
    with pytest.raises(anthropic.APIStatusError):
        create(wrapped)
    assert len(provider.requests) == 1
    body = provider.requests[0].body
    assert (body["model"], body["max_tokens"]) == ("claude-small", 3)
    assert admission.of("Settle") == admission.of("Void") == []


def test_a_denial_raises_its_own_error_and_sends_nothing(wrapped, admission, provider):
    admission.then("Admit", pb.Decision(verdict=pb.VERDICT_DENY, reason=pb.REASON_KILL_SWITCH))
    with pytest.raises(CallDenied, match="KILL_SWITCH") as caught:
        create(wrapped)
    assert isinstance(caught.value, Denied)
    assert provider.requests == []


def test_a_stream_of_events_is_settled_at_its_end(wrapped, admission):
    stream = create(wrapped, stream=True)
    assert isinstance(stream, anthropic.Stream)
    assert next(iter(stream)).type == "message_start"
    assert list(stream)[-1].type == "message_stop"
    settle = admission.of("Settle")[0]
    assert (settle.usage.prompt_tokens, settle.usage.output_tokens) == (6, 8)
    assert settle.outcome == pb.OUTCOME_OK


def test_the_stream_helper_is_settled_at_its_end(wrapped, admission):
    with wrapped.messages.stream(model=MODEL, max_tokens=50, messages=MESSAGES) as stream:
        assert "".join(stream.text_stream).startswith("word0")
        assert stream.get_final_message().usage.output_tokens == 8
    assert [settle.usage.output_tokens for settle in admission.of("Settle")] == [8]


def test_the_stream_helper_left_early_is_settled_as_cancelled(wrapped, admission, provider):
    provider.then(Behaviour(stall_after_events=5))
    with wrapped.messages.stream(model=MODEL, max_tokens=50, messages=MESSAGES) as stream:
        for _, text in zip(range(3), stream.text_stream, strict=False):
            assert text
    settle = admission.of("Settle")[0]
    assert settle.outcome == pb.OUTCOME_CANCELLED
    assert settle.usage.prompt_tokens == 6, "the provider stated it in its first event"
    assert 3 <= settle.usage.output_tokens < 8


def test_raw_and_beta_messages_are_settled(wrapped, admission):
    raw = wrapped.messages.with_raw_response.create(model=MODEL, max_tokens=50, messages=MESSAGES)
    assert raw.parse().usage.output_tokens == 8
    wrapped.beta.messages.create(model=MODEL, max_tokens=50, messages=MESSAGES)
    assert len(admission.of("Settle")) == 2


def test_a_streaming_raw_response_is_left_to_the_hold(wrapped, admission):
    with wrapped.messages.with_streaming_response.create(
        model=MODEL, max_tokens=50, messages=MESSAGES
    ) as response:
        assert response.parse().usage.output_tokens == 8
    assert list(admission.states.values()) == ["held"]


def test_counting_tokens_passes_unasked(wrapped, admission):
    with pytest.raises(anthropic.NotFoundError):
        wrapped.messages.count_tokens(model=MODEL, messages=MESSAGES)
    assert admission.received == []


def test_copies_with_other_options_stay_guarded(wrapped, admission):
    create(wrapped.with_options(timeout=5))
    assert len(admission.of("Settle")) == 1


@pytest.mark.parametrize(
    ("limit", "thinking"),
    [
        (8_000, None),
        (4_000, {"type": "enabled", "budget_tokens": 2_000}),
        (1_500, {"type": "disabled"}),
    ],
)
def test_the_budget_for_thinking_stays_below_a_lower_limit(limit, thinking):
    body = {"max_tokens": 10_000, "thinking": {"type": "enabled", "budget_tokens": 6_000}}
    changes = MessagesEndpoint().cheaper(body, limit)
    assert changes["max_tokens"] == limit
    assert changes.get("thinking") == thinking


async def test_the_asyncio_client_is_guarded(daemon, admission, provider):
    provider.then(Behaviour(), Behaviour(), Behaviour(), Behaviour(stall_after_events=5))
    async with (
        AsyncClient(daemon.address, caller="unit-test") as costd,
        anthropic.AsyncAnthropic(base_url=provider.url, api_key="any") as sdk,
    ):
        wrapped = wrap(sdk, costd=costd)
        assert (await create(wrapped)).usage.output_tokens == 8
        events = [event async for event in await create(wrapped, stream=True)]
        assert events[-1].type == "message_stop"
        ask = {"model": MODEL, "max_tokens": 50, "messages": MESSAGES}
        async with wrapped.messages.stream(**ask) as stream:
            assert (await stream.get_final_message()).usage.output_tokens == 8
        async with wrapped.messages.stream(**ask) as stream:
            async for _ in stream.text_stream:
                break
        raw = await wrapped.messages.with_raw_response.create(**ask)
        assert (await raw.parse()).usage.output_tokens == 8
    outcomes = [settle.outcome for settle in admission.of("Settle")]
    assert outcomes == [pb.OUTCOME_OK] * 3 + [pb.OUTCOME_CANCELLED, pb.OUTCOME_OK]
