"""The OpenAI wrapper, with the real SDK on one side and a fake provider on the other."""

import asyncio
from types import SimpleNamespace

import costd_client.openai
import grpc
import openai
import pydantic
import pytest
from costd_client import AsyncClient, Client, Denied, labels
from costd_client.openai import CallDenied, ChatReader, ResponsesReader, wrap
from costd_client.pb import admission_pb2 as pb

from costd.testing.fake_provider import Behaviour
from costd.testing.provider_replies import Usage

MESSAGES = [{"role": "user", "content": "please write five words about budgets"}]


@pytest.fixture
def sdk(provider):
    with openai.OpenAI(base_url=provider.openai_url, api_key="any") as sdk:
        yield sdk


@pytest.fixture
def wrapped(sdk, client):
    return wrap(sdk, costd=client, task_class="draft", labels={"team": "a"})


def degrade(model="gpt-4o-mini", **directives):
    def reply(request):
        return pb.Decision(
            verdict=pb.VERDICT_DEGRADE,
            reason=pb.REASON_STEP,
            ask_id=request.ask_id,
            reservation_id=f"res-{request.ask_id}",
            provider="openai",
            model=model,
            directives=pb.Directives(**directives),
        )

    return reply


def deny(request):
    return pb.Decision(
        verdict=pb.VERDICT_DENY,
        reason=pb.REASON_BUDGET_EXHAUSTED,
        ask_id=request.ask_id,
        message="the team's day is used up",
        binding=pb.Binding(rule="team-day", kind="budget", key="team=a", resets_ns=5),
        would_pass=[pb.WouldPass(provider="openai", model="gpt-4o-mini")],
        upgrade_text="Ask for more:",
        upgrade_url="https://example.org/more",
    )


def chat(client, **more):
    return client.chat.completions.create(model="gpt-4o", messages=MESSAGES, **more)


def test_a_chat_call_is_admitted_with_estimates_and_settled_with_the_providers_usage(
    wrapped, admission, provider
):
    provider.then(Behaviour(usage=Usage(cached_tokens=2, reasoning_tokens=3)))
    answer = chat(wrapped, max_completion_tokens=50)
    assert answer.choices[0].message.content.startswith("word0")
    ask = admission.of("Admit")[0]
    assert (ask.provider, ask.model, ask.task_class) == ("openai", "gpt-4o", "draft")
    assert dict(ask.labels) == {"team": "a"}
    assert 6 < ask.prompt_tokens < 30
    assert ask.max_output_tokens == 50
    assert list(ask.acceptable_models) == ["openai/*"]
    settle = admission.of("Settle")[0]
    assert settle.usage == pb.Usage(
        prompt_tokens=6, cached_tokens=2, output_tokens=11, reasoning_tokens=3
    )
    assert settle.outcome == pb.OUTCOME_OK
    assert settle.duration.ToNanoseconds() > 0
    assert admission.callers[0] == "unit-test"


def test_the_wrapped_client_is_still_an_openai_client_and_the_original_stays_unguarded(
    wrapped, sdk, admission
):
    assert isinstance(wrapped, openai.OpenAI)
    chat(sdk)
    assert admission.received == []


def test_the_degraded_model_shorter_output_and_fewer_retries_reach_the_provider(
    wrapped, admission, provider
):
    admission.then("Admit", degrade(max_output_tokens=3, max_retries=0))
    provider.then(Behaviour(status=500, retry_after_s=0))
    with pytest.raises(openai.InternalServerError):
        chat(wrapped, max_completion_tokens=50)
    assert len(provider.requests) == 1
    assert provider.requests[0].body["model"] == "gpt-4o-mini"
    assert provider.requests[0].body["max_completion_tokens"] == 3


def test_a_limit_is_set_where_the_caller_set_none(wrapped, admission, provider):
    admission.then("Admit", degrade(max_output_tokens=3))
    chat(wrapped)
    assert not admission.of("Admit")[0].HasField("max_output_tokens")
    assert provider.requests[0].body["max_completion_tokens"] == 3
    assert "max_tokens" not in provider.requests[0].body


def test_a_caller_who_says_max_tokens_gets_max_tokens_back(wrapped, admission, provider):
    admission.then("Admit", degrade(max_output_tokens=4))
    chat(wrapped, max_tokens=9)
    assert provider.requests[0].body["max_tokens"] == 4
    assert "max_completion_tokens" not in provider.requests[0].body


def test_choices_share_the_limit(wrapped, admission, provider):
    admission.then("Admit", degrade(max_output_tokens=10))
    chat(wrapped, n=2, max_completion_tokens=8)
    assert admission.of("Admit")[0].max_output_tokens == 16
    assert provider.requests[0].body["max_completion_tokens"] == 5


def test_extra_body_does_not_get_around_the_decision(wrapped, admission, provider):
    admission.then("Admit", degrade(max_output_tokens=3))
    chat(wrapped, extra_body={"model": "gpt-5-pro", "max_completion_tokens": 999, "seed": 1})
    assert admission.of("Admit")[0].model == "gpt-5-pro"
    body = provider.requests[0].body
    assert (body["model"], body["max_completion_tokens"], body["seed"]) == ("gpt-4o-mini", 3, 1)


def test_a_denial_raises_its_own_error_with_the_reason_and_sends_nothing(
    wrapped, admission, provider
):
    admission.then("Admit", deny)
    with pytest.raises(CallDenied) as caught:
        chat(wrapped)
    error = caught.value
    assert isinstance(error, Denied)
    assert error.reason.name == "BUDGET_EXHAUSTED"
    assert error.binding.rule == "team-day"
    assert error.resets_ns == 5
    assert "the team's day is used up" in str(error)
    assert "would pass: openai/gpt-4o-mini" in str(error)
    assert error.upgrade_url == "https://example.org/more"
    assert provider.requests == []


def test_a_stream_is_read_as_before_and_settled_at_its_end(wrapped, admission, provider):
    stream = chat(wrapped, stream=True)
    assert isinstance(stream, openai.Stream)
    chunks = list(stream)
    assert all(chunk.choices for chunk in chunks), "the usage chunk nobody asked for is hidden"
    assert provider.requests[0].body["stream_options"] == {"include_usage": True}
    assert admission.of("Settle")[0].usage.output_tokens == 8
    assert admission.of("Settle")[0].usage.prompt_tokens == 6
    assert admission.of("Settle")[0].outcome == pb.OUTCOME_OK


def test_the_usage_chunk_is_shown_to_a_caller_who_asked_for_it(wrapped, admission):
    chunks = list(chat(wrapped, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens == 8
    assert len(admission.of("Settle")) == 1


def test_a_stream_closed_early_is_settled_as_cancelled_at_what_was_written(
    wrapped, admission, provider
):
    provider.then(Behaviour(stall_after_events=4))
    with chat(wrapped, stream=True, max_completion_tokens=8) as stream:
        for _ in range(4):
            next(stream)
    settle = admission.of("Settle")[0]
    assert settle.outcome == pb.OUTCOME_CANCELLED
    assert 3 <= settle.usage.output_tokens < 8
    assert settle.usage.prompt_tokens >= 6


def test_a_stream_closed_before_anything_came_is_left_to_the_hold(wrapped, admission, provider):
    provider.then(Behaviour(stall_after_events=0))
    chat(wrapped, stream=True).close()
    assert admission.of("Settle") == []
    assert list(admission.states.values()) == ["held"]
    assert admission.of("Extend")[0].usage_so_far.prompt_tokens >= 6


def test_a_stream_of_a_model_that_thinks_unseen_is_left_to_the_hold(wrapped, admission):
    admission.then("Admit", degrade(model="o3"))
    stream = chat(wrapped, stream=True)
    next(stream)
    next(stream)
    stream.close()
    assert admission.of("Settle") == []
    assert admission.of("Extend")[0].usage_so_far.output_tokens >= 1


def test_a_stream_that_is_dropped_is_settled_in_the_background(wrapped, admission, client):
    def read_a_little():
        for count, _ in enumerate(chat(wrapped, stream=True)):
            if count == 3:
                return

    read_a_little()
    assert client.outbox.flush(5)
    assert admission.of("Settle")[0].outcome == pb.OUTCOME_CANCELLED


def test_a_stream_that_breaks_is_settled_as_an_error_at_what_was_written(
    wrapped, admission, provider
):
    provider.then(Behaviour(hang_up_after_events=3))
    assert len(list(chat(wrapped, stream=True))) == 3
    assert admission.of("Settle")[0].usage.output_tokens >= 2


def test_usage_is_reported_while_streaming_and_a_stop_ends_the_stream(wrapped, admission, provider):
    stop = pb.Extension(
        reason=pb.REASON_KILL_SWITCH,
        directives=pb.Directives(stop=True),
        binding=pb.Binding(rule="everything-off"),
    )
    admission.then("Extend", stop)
    provider.then(Behaviour(reply_words=200))
    seen = []
    with pytest.raises(costd_client.Stopped, match=r"KILL_SWITCH.*everything-off"):
        seen.extend(chat(wrapped, stream=True))
    assert 50 < len(seen) < 70
    assert admission.of("Extend")[0].usage_so_far.output_tokens >= 60
    assert admission.of("Settle")[0].outcome == pb.OUTCOME_CANCELLED


def test_the_stream_helper_settles_too(wrapped, admission):
    with wrapped.chat.completions.stream(model="gpt-4o", messages=MESSAGES) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content.startswith("word0")
    assert admission.of("Settle")[0].usage.output_tokens == 8


def test_the_stream_helper_left_early_settles_too(wrapped, admission, provider):
    provider.then(Behaviour(stall_after_events=4))
    with wrapped.chat.completions.stream(model="gpt-4o", messages=MESSAGES) as stream:
        for _, event in zip(range(4), stream, strict=False):
            assert event
    assert admission.of("Settle")[0].outcome == pb.OUTCOME_CANCELLED


def test_raw_responses_are_settled(wrapped, admission):
    raw = wrapped.chat.completions.with_raw_response.create(model="gpt-4o", messages=MESSAGES)
    assert raw.status_code == 200
    assert raw.parse().usage.completion_tokens == 8
    assert len(admission.of("Settle")) == 1


def test_a_raw_streaming_response_is_settled(wrapped, admission):
    raw = wrapped.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=MESSAGES, stream=True
    )
    assert len(list(raw.parse())) == 10
    assert admission.of("Settle")[0].usage.output_tokens == 8


def test_parsed_completions_are_settled_even_if_parsing_fails(wrapped, admission):
    class Answer(pydantic.BaseModel):
        number: int

    with pytest.raises(pydantic.ValidationError):
        wrapped.chat.completions.parse(model="gpt-4o", messages=MESSAGES, response_format=Answer)
    assert admission.of("Settle")[0].usage.output_tokens == 8


def test_responses_are_admitted_degraded_and_settled(wrapped, admission, provider):
    admission.then("Admit", degrade(max_output_tokens=20))
    answer = wrapped.responses.create(
        model="gpt-4o", input="some words to read", max_output_tokens=99
    )
    assert answer.output_text.startswith("word0")
    assert admission.of("Admit")[0].max_output_tokens == 99
    assert provider.requests[0].body["max_output_tokens"] == 20
    assert provider.requests[0].body["model"] == "gpt-4o-mini"
    assert admission.of("Settle")[0].usage.prompt_tokens == 4


def test_streamed_responses_are_settled_from_the_last_event(wrapped, admission, provider):
    provider.then(Behaviour(usage=Usage(reasoning_tokens=5)))
    events = list(wrapped.responses.create(model="gpt-4o", input="a b c", stream=True))
    assert events[-1].type == "response.completed"
    usage = admission.of("Settle")[0].usage
    assert (usage.prompt_tokens, usage.output_tokens, usage.reasoning_tokens) == (3, 13, 5)


def test_the_responses_stream_helper_settles(wrapped, admission):
    with wrapped.responses.stream(model="gpt-4o", input="a b c") as stream:
        stream.until_done()
    assert admission.of("Settle")[0].usage.output_tokens == 8


def test_a_response_that_reasons_and_is_closed_early_is_left_to_the_hold():
    reader = ResponsesReader(prompt_tokens=3)
    item = SimpleNamespace(type="reasoning")
    reader.read(SimpleNamespace(type="response.output_item.added", item=item))
    assert reader.hidden_output


def test_tool_calls_count_as_output(provider):
    function = SimpleNamespace(name="look_up", arguments='{"city": "Rome"}')
    delta = SimpleNamespace(content=None, tool_calls=[SimpleNamespace(function=function)])
    reader = ChatReader(prompt_tokens=1, hides_usage=True, hidden_output=False)
    event = SimpleNamespace(choices=[SimpleNamespace(delta=delta)], usage=None)
    assert reader.read(event) == ('look_up{"city": "Rome"}', True)


def test_token_lists_are_counted_exactly(wrapped, admission):
    for given in ([1, 2, 3], [[1, 2], [3]]):
        wrapped.embeddings.create(model="e", input=given, encoding_format="float")
    assert [ask.prompt_tokens for ask in admission.of("Admit")] == [3, 3]


def test_a_client_without_credentials_has_sent_nothing(provider, client, admission):
    def no_credentials():
        raise openai.OpenAIError("no credentials")

    with openai.OpenAI(base_url=provider.openai_url, api_key=no_credentials) as sdk:
        wrapped = wrap(sdk, costd=client)
        with pytest.raises(openai.OpenAIError, match="no credentials"):
            chat(wrapped)
    assert list(admission.states.values()) == ["voided"]


def test_a_client_that_does_not_send_through_post_is_refused(client):
    class Odd:
        chat = SimpleNamespace(completions=SimpleNamespace())

        def post(self):
            pass

        def copy(self):
            return Odd()

    with pytest.raises(TypeError, match="cannot be guarded"):
        wrap(Odd(), costd=client)


def test_embeddings_are_admitted_and_settled(wrapped, admission):
    answer = wrapped.embeddings.create(
        model="text-embedding-3-small", input=["one two", "three"], encoding_format="float"
    )
    assert len(answer.data) == 2
    ask = admission.of("Admit")[0]
    assert ask.cost_kind == "embedding"
    assert ask.max_output_tokens == 0
    assert ask.HasField("max_output_tokens")
    assert admission.of("Settle")[0].usage == pb.Usage(prompt_tokens=3)


def test_labels_and_class_of_the_surrounding_block_win_over_the_wrappers(wrapped, admission):
    with labels(run="r1", task_class="code_review"), labels(stage="fix", team="b"):
        chat(wrapped)
    chat(wrapped)
    inner, outer = admission.of("Admit")
    assert dict(inner.labels) == {"team": "b", "run": "r1", "stage": "fix"}
    assert inner.task_class == "code_review"
    assert dict(outer.labels) == {"team": "a"}


def test_copies_with_other_options_stay_guarded(wrapped, admission):
    chat(wrapped.with_options(timeout=5))
    chat(wrapped.copy(max_retries=0))
    assert len(admission.of("Settle")) == 2


def test_a_refused_request_costs_nothing(wrapped, admission, provider):
    provider.then(Behaviour(status=400))
    with pytest.raises(openai.BadRequestError):
        chat(wrapped)
    settle = admission.of("Settle")[0]
    assert settle.HasField("cost_nusd")
    assert settle.cost_nusd == 0
    assert settle.outcome == pb.OUTCOME_ERROR


def test_a_call_that_cannot_connect_is_voided(client, admission):
    sdk = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="any", max_retries=0)
    with sdk, pytest.raises(openai.APIConnectionError):
        chat(wrap(sdk, costd=client))
    assert list(admission.states.values()) == ["voided"]


@pytest.mark.parametrize("behaviour", [Behaviour(status=500), Behaviour(hang_up=True)])
def test_a_call_whose_end_nobody_knows_is_left_to_the_hold(wrapped, admission, provider, behaviour):
    provider.then(behaviour)
    with pytest.raises(openai.APIError):
        chat(wrapped.with_options(max_retries=0))
    assert list(admission.states.values()) == ["held"]


def test_a_timeout_is_left_to_the_hold(wrapped, admission, provider):
    provider.then(Behaviour(delay_s=0.3))
    with pytest.raises(openai.APITimeoutError):
        chat(wrapped.with_options(max_retries=0, timeout=0.05))
    assert list(admission.states.values()) == ["held"]


def test_retries_are_counted(wrapped, admission, provider):
    provider.then(Behaviour(status=500, retry_after_s=0.001))
    chat(wrapped.with_options(max_retries=2))
    assert admission.of("Settle")[0].retry_count == 1


def test_a_settlement_that_fails_does_not_take_the_response_away(wrapped, admission, caplog):
    admission.then("Settle", grpc.StatusCode.NOT_FOUND)
    assert chat(wrapped).choices
    assert "closing" in caplog.text


def test_other_endpoints_pass_unasked(wrapped, admission):
    with pytest.raises(openai.NotFoundError):
        wrapped.moderations.create(input="x")
    assert admission.received == []


def test_blocking_and_asyncio_clients_are_not_mixed(sdk, client, daemon):
    with pytest.raises(TypeError, match=r"needs a costd_client\.Client"):
        wrap(sdk, costd=AsyncClient(daemon.address, caller="t"))
    with pytest.raises(TypeError, match=r"needs a costd_client\.AsyncClient"):
        wrap(openai.AsyncOpenAI(api_key="any"), costd=client)


async def async_chat(daemon, provider, use):
    async with (
        AsyncClient(daemon.address, caller="unit-test") as costd,
        openai.AsyncOpenAI(base_url=provider.openai_url, api_key="any") as sdk,
    ):
        return await use(wrap(sdk, costd=costd, task_class="draft"))


async def test_the_asyncio_client_is_guarded(daemon, admission, provider):
    async def use(wrapped):
        assert isinstance(wrapped, openai.AsyncOpenAI)
        answer = await chat(wrapped)
        assert answer.usage.completion_tokens == 8
        await wrapped.responses.create(model="gpt-4o", input="a b c")
        await wrapped.embeddings.create(model="e", input="a", encoding_format="float")

    await async_chat(daemon, provider, use)
    assert len(admission.of("Settle")) == 3


async def test_asyncio_streams_are_settled(daemon, admission, provider):
    async def use(wrapped):
        chunks = [chunk async for chunk in await chat(wrapped, stream=True)]
        assert all(chunk.choices for chunk in chunks)
        async with wrapped.chat.completions.stream(model="gpt-4o", messages=MESSAGES) as stream:
            await stream.get_final_completion()
        events = [
            e
            async for e in await wrapped.responses.create(model="gpt-4o", input="a b", stream=True)
        ]
        assert events

    await async_chat(daemon, provider, use)
    assert [settle.usage.output_tokens for settle in admission.of("Settle")] == [8, 8, 8]


async def test_an_asyncio_stream_closed_early_is_settled_as_cancelled(daemon, admission, provider):
    provider.then(Behaviour(stall_after_events=3), Behaviour(stall_after_events=3))

    async def use(wrapped):
        async with await chat(wrapped, stream=True) as stream:
            for _ in range(3):
                await anext(stream)
        async with wrapped.chat.completions.stream(model="gpt-4o", messages=MESSAGES) as stream:
            for _ in range(3):
                await anext(stream)

    await async_chat(daemon, provider, use)
    outcomes = [settle.outcome for settle in admission.of("Settle")]
    assert outcomes == [pb.OUTCOME_CANCELLED] * 2


async def test_an_asyncio_stream_is_stopped_on_request(daemon, admission, provider):
    admission.then("Extend", pb.Extension(directives=pb.Directives(stop=True)))
    provider.then(Behaviour(reply_words=200))

    async def use(wrapped):
        with pytest.raises(costd_client.Stopped):
            [chunk async for chunk in await chat(wrapped, stream=True)]

    await async_chat(daemon, provider, use)
    assert [settle.outcome for settle in admission.of("Settle")] == [pb.OUTCOME_CANCELLED]


async def test_an_asyncio_stream_that_is_dropped_is_settled_in_the_background(
    daemon, admission, provider
):
    async def use(wrapped):
        raw = await wrapped.chat.completions.with_raw_response.create(
            model="gpt-4o", messages=MESSAGES, stream=True
        )
        async for chunk in raw.parse():
            if chunk.choices[0].delta.content:
                break

    await async_chat(daemon, provider, use)
    assert [settle.outcome for settle in admission.of("Settle")] == [pb.OUTCOME_CANCELLED]


async def test_a_cancelled_asyncio_call_is_left_to_the_hold(daemon, admission, provider):
    provider.then(Behaviour(delay_s=0.5))

    async def use(wrapped):
        task = asyncio.create_task(chat(wrapped))
        assert await asyncio.to_thread(provider.wait_until, lambda p: p.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await async_chat(daemon, provider, use)
    assert list(admission.states.values()) == ["held"]


async def test_an_asyncio_denial_raises(daemon, admission, provider):
    admission.then("Admit", deny)

    async def use(wrapped):
        with pytest.raises(CallDenied):
            await chat(wrapped)

    await async_chat(daemon, provider, use)
    assert provider.requests == []


def test_a_daemon_that_is_down_closes_or_opens_as_told(provider, tmp_path, sdk):
    nowhere = f"unix:{tmp_path}/nobody.sock"
    closed = Client(nowhere, caller="t", timeout_s=0.2)
    with pytest.raises(costd_client.Unavailable):
        chat(wrap(sdk, costd=closed))
    assert provider.requests == []
    opened = Client(nowhere, caller="t", timeout_s=0.2, fail_mode="open")
    chat(wrap(sdk, costd=opened))
    assert len(provider.requests) == 1
    assert opened.outbox.pending.queued_count == 1
    closed.close(0)
    opened.close(0)
