"""`wrap` puts costd in front of an `openai` client, blocking or asyncio."""

# ruff: noqa: ARG002 - endpoints share one signature, and not every API uses all of it
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from costd_client.errors import Denied
from costd_client.estimate import estimate, estimate_schema
from costd_client.guard import Endpoint, Guard, install

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import openai

    from costd_client.client import AsyncClient, Client

    OpenAIClient = TypeVar("OpenAIClient", openai.OpenAI, openai.AsyncOpenAI)
else:
    OpenAIClient = TypeVar("OpenAIClient")

_THINKS_UNSEEN = re.compile(r"^(?:o\d|gpt-[5-9])")
"""Models that write reasoning tokens which the chat API never shows."""


class CallDenied(Denied):
    """costd refused a call of an OpenAI client; nothing was sent."""


def wrap(
    client: OpenAIClient,
    *,
    costd: Client | AsyncClient,
    provider: str = "openai",
    task_class: str = "",
    labels: Mapping[str, str] | None = None,
    acceptable_models: Sequence[str] | None = None,
) -> OpenAIClient:
    """Return a copy of the client that asks costd before each call and settles after it.

    Shape:   guards chat completions, responses and embeddings, with all their helpers, streams
             and raw responses; everything else passes unasked (README, "What is guarded").
             `provider` is the price catalogue's name, for the many who speak this API.
             `acceptable_models`: what calls may be degraded to; the provider's by default.
    Errors:  CallDenied from a call that is refused.
    """
    guard = Guard(
        costd=costd,
        provider=provider,
        find_endpoint=find_endpoint,
        denied=CallDenied,
        task_class=task_class,
        labels=dict(labels or {}),
        acceptable_models=tuple(acceptable_models or (f"{provider}/*",)),
    )
    return install(client, guard, lambda copy: copy.chat.completions)


def find_endpoint(path: str) -> Endpoint | None:
    """Name the endpoint a path belongs to; None for what is not guarded."""
    return _ENDPOINTS.get(path.split("?", maxsplit=1)[0].rstrip("/"))


class ChatEndpoint:
    """Chat completions."""

    cost_kind = "llm_call"

    def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Estimate messages, tools and the response's schema."""
        return (
            estimate(body.get("messages"))
            + estimate_schema(body.get("tools"))
            + estimate_schema(body.get("functions"))
            + estimate_schema(body.get("response_format"))
        )

    def max_output_tokens(self, body: Mapping[str, Any]) -> int | None:
        """Read the limit, once for each choice asked for."""
        most = _number(body.get("max_completion_tokens")) or _number(body.get("max_tokens"))
        return most * _choices_count(body) if most else None

    def cheaper(self, body: Mapping[str, Any], max_output_tokens: int | None) -> dict[str, Any]:
        """Limit each choice to its share, under the name the caller uses."""
        if max_output_tokens is None:
            return {}
        share = max(max_output_tokens // _choices_count(body), 1)
        name = "max_tokens" if _number(body.get("max_tokens")) else "max_completion_tokens"
        asked = _number(body.get(name))
        return {} if asked and asked <= share else {name: share}

    def streaming(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for usage at the end of the stream, unless the caller did."""
        options = body.get("stream_options") or {}
        if options.get("include_usage"):
            return {}
        return {"stream_options": {**options, "include_usage": True}}

    def reader(self, body: Mapping[str, Any], added: Mapping[str, Any]) -> ChatReader:
        """Make a reader that hides the usage chunk if only costd asked for it."""
        return ChatReader(
            prompt_tokens=self.prompt_tokens(body),
            hides_usage="stream_options" in added,
            hidden_output="reasoning_effort" in body
            or bool(_THINKS_UNSEEN.match(str(body.get("model")))),
        )


class ChatReader:
    """Reads chunks of a streamed chat completion."""

    def __init__(self, *, prompt_tokens: int, hides_usage: bool, hidden_output: bool) -> None:
        self.prompt_tokens = prompt_tokens
        self.usage: dict[str, Any] | None = None
        self.final = False
        self.hidden_output = hidden_output
        self._hides_usage = hides_usage

    def read(self, event: Any) -> tuple[str, bool]:
        """Read one chunk; the one with usage has no choices."""
        choices = getattr(event, "choices", None) or []
        usage = getattr(event, "usage", None)
        if usage is not None:
            self.usage = usage.model_dump(exclude_none=True)
            self.final = True
        text = "".join(_delta_text(getattr(choice, "delta", None)) for choice in choices)
        return text, bool(choices) or usage is None or not self._hides_usage


class ResponsesEndpoint:
    """The responses API."""

    cost_kind = "llm_call"

    def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Estimate input, instructions, tools and the text format's schema."""
        return (
            estimate(body.get("input"))
            + estimate(body.get("instructions"))
            + estimate_schema(body.get("tools"))
            + estimate_schema(body.get("text"))
        )

    def max_output_tokens(self, body: Mapping[str, Any]) -> int | None:
        """Read the limit."""
        return _number(body.get("max_output_tokens"))

    def cheaper(self, body: Mapping[str, Any], max_output_tokens: int | None) -> dict[str, Any]:
        """Lower the limit; the API takes no less than 16."""
        asked = self.max_output_tokens(body)
        if max_output_tokens is None or (asked and asked <= max_output_tokens):
            return {}
        return {"max_output_tokens": max(max_output_tokens, 16)}

    def streaming(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change nothing: the last event always states usage."""
        return {}

    def reader(self, body: Mapping[str, Any], added: Mapping[str, Any]) -> ResponsesReader:
        """Make a reader."""
        return ResponsesReader(self.prompt_tokens(body))


class ResponsesReader:
    """Reads events of a streamed response."""

    def __init__(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.usage: dict[str, Any] | None = None
        self.final = False
        self.hidden_output = False

    def read(self, event: Any) -> tuple[str, bool]:
        """Read one event; the last carries the whole response."""
        usage = getattr(getattr(event, "response", None), "usage", None)
        if usage is not None:
            self.usage = usage.model_dump(exclude_none=True)
            self.final = True
        if getattr(getattr(event, "item", None), "type", "") == "reasoning":
            self.hidden_output = True
        delta = getattr(event, "delta", None)
        return (delta if isinstance(delta, str) else ""), True


class EmbeddingsEndpoint:
    """Embeddings."""

    cost_kind = "embedding"

    def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Estimate texts; count token lists, which are exact."""
        content = body.get("input")
        if isinstance(content, (list, tuple)) and content and not isinstance(content[0], str):
            rows = content if isinstance(content[0], (list, tuple)) else [content]
            return sum(len(row) for row in rows)
        return estimate(content)

    def max_output_tokens(self, body: Mapping[str, Any]) -> int | None:
        """Embeddings write no tokens."""
        return 0

    def cheaper(self, body: Mapping[str, Any], max_output_tokens: int | None) -> dict[str, Any]:
        """Change nothing."""
        return {}

    def streaming(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change nothing; embeddings do not stream."""
        return {}

    def reader(self, body: Mapping[str, Any], added: Mapping[str, Any]) -> ResponsesReader:
        """Make a reader that finds nothing."""
        return ResponsesReader(self.prompt_tokens(body))


_ENDPOINTS: dict[str, Endpoint] = {
    "/chat/completions": ChatEndpoint(),
    "/responses": ResponsesEndpoint(),
    "/embeddings": EmbeddingsEndpoint(),
}


def _choices_count(body: Mapping[str, Any]) -> int:
    return _number(body.get("n")) or 1


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _delta_text(delta: Any) -> str:
    """Join everything a delta adds: text, refusals, tool names and their arguments."""
    if delta is None:
        return ""
    parts = [getattr(delta, name, None) for name in ("content", "refusal", "reasoning_content")]
    for call in getattr(delta, "tool_calls", None) or []:
        function = getattr(call, "function", None)
        parts += [getattr(function, "name", None), getattr(function, "arguments", None)]
    return "".join(part for part in parts if isinstance(part, str))
