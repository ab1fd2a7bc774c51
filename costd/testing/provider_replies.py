"""What the fake provider answers: bodies and events in the providers' own formats."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Parts of the usage to state: of the prompt, cached and written; of the output, reasoning."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, whole and as the events of a stream."""

    body: dict[str, Any]
    events: list[bytes]


@dataclass(frozen=True, slots=True)
class _Counts:
    prompt: int
    words: list[str]
    usage: Usage

    @property
    def output(self) -> int:
        return len(self.words) + self.usage.reasoning_tokens

    @property
    def text(self) -> str:
        return "".join(self.words)


def reply_to(path: str, body: dict[str, Any], words_count: int, usage: Usage) -> Reply | None:
    """Answer a request deterministically; None for a path that is not served."""
    reply = _REPLIES.get(path.split("?", maxsplit=1)[0])
    if reply is None:
        return None
    limits = (
        body.get(name) for name in ("max_completion_tokens", "max_tokens", "max_output_tokens")
    )
    most = min([words_count, *(limit for limit in limits if isinstance(limit, int))])
    words = [f"word{number} " for number in range(most)]
    return reply(body, _Counts(words_in(body), words, usage))


def words_in(value: Any) -> int:
    """Count the words of every text in a request, which are its prompt tokens."""
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, dict):
        texts = (
            value[key] for key in ("messages", "input", "content", "text", "system") if key in value
        )
        return sum(words_in(text) for text in texts)
    if isinstance(value, list):
        return sum(words_in(part) for part in value)
    return 0


def _chat(body: dict[str, Any], counts: _Counts) -> Reply:
    usage = {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.output,
        "total_tokens": counts.prompt + counts.output,
        "prompt_tokens_details": {"cached_tokens": counts.usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": counts.usage.reasoning_tokens},
    }
    head = {"id": "chatcmpl-fake", "created": 1, "model": body["model"]}
    message = {"role": "assistant", "content": counts.text}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    whole = {**head, "object": "chat.completion", "choices": choices, "usage": usage}
    chunk = {**head, "object": "chat.completion.chunk"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word} for word in counts.words]
    chunks = [
        {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas
    ]
    chunks.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**chunk, "choices": [], "usage": usage})
    events = [_data_event(part) for part in chunks]
    return Reply(whole, [*events, b"data: [DONE]\n\n"])


def _responses(body: dict[str, Any], counts: _Counts) -> Reply:
    usage = {
        "input_tokens": counts.prompt,
        "input_tokens_details": {
            "cached_tokens": counts.usage.cached_tokens,
            "cache_write_tokens": counts.usage.cache_write_tokens,
        },
        "output_tokens": counts.output,
        "output_tokens_details": {"reasoning_tokens": counts.usage.reasoning_tokens},
        "total_tokens": counts.prompt + counts.output,
    }
    part = {"type": "output_text", "text": counts.text, "annotations": []}
    item = {"id": "msg_fake", "type": "message", "role": "assistant", "status": "completed"}
    whole = {
        "id": "resp_fake",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "status": "completed",
        "output": [{**item, "content": [part]}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }
    place = {"item_id": "msg_fake", "output_index": 0, "content_index": 0}
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    empty = {"type": "output_text", "text": "", "annotations": []}
    parts: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **place, "part": empty},
    ]
    parts += [
        {"type": "response.output_text.delta", **place, "delta": word, "logprobs": []}
        for word in counts.words
    ]
    parts.append({"type": "response.completed", "response": whole})
    events = [
        _named_event({**part, "sequence_number": number}) for number, part in enumerate(parts)
    ]
    return Reply(whole, events)


def _embeddings(body: dict[str, Any], counts: _Counts) -> Reply:
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [
        {"object": "embedding", "index": index, "embedding": [0.5, -0.25]}
        for index, _ in enumerate(inputs)
    ]
    usage = {"prompt_tokens": counts.prompt, "total_tokens": counts.prompt}
    return Reply({"object": "list", "model": body["model"], "data": data, "usage": usage}, [])


def _messages(body: dict[str, Any], counts: _Counts) -> Reply:
    fresh = max(counts.prompt - counts.usage.cached_tokens - counts.usage.cache_write_tokens, 0)
    usage = {
        "input_tokens": fresh,
        "cache_read_input_tokens": counts.usage.cached_tokens,
        "cache_creation_input_tokens": counts.usage.cache_write_tokens,
        "output_tokens": counts.output,
    }
    head = {"id": "msg_fake", "type": "message", "role": "assistant", "model": body["model"]}
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    whole = {**head, **stop, "content": [{"type": "text", "text": counts.text}], "usage": usage}
    begun = {**head, "content": [], "stop_reason": None, "stop_sequence": None}
    block = {"type": "text", "text": ""}
    parts: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**begun, "usage": {**usage, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": word},
            }
            for word in counts.words
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": {"output_tokens": counts.output}},
        {"type": "message_stop"},
    ]
    return Reply(whole, [_named_event(part) for part in parts])


_REPLIES: dict[str, Callable[[dict[str, Any], _Counts], Reply]] = {
    "/v1/chat/completions": _chat,
    "/v1/responses": _responses,
    "/v1/embeddings": _embeddings,
    "/v1/messages": _messages,
}


def _data_event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def _named_event(body: dict[str, Any]) -> bytes:
    return f"event: {body['type']}\n".encode() + _data_event(body)
