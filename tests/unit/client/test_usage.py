"""Providers' usage, read into one shape."""

import pytest
from anthropic.types import MessageDeltaUsage
from anthropic.types import Usage as AnthropicUsage
from costd_client import InvalidAsk
from costd_client.pb import admission_pb2 as pb
from costd_client.usage import read_usage
from openai.types import CompletionUsage
from openai.types.responses import ResponseUsage

CHAT = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 7},
    "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 0},
}
RESPONSE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 5},
    "output_tokens": 50,
    "output_tokens_details": {"reasoning_tokens": 30},
    "total_tokens": 150,
}
MESSAGE = {
    "input_tokens": 55,
    "cache_read_input_tokens": 40,
    "cache_creation_input_tokens": 5,
    "cache_creation": {"ephemeral_1h_input_tokens": 5, "ephemeral_5m_input_tokens": 0},
    "output_tokens": 50,
    "output_tokens_details": {"thinking_tokens": 30},
    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
}
CHAT_READ = pb.Usage(
    prompt_tokens=100,
    cached_tokens=40,
    output_tokens=50,
    reasoning_tokens=30,
    units={"input_audio_tokens": 7},
)
RESPONSE_READ = pb.Usage(
    prompt_tokens=100,
    cached_tokens=40,
    cache_write_tokens=5,
    output_tokens=50,
    reasoning_tokens=30,
)
MESSAGE_READ = pb.Usage(
    prompt_tokens=100,
    cached_tokens=40,
    cache_write_tokens=5,
    output_tokens=50,
    reasoning_tokens=30,
    units={"cache_write_1h_tokens": 5, "web_searches": 2},
)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (CHAT, CHAT_READ),
        (CompletionUsage.model_validate(CHAT), CHAT_READ),
        (RESPONSE, RESPONSE_READ),
        (ResponseUsage.model_validate(RESPONSE), RESPONSE_READ),
        (MESSAGE, MESSAGE_READ),
        (AnthropicUsage.model_validate(MESSAGE), MESSAGE_READ),
        ({"usage": MESSAGE, "model": "claude"}, MESSAGE_READ),
        ({"prompt_tokens": 3, "total_tokens": 3}, pb.Usage(prompt_tokens=3)),
        ({"prompt_tokens": 9, "output_tokens": 0}, pb.Usage(prompt_tokens=9, output_tokens=0)),
        (
            {"prompt_tokens": 9, "cached_tokens": 4, "reasoning_tokens": 1, "output_tokens": 2},
            pb.Usage(prompt_tokens=9, cached_tokens=4, reasoning_tokens=1, output_tokens=2),
        ),
        (MessageDeltaUsage(output_tokens=7), pb.Usage(output_tokens=7)),
        (pb.Usage(prompt_tokens=1), pb.Usage(prompt_tokens=1)),
    ],
)
def test_every_providers_usage_is_read(given, read):
    assert read_usage(given) == read


def test_fields_overwrite_and_absent_is_not_zero():
    read = read_usage(CHAT, output_tokens=0, reasoning_tokens=None, units={"images": 2})
    assert read.output_tokens == 0
    assert read.reasoning_tokens == 30
    assert dict(read.units) == {"input_audio_tokens": 7, "images": 2}
    assert not read.HasField("cache_write_tokens")


@pytest.mark.parametrize(
    ("given", "fields", "says"),
    [
        ({"tokens": 3}, {}, "states no usage that is known here"),
        (object(), {}, "states no usage that is known here"),
        ({"prompt_tokens": -1}, {}, r"usage\.prompt_tokens is -1"),
        ({"prompt_tokens": 1.5}, {}, r"usage\.prompt_tokens is 1\.5"),
        ({"input_tokens": "3"}, {}, r"usage\.input_tokens is '3'"),
        (None, {"output_tokens": True}, r"usage\.output_tokens is True"),
        (None, {"units": {"images": -2}}, r"usage\.units\[images\] is -2"),
        (None, {"tokens": 3}, "no field tokens; known are"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(given, fields, says):
    with pytest.raises(InvalidAsk, match=says):
        read_usage(given, **fields)
