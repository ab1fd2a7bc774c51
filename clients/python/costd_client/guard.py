"""Puts an admission in front of every LLM call of a provider's SDK client.

Both SDKs send every call through their client's `post` method, whichever helper it came from
(`create`, `parse`, `stream`, raw responses). The guard stands there, on a copy of the client, so
that everything else about the client stays as it was.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from costd_client.call import CallState
from costd_client.client import AsyncClient, Client
from costd_client.context import ambient
from costd_client.decision import Outcome
from costd_client.ending import outcome_of
from costd_client.errors import CostdError, Denied, InvalidAsk
from costd_client.metered import AsyncMeteredStream, MeteredStream, RawStream, StreamMeter
from costd_client.steps import Invoke, Steps, adrive, drive

if TYPE_CHECKING:
    from costd_client.metered import StreamReader

log = logging.getLogger("costd_client")

RAW_HEADER = "X-Stainless-Raw-Response"
"""Asks the SDKs for the response beside its parsed form, as `with_raw_response` does."""

_NEVER_CONNECTED = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
        "LocalProtocolError",
        "InvalidURL",
    }
)
_NEVER_SENT = frozenset({"OpenAIError", "AnthropicError", "CredentialsError"})
"""The SDKs' bare errors: no credentials, a setting that cannot be used."""

SdkClient = TypeVar("SdkClient")


class Endpoint(Protocol):
    """One API of a provider: how an ask is read from its request, and a decision applied.

    Implemented in `costd_client.openai` and `costd_client.anthropic`; exists so that the guard
    knows no provider.
    """

    cost_kind: str

    def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Estimate the tokens going in."""
        ...

    def max_output_tokens(self, body: Mapping[str, Any]) -> int | None:
        """Read the most tokens that may come out, all choices together."""
        ...

    def cheaper(self, body: Mapping[str, Any], max_output_tokens: int | None) -> dict[str, Any]:
        """Return the fields to change so that at most so many tokens come out."""
        ...

    def streaming(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields to change so that a stream reports its usage."""
        ...

    def reader(self, body: Mapping[str, Any], added: Mapping[str, Any]) -> StreamReader:
        """Make a reader for one stream; `added` is what `streaming` changed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """How one wrapped client asks: on whose behalf, for which class, of which models."""

    costd: Client | AsyncClient
    provider: str
    find_endpoint: Callable[[str], Endpoint | None]
    denied: type[Denied]
    task_class: str
    labels: Mapping[str, str]
    acceptable_models: tuple[str, ...]

    def post(self, original: Callable[..., Any], path: str, kwargs: dict[str, Any]) -> Steps[Any]:
        """Admit a request, send it as decided, and settle what it used.

        Errors:  the SDK's own; Denied (of the wrapper's kind) and the client's, before sending.
        """
        endpoint = self.find_endpoint(path)
        body = kwargs.get("body")
        if endpoint is None or not isinstance(body, Mapping):
            return (yield Invoke(lambda: original(path, **kwargs)))
        request = SdkRequest(endpoint, body, kwargs)
        call = CallState(self.costd.rules, self._ask(request))
        try:
            yield from call.enter()
        except Denied as refusal:
            raise self.denied(refusal.decision) from None
        request.apply(call)
        call.sent()
        try:
            raw = yield Invoke(lambda: original(path, **request.kwargs))
        except BaseException as error:
            yield from _close_failed(call, error)
            raise
        return (yield from self._answer(request, call, raw))

    def _ask(self, request: SdkRequest) -> dict[str, Any]:
        body = request.effective
        output_tokens = request.endpoint.max_output_tokens(body)
        around = ambient()  # what surrounds one call says more than what the client was told once
        return {
            "task_class": around.task_class or self.task_class,
            "labels": {**self.labels, **around.labels},
            "provider": self.provider,
            "model": str(body.get("model") or ""),
            "prompt_tokens": request.endpoint.prompt_tokens(body),
            "max_output_tokens": output_tokens,
            "acceptable_models": self.acceptable_models,
            "cost_kind": request.endpoint.cost_kind,
        }

    def _answer(self, request: SdkRequest, call: CallState, raw: Any) -> Steps[Any]:
        retry_count = getattr(raw, "retries_taken", 0)
        if request.kwargs.get("stream"):
            reader = request.endpoint.reader(request.effective, request.added)
            meter = StreamMeter(call, reader, retry_count=retry_count)
            return (yield from self._stream(request, meter, raw))
        if request.raw_wish == "stream":
            # The body is still on its way and nobody but the caller reads it, so its usage is
            # not known here; the daemon charges the hold when it expires.
            yield from _close_quietly(call, None)
            return raw
        _settle_response(call, raw, retry_count)
        yield from _close_quietly(call, None)
        return raw if request.raw_wish else (yield Invoke(raw.parse))

    def _stream(self, request: SdkRequest, meter: StreamMeter, raw: Any) -> Steps[Any]:
        wrap = self._wrap_stream(meter)
        if request.raw_wish:
            return RawStream(raw, wrap)
        try:
            stream = yield Invoke(raw.parse)
        except BaseException as error:
            yield from meter.finish(error)
            raise
        return wrap(stream)

    def _wrap_stream(self, meter: StreamMeter) -> Callable[[Any], Any]:
        send = self.costd.send
        if isinstance(self.costd, AsyncClient):
            return lambda stream: AsyncMeteredStream(stream, meter, send)
        return lambda stream: MeteredStream(stream, meter, send)


class SdkRequest:
    """One request on its way through an SDK's `post`: its body, and what is changed in it."""

    def __init__(
        self, endpoint: Endpoint, body: Mapping[str, Any], kwargs: Mapping[str, Any]
    ) -> None:
        self.endpoint = endpoint
        self.kwargs = dict(kwargs)
        options = dict(self.kwargs.get("options") or {})
        headers = dict(options.get("headers") or {})
        self.raw_wish = _header(headers, RAW_HEADER)
        if not self.raw_wish:
            headers[RAW_HEADER] = "true"
        options["headers"] = headers
        self.kwargs["options"] = options
        # `extra_body` wins over the body when the SDK builds the request; so it does here.
        self._extra = dict(options.get("extra_json") or {})
        self._body = dict(body)
        self.added: Mapping[str, Any] = {}

    @property
    def effective(self) -> dict[str, Any]:
        """The body as the provider will see it."""
        return {key: value for key, value in {**self._body, **self._extra}.items() if _given(value)}

    def apply(self, call: CallState) -> None:
        """Change model, length and retries to what was decided."""
        changes: dict[str, Any] = {}
        decision = call.decision
        if decision.model and decision.model != self.effective.get("model"):
            changes["model"] = decision.model
        changes |= self.endpoint.cheaper(self.effective, decision.max_output_tokens)
        if self.kwargs.get("stream"):
            self.added = self.endpoint.streaming(self.effective)
            changes |= self.added
        self._body |= changes
        self.kwargs["body"] = self._body
        options = self.kwargs["options"]
        if self._extra:
            options["extra_json"] = {
                key: value for key, value in self._extra.items() if key not in changes
            }
        if decision.max_retries is not None:
            asked = options.get("max_retries")
            options["max_retries"] = (
                min(asked, decision.max_retries) if isinstance(asked, int) else decision.max_retries
            )


def never_left(error: BaseException) -> bool:
    """Tell whether the SDK failed before any byte of the request can have reached anybody."""
    if type(error).__name__ in _NEVER_SENT or isinstance(error, (TypeError, ValueError)):
        return True
    seen: BaseException | None = error
    while seen is not None:
        if type(seen).__name__ in _NEVER_CONNECTED:
            return True
        seen = seen.__cause__
    return False


def _close_failed(call: CallState, error: BaseException) -> Steps[None]:
    """Close a call that the SDK raised on: free, refused, or left because nobody knows."""
    status = getattr(error, "status_code", None)
    if never_left(error):
        call.void()
    elif isinstance(status, int) and 400 <= status < 500:  # noqa: PLR2004 - HTTP's client errors
        call.settle(cost_nusd=0, outcome=Outcome.ERROR)
    yield from _close_quietly(call, error)


def _settle_response(call: CallState, raw: Any, retry_count: int) -> None:
    """Read the usage from the response's JSON, whatever type the SDK will parse it into."""
    try:
        call.settle(raw.http_response.json().get("usage"), retry_count=retry_count)
    except (InvalidAsk, ValueError, AttributeError) as error:
        log.warning("costd: the response states no usage (%s); charged at the hold", error)


def _close_quietly(call: CallState, error: BaseException | None) -> Steps[None]:
    """Close a call and log what goes wrong: the response is paid for and must be returned."""
    try:
        yield from call.leave(error)
    except CostdError as closing_error:
        log.error("costd: closing %r failed: %s", call.decision, closing_error)  # noqa: TRY400 - the message says it all
    if error is not None:
        log.debug("costd: the call ended as %s", outcome_of(error).name)


def _header(headers: Mapping[str, Any], name: str) -> str:
    return next(
        (str(value) for key, value in headers.items() if key.lower() == name.lower() and value), ""
    )


def _given(value: Any) -> bool:
    """Tell a value from the SDKs' markers for arguments that were left out."""
    return type(value).__name__ not in {"NotGiven", "Omit"}


def install(client: SdkClient, guard: Guard, resource: Callable[[Any], Any]) -> SdkClient:
    """Return a copy of an SDK client whose calls pass the guard.

    Ensures: the original stays unguarded; copies of the copy (`with_options`) are guarded.
    Errors:  TypeError if client and costd are not both blocking or both asyncio, or if this
             version of the SDK does not send its calls through `post`.
    """
    is_async = inspect.iscoroutinefunction(getattr(client, "post", None))
    if is_async is not isinstance(guard.costd, AsyncClient):
        kind, other = ("AsyncClient", "asyncio") if is_async else ("Client", "blocking")
        raise TypeError(f"a {other} {type(client).__name__} needs a costd_client.{kind}")
    copy: Any = client.copy()  # type: ignore[attr-defined]  # both SDKs' clients have it
    original_post, original_copy = copy.post, copy.copy

    def post(path: str, **kwargs: Any) -> Any:
        return drive(guard.post(original_post, path, kwargs), guard.costd.send)

    async def apost(path: str, **kwargs: Any) -> Any:
        return await adrive(guard.post(original_post, path, kwargs), guard.costd.send)

    def guarded_copy(*args: Any, **kwargs: Any) -> Any:
        return install(original_copy(*args, **kwargs), guard, resource)

    copy.post = apost if is_async else post
    copy.copy = copy.with_options = guarded_copy
    if getattr(resource(copy), "_post", None) is not copy.post:
        raise TypeError(
            f"this version of {type(client).__module__.split('.')[0]} does not send its calls "
            "through client.post, so they cannot be guarded; use `with client.call(…)` instead"
        )
    typed: SdkClient = copy
    return typed
