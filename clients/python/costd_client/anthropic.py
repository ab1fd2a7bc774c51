"""`wrap` puts costd in front of an `anthropic` client, blocking or asyncio."""

# ruff: noqa: ARG002 - endpoints share one signature, and not every API uses all of it
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from costd_client.errors import Denied
from costd_client.estimate import estimate, estimate_schema
from costd_client.guard import Endpoint, Guard, install

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anthropic

    from costd_client.client import AsyncClient, Client

    AnthropicClient = TypeVar("AnthropicClient", anthropic.Anthropic, anthropic.AsyncAnthropic)
else:
    AnthropicClient = TypeVar("AnthropicClient")

THINKING_TOKENS_MIN = 1_024
"""The least the API takes as `thinking.budget_tokens`, which must be below `max_tokens`."""


class CallDenied(Denied):
    """costd refused a call of an Anthropic client; nothing was sent."""


def wrap(
    client: AnthropicClient,
    *,
    costd: Client | AsyncClient,
    provider: str = "anthropic",
    task_class: str = "",
    labels: Mapping[str, str] | None = None,
    acceptable_models: Sequence[str] | None = None,
) -> AnthropicClient:
    """Return a copy of the client that asks costd before each call and settles after it.

    Shape:   guards messages (beta ones too) with all their helpers, streams and raw responses;
             everything else passes unasked (README, "What is guarded"). `acceptable_models`:
             what calls may be degraded to; the provider's by default.
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
    return install(client, guard, lambda copy: copy.messages)


def find_endpoint(path: str) -> Endpoint | None:
    """Name the endpoint a path belongs to; None for what is not guarded."""
    return _MESSAGES if path.split("?", maxsplit=1)[0].rstrip("/") == "/v1/messages" else None


class MessagesEndpoint:
    """The messages API."""

    cost_kind = "llm_call"

    def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Estimate messages, the system prompt, tools and the output's schema."""
        return (
            estimate(body.get("messages"))
            + estimate(body.get("system"))
            + estimate_schema(body.get("tools"))
            + estimate_schema(body.get("output_config"))
        )

    def max_output_tokens(self, body: Mapping[str, Any]) -> int | None:
        """Read the limit, which this API demands; thinking is part of it."""
        most = body.get("max_tokens")
        return most if isinstance(most, int) and most > 0 else None

    def cheaper(self, body: Mapping[str, Any], max_output_tokens: int | None) -> dict[str, Any]:
        """Lower the limit, and the budget for thinking that must stay below it."""
        asked = self.max_output_tokens(body)
        if max_output_tokens is None or (asked and asked <= max_output_tokens):
            return {}
        changes: dict[str, Any] = {"max_tokens": max_output_tokens}
        thinking = body.get("thinking")
        if isinstance(thinking, Mapping) and "budget_tokens" in thinking:
            budget = max_output_tokens // 2
            if thinking["budget_tokens"] < max_output_tokens:
                pass
            elif budget >= THINKING_TOKENS_MIN:
                changes["thinking"] = {**thinking, "budget_tokens": budget}
            else:
                changes["thinking"] = {"type": "disabled"}
        return changes

    def streaming(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change nothing: the events always state usage."""
        return {}

    def reader(self, body: Mapping[str, Any], added: Mapping[str, Any]) -> MessagesReader:
        """Make a reader."""
        return MessagesReader(self.prompt_tokens(body))


class MessagesReader:
    """Reads events of a streamed message: input is stated first, output counted up to the end."""

    def __init__(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.usage: dict[str, Any] | None = None
        self.final = False
        self.hidden_output = False

    def read(self, event: Any) -> tuple[str, bool]:
        """Read one event."""
        match getattr(event, "type", ""):
            case "message_start":
                self._take(getattr(event.message, "usage", None))
            case "message_delta":
                self._take(getattr(event, "usage", None))
                self.final = True
            case "content_block_start":
                # Thinking that the provider keeps to itself is billed all the same.
                kind = getattr(event.content_block, "type", "")
                self.hidden_output = self.hidden_output or kind == "redacted_thinking"
            case "content_block_delta":
                return _delta_text(event.delta), True
        return "", True

    def _take(self, usage: Any) -> None:
        if usage is not None:
            self.usage = {**(self.usage or {}), **usage.model_dump(exclude_none=True)}


_MESSAGES = MessagesEndpoint()


def _delta_text(delta: Any) -> str:
    parts = [getattr(delta, name, None) for name in ("text", "partial_json", "thinking")]
    return "".join(part for part in parts if isinstance(part, str))
