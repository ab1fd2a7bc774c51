"""What a call's span says of it: OpenTelemetry's names for model calls, and costd's own.

Source:  OpenTelemetry's semantic conventions for generative AI, schema gen-ai/1.42.0, still in
         development (github.com/open-telemetry/semantic-conventions-genai). The attributes are set
         on costd's spans of the ask and of the settlement, since costd does not see the provider's
         call itself.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from costd.wire.pb import admission_pb2 as pb

Attributes = Mapping[str, str | int | bool]
Describe = Callable[[Any, Any], Attributes]

VALUE_LENGTH_MAX: Final = 256
"""Longer texts are cut: names have no more, and a span must not grow with what a caller says."""

OPERATIONS: Final = {
    "": "chat",
    "llm_call": "chat",
    "embedding": "embeddings",
    "image": "generate_content",
    "tool": "execute_tool",
}
"""From cost kinds to gen_ai.operation.name; other kinds are told as they are."""

PROVIDERS: Final = {
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google": "gcp.gen_ai",
    "mistral": "mistral_ai",
    "moonshotai": "moonshot_ai",
    "x-ai": "x_ai",
}
"""From the price catalogue's names to gen_ai.provider.name, where those differ."""


def _words(enum: Any, prefix: str) -> dict[int, str]:
    return {number: name.removeprefix(prefix).lower() for name, number in enum.items()}


VERDICTS: Final = _words(pb.Verdict, "VERDICT_")
REASONS: Final = _words(pb.Reason, "REASON_")
STATES: Final = _words(pb.ReservationState, "RESERVATION_STATE_")
OUTCOMES: Final = _words(pb.Outcome, "OUTCOME_")


def attributes_of(method: str, labels: tuple[str, ...]) -> Describe | None:
    """Say what describes the calls of a method, None for one that has nothing to tell.

    Shape:   it is given request and answer; `labels` are copied from asks.
    """

    def labelled(request: Any, answer: Any) -> Attributes:
        found = request.labels
        given = {f"costd.label.{key}": found[key] for key in labels if key in found}
        return _cut({**_DESCRIBED[method](request, answer), **given})

    if method not in _DESCRIBED:
        return None
    if labels and method in _LABELLED:
        return labelled
    describe = _DESCRIBED[method]
    return lambda request, answer: _cut(describe(request, answer))


def _ask(request: pb.AdmitRequest, decision: pb.Decision) -> Attributes:
    """Of a decision: what was asked for and what may be called; no text, no key with a user."""
    return {
        **_model_call(request.cost_kind, request.provider or decision.provider),
        "gen_ai.request.model": request.model or decision.model,
        "gen_ai.request.max_tokens": request.max_output_tokens,
        "costd.verdict": VERDICTS.get(decision.verdict, ""),
        "costd.reason": REASONS.get(decision.reason, ""),
        "costd.task_class": request.task_class,
        "costd.tier": decision.tier,
        "costd.tier.asked": decision.asked_tier,
        "costd.provider": decision.provider,
        "costd.model": decision.model,
        "costd.ask.id": request.ask_id,
        "costd.reservation.id": decision.reservation_id,
        "costd.hold_nusd": decision.hold_nusd,
        "costd.budget": decision.tightest_budget,
        "costd.utilisation_bp": decision.utilisation_bp,
        "costd.binding.rule": decision.binding.rule,
        "costd.binding.kind": decision.binding.kind,
        "costd.grant.id": decision.grant_id,
        "costd.shadow.verdict": VERDICTS[decision.shadow_verdict]
        if decision.shadow_verdict
        else "",
        "costd.policy.revision": decision.policy_revision,
        "costd.replayed": decision.replayed,
    }


def _explained(request: pb.AdmitRequest, explanation: pb.Explanation) -> Attributes:
    return _ask(request, explanation.decision)


def _settled(request: pb.SettleRequest, closed: pb.Settlement) -> Attributes:
    """Of a settlement: what answered and what it used."""
    return {
        **_model_call("", request.provider or closed.price.provider),
        "gen_ai.response.model": request.model or closed.price.model,
        **_usage(request),
        **_closed(request, closed),
    }


def _recorded(request: pb.RecordRequest, closed: pb.Settlement) -> Attributes:
    return {
        **_model_call(request.cost_kind, request.provider),
        "gen_ai.response.model": request.model,
        "costd.task_class": request.task_class,
        **_usage(request),
        **_closed(request, closed),
    }


def _voided(_request: pb.VoidRequest, closed: pb.Settlement) -> Attributes:
    return {
        "costd.reservation.id": closed.reservation_id,
        "costd.state": STATES.get(closed.state, ""),
        "costd.hold_nusd": closed.hold_nusd,
        "costd.replayed": closed.replayed,
    }


def _extended(_request: pb.ExtendRequest, extension: pb.Extension) -> Attributes:
    return {
        "costd.reservation.id": extension.reservation_id,
        "costd.extended": extension.extended,
        "costd.reason": REASONS.get(extension.reason, ""),
        "costd.hold_nusd": extension.hold_nusd,
        "costd.binding.rule": extension.binding.rule,
        "costd.binding.kind": extension.binding.kind,
    }


def _limited(_request: Message, response: Any) -> Attributes:
    """Of an answer to Envoy: what it tells filters; the model is the one that is called then."""
    told = response.dynamic_metadata
    found = {name: told[name] for name in _TOLD_TO_FILTERS if name in told}
    provider = str(found.get("provider", ""))
    return {
        "gen_ai.provider.name": PROVIDERS.get(provider, provider),
        "gen_ai.request.model": found.get("model", ""),
        "costd.verdict": found.get("verdict", ""),
        "costd.reason": str(found.get("reason", "")).lower(),
        "costd.budget": found.get("budget", ""),
        "costd.tier": found.get("tier", ""),
        "costd.provider": provider,
        "costd.model": found.get("model", ""),
        "costd.reservation.id": found.get("reservation_id", ""),
        "costd.utilisation_bp": int(found.get("utilisation_bp", 0)),
        **({"costd.hold_nusd": int(found["hold_nusd"])} if "hold_nusd" in found else {}),
    }


def _model_call(cost_kind: str, provider: str) -> Attributes:
    return {
        "gen_ai.operation.name": OPERATIONS.get(cost_kind, cost_kind),
        "gen_ai.provider.name": PROVIDERS.get(provider, provider),
    }


def _usage(request: pb.SettleRequest | pb.RecordRequest) -> Attributes:
    usage = request.usage
    return {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }


def _closed(request: pb.SettleRequest | pb.RecordRequest, closed: pb.Settlement) -> Attributes:
    return {
        "costd.reservation.id": closed.reservation_id,
        "costd.state": STATES.get(closed.state, ""),
        "costd.outcome": OUTCOMES[request.outcome] if request.outcome else "",
        "costd.retry_count": request.retry_count,
        "costd.cost_nusd": closed.cost_nusd,
        "costd.hold_nusd": closed.hold_nusd,
        "costd.overrun_nusd": closed.overrun_nusd,
        "costd.late": closed.late,
        "costd.replayed": closed.replayed,
    }


def _cut(attributes: Attributes) -> Attributes:
    """Leave out what says nothing, and cut what says too much."""
    return {
        name: value[:VALUE_LENGTH_MAX] if isinstance(value, str) else value
        for name, value in attributes.items()
        if value or name in _ZERO_SAYS_SOMETHING
    }


_TOLD_TO_FILTERS: Final = (
    *("verdict", "reason", "budget", "provider", "model", "tier"),
    *("reservation_id", "hold_nusd", "utilisation_bp"),
)
_ZERO_SAYS_SOMETHING: Final = frozenset({"costd.hold_nusd", "costd.cost_nusd"})

_DESCRIBED: Final[Mapping[str, Describe]] = {
    "costd.v1.Admission/Admit": _ask,
    "costd.v1.Admission/Explain": _explained,
    "costd.v1.Admission/Settle": _settled,
    "costd.v1.Admission/Record": _recorded,
    "costd.v1.Admission/Void": _voided,
    "costd.v1.Admission/Extend": _extended,
    "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit": _limited,
}
_LABELLED: Final = frozenset(
    f"costd.v1.Admission/{name}" for name in ("Admit", "Explain", "Record")
)
