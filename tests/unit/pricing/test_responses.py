"""Usage out of providers' response bodies, as their APIs write them."""

import pytest

from costd.errors import InvalidAsk
from costd.model.usage import Usage
from costd.pricing import usage_from_response

CHAT = {
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 8, "audio_tokens": 0},
    },
}
RESPONSES = {
    "object": "response",
    "model": "gpt-5-2025-08-07",
    "usage": {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 12},
    },
}
MESSAGES = {
    "type": "message",
    "model": "claude-sonnet-4-5-20250929",
    "usage": {
        "input_tokens": 10,
        "cache_read_input_tokens": 600,
        "cache_creation_input_tokens": 300,
        "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
        "output_tokens": 20,
        "server_tool_use": {"web_search_requests": 2},
    },
}
GENERATE = {
    "modelVersion": "gemini-2.5-pro",
    "usageMetadata": {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 40,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 5,
        "totalTokenCount": 125,
    },
}
CONVERSE = {"usage": {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10}}
EMBEDDINGS = {
    "object": "list",
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 9, "total_tokens": 9},
}


def test_chat_completions() -> None:
    provider, model, usage = usage_from_response("", CHAT)
    assert (provider, model) == ("openai", "gpt-4o-2024-08-06")
    assert usage == Usage(
        prompt_tokens=100,
        cached_tokens=64,
        output_tokens=20,
        reasoning_tokens=8,
        units={"input_audio_tokens": 0, "output_audio_tokens": 0},
    )


def test_responses_keep_a_stated_zero() -> None:
    provider, _, usage = usage_from_response("", RESPONSES)
    assert provider == "openai"
    assert usage == Usage(prompt_tokens=100, cached_tokens=0, output_tokens=20, reasoning_tokens=12)


def test_messages_count_cached_tokens_into_the_prompt() -> None:
    provider, model, usage = usage_from_response("", MESSAGES)
    assert (provider, model) == ("anthropic", "claude-sonnet-4-5-20250929")
    assert usage == Usage(
        prompt_tokens=910,
        cached_tokens=600,
        cache_write_tokens=300,
        output_tokens=20,
        units={"cache_write_5m_tokens": 200, "cache_write_1h_tokens": 100, "web_searches": 2},
    )


def test_generate_content_counts_thoughts_into_the_output() -> None:
    provider, model, usage = usage_from_response("", GENERATE)
    assert (provider, model) == ("google", "gemini-2.5-pro")
    assert (usage.prompt_tokens, usage.cached_tokens, usage.output_tokens) == (100, 40, 25)


def test_converse_names_no_model() -> None:
    assert usage_from_response("", CONVERSE)[:2] == ("aws", "")


def test_embeddings_have_no_output() -> None:
    provider, _, usage = usage_from_response("", EMBEDDINGS)
    assert provider == "openai"
    assert usage == Usage(prompt_tokens=9)


def test_an_unused_call_is_zero_and_not_unknown() -> None:
    body = {
        "object": "chat.completion",
        "model": "gpt-4o",
        "usage": {"prompt_tokens": 0, "completion_tokens": 0},
    }
    assert usage_from_response("", body)[2] == Usage(prompt_tokens=0, output_tokens=0)


@pytest.mark.parametrize(
    ("provider", "body", "expected"),
    [
        ("azure", CHAT, ("azure", 100, 20)),
        ("azure", RESPONSES, ("azure", 100, 20)),
        ("azure", MESSAGES, ("azure", 910, 20)),
        ("aws", MESSAGES, ("aws", 910, 20)),
        ("groq", CHAT, ("groq", 100, 20)),
        ("google", MESSAGES, ("google", 910, 20)),
        # Its own "default" would read input_tokens as the whole prompt.
        ("openrouter", MESSAGES, ("openrouter", 910, 20)),
        # Nobody the catalogue knows: the form of the body is enough.
        ("my-gateway", CHAT, ("my-gateway", 100, 20)),
        ("my-gateway", GENERATE, ("my-gateway", 100, 25)),
        # A copy of another's API, which the catalogue has no extractor for.
        ("deepseek", MESSAGES, ("deepseek", 910, 20)),
    ],
)
def test_a_stated_provider_is_kept_and_its_body_read(provider, body, expected) -> None:
    name, _, usage = usage_from_response(provider, body)
    assert (name, usage.prompt_tokens, usage.output_tokens) == expected


def test_the_models_name_tells_who_speaks_anothers_api() -> None:
    provider, _, usage = usage_from_response("", {**CHAT, "model": "deepseek-chat"})
    assert provider == "deepseek"
    assert usage.cached_tokens == 64


def test_a_form_only_the_stated_provider_has_is_read_by_it() -> None:
    body = {"model": "mistral-ocr-latest", "usage_info": {"pages_processed": 3}}
    assert usage_from_response("mistral", body)[2].units == {"input_document_pages": 3}
    assert usage_from_response("", body)[0] == "mistral"


def test_a_part_of_a_second_counts_as_one() -> None:
    body = {"model": "x", "usage": {"seconds": 1.25}}
    assert usage_from_response("openai", body)[2].units == {"audio_seconds": 2}


@pytest.mark.parametrize(
    ("provider", "body", "message"),
    [
        ("", {}, "its form is not known"),
        ("", {"usage": None}, "its form is not known"),
        ("", {"usage": [1]}, "its form is not known"),
        ("nobody", {"model": "m"}, "its form is not known"),
        ("openai", {"model": "gpt-4o"}, "no usage in it .chat: Missing value at `usage`"),
        ("", {"object": "chat.completion", "model": "gpt-4o"}, "no usage in it"),
        (
            "",
            {"type": "message", "model": 5, "usage": {}},
            "no usage in it .default: Missing value",
        ),
        ("", {**CHAT, "usage": {"prompt_tokens": -1, "completion_tokens": 1}}, "no usage in it"),
        ("", {**CHAT, "usage": {"prompt_tokens": True, "completion_tokens": 1}}, "no usage in it"),
        ("", {**CHAT, "usage": {"prompt_tokens": "9", "completion_tokens": 1}}, "no usage in it"),
        (
            "",
            {
                **CHAT,
                "usage": {
                    "prompt_tokens": 1,
                    "completion_tokens": 1,
                    "prompt_tokens_details": {"cached_tokens": 2},
                },
            },
            "usage.cached_tokens",
        ),
        ("", {**CHAT, "usage": {"prompt_tokens": 10**30, "completion_tokens": 1}}, "must lie in 0"),
    ],
)
def test_a_body_that_states_no_usage_is_refused_with_the_reason(provider, body, message) -> None:
    with pytest.raises(InvalidAsk, match=message):
        usage_from_response(provider, body)
