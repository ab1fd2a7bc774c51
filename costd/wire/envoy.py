"""Envoy's descriptors → what they say; a decision → what Envoy reads. Nothing is decided here."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from costd.errors import InvalidAsk
from costd.model.ask import TOKENS_MAX
from costd.model.decision import Decision, Verdict
from costd.model.policy import EnvoyRule, EnvoySource, WindowKind
from costd.model.time import NEVER_NS, NS_PER_S
from costd.wire.pb import ratelimit_pb2 as pb

DESCRIPTORS_COUNT_MAX: Final = 64
ENTRIES_COUNT_MAX: Final = 64
UINT32_MAX: Final = 2**32 - 1
NUSD_PER_MICROUSD: Final = 1_000
HEADER_LENGTH_MAX: Final = 1_000

OK: Final = pb.RateLimitResponse.OK
OVER_LIMIT: Final = pb.RateLimitResponse.OVER_LIMIT

_UNITS: Final = {
    WindowKind.MINUTE: pb.RateLimitResponse.RateLimit.MINUTE,
    WindowKind.HOUR: pb.RateLimitResponse.RateLimit.HOUR,
    WindowKind.DAY: pb.RateLimitResponse.RateLimit.DAY,
    WindowKind.WEEK: pb.RateLimitResponse.RateLimit.WEEK,
    WindowKind.MONTH: pb.RateLimitResponse.RateLimit.MONTH,
    WindowKind.YEAR: pb.RateLimitResponse.RateLimit.YEAR,
}


class Said(NamedTuple):
    """What all descriptors of one request say together: one call asked for, or ended."""

    settles: bool
    fields: dict[str, str]
    labels: dict[str, str]
    counts: dict[str, int]
    unmatched: list[int]
    """Which descriptors no rule of the policy matches."""


class Standing(NamedTuple):
    """How the budget stands that Envoy is told of, in its own unit; money in micro-USD."""

    name: str
    limit: int
    remaining: int
    window: WindowKind | None
    resets_ns: int
    """Wall time; 0 where it never does by itself."""


def gather(rules: Sequence[EnvoyRule], request: pb.RateLimitRequest) -> Said:
    """Put together what the descriptors of a checked request say by the policy's rules.

    Errors:  InvalidAsk where they contradict each other, or a count is none.
    """
    said = Said(settles=False, fields={}, labels={}, counts={}, unmatched=[])
    settles: set[bool] = set()
    for at, descriptor in enumerate(request.descriptors):
        entries = {entry.key: _text(entry, at) for entry in descriptor.entries}
        rule = _rule_of(rules, request.domain, entries)
        if rule is None:
            said.unmatched.append(at)
            continue
        settles.add(rule.settles)
        where = f"descriptors[{at}] (rule {rule.rule_id})"
        _fields(said, rule, entries, where)
        _counts(said, rule, descriptor, request.hits_addend, where)
    if len(settles) > 1:
        raise InvalidAsk("some descriptors ask and some settle; send them in requests of their own")
    return said._replace(settles=True in settles)


def is_end(rules: Sequence[EnvoyRule], request: pb.RateLimitRequest) -> bool:
    """Tell of a request that `gather` refuses whether some of it is about the end of a call."""
    for descriptor in request.descriptors:
        texts = {entry.key: entry.value for entry in descriptor.entries if _is_text(entry.value)}
        rule = _rule_of(rules, request.domain, texts)
        if rule is not None and rule.settles:
            return True
    return False


def check(request: pb.RateLimitRequest) -> None:
    """Refuse a request that no rule could read.

    Errors:  InvalidAsk naming the field. Nothing that a client of Envoy says can lead to it.
    """
    if not request.domain:
        raise InvalidAsk("domain is empty; name the domain that the policy's envoy rules name")
    if not 1 <= len(request.descriptors) <= DESCRIPTORS_COUNT_MAX:
        raise InvalidAsk(
            f"descriptors has {len(request.descriptors)} entries; send 1 to {DESCRIPTORS_COUNT_MAX}"
        )
    for at, descriptor in enumerate(request.descriptors):
        _check_entries(descriptor, at)


def _check_entries(descriptor: pb.RateLimitDescriptor, at: int) -> None:
    if not 1 <= len(descriptor.entries) <= ENTRIES_COUNT_MAX:
        raise InvalidAsk(
            f"descriptors[{at}].entries has {len(descriptor.entries)} entries; "
            f"send 1 to {ENTRIES_COUNT_MAX}"
        )
    entries: dict[str, str] = {}
    for entry in descriptor.entries:
        if not entry.key:
            raise InvalidAsk(f"descriptors[{at}] has an entry without a key; give it one")
        if entries.setdefault(entry.key, entry.value) != entry.value:
            raise InvalidAsk(
                f"descriptors[{at}] has two values of {entry.key[:80]!r}; give each entry a "
                "descriptor_key of its own"
            )


def _rule_of(rules: Sequence[EnvoyRule], domain: str, entries: dict[str, str]) -> EnvoyRule | None:
    found = (rule for rule in rules if rule.domain == domain and rule.selector.holds(entries))
    return next(found, None)


def _is_text(value: object) -> bool:
    """Tell whether a value is UTF-8; protobuf gives the bytes where it is not."""
    return isinstance(value, str)


def _text(entry: pb.RateLimitDescriptor.Entry, at: int) -> str:
    """Read a value; one that is no UTF-8 is the client's doing, and refused as other nonsense is.

    Errors:  InvalidAsk.
    """
    if _is_text(entry.value):
        return entry.value
    raise InvalidAsk(f"descriptors[{at}]: the value of {entry.key[:80]!r} is not UTF-8; encode it")


def _fields(said: Said, rule: EnvoyRule, entries: dict[str, str], where: str) -> None:
    for name, source in (("request_id", rule.request_id), *rule.fields.items()):
        _say(said.fields, name, _value(source, entries), where)
    for key, source in rule.labels.items():
        _say(said.labels, key, _value(source, entries), where)
    if rule.estimated_cost_nusd is not None:
        _count(said, "cost_nusd", rule.estimated_cost_nusd, where)
    for name in ("prompt_tokens", "max_output_tokens"):
        text = said.fields.pop(name, "")
        if text:
            if not (text.isascii() and text.isdecimal() and len(text) <= len(str(TOKENS_MAX))):
                raise InvalidAsk(f"{where}: {name} is {text[:40]!r}; it must be a count")
            _count(said, _COUNTED.get(name, name), int(text), where)


_COUNTED: Final = {"max_output_tokens": "output_tokens"}
"""An ask's most output tokens and what was used of them are counted under one name."""


def _counts(
    said: Said, rule: EnvoyRule, descriptor: pb.RateLimitDescriptor, hits: int, where: str
) -> None:
    """Take down `hits_addend`, the descriptor's or else the request's; unset it counts nothing."""
    amount = descriptor.hits_addend.value if descriptor.HasField("hits_addend") else hits or None
    if not rule.hits_addend or amount is None:
        return
    if rule.hits_addend == "cost_microusd":
        _count(said, "cost_nusd", amount * NUSD_PER_MICROUSD, where)
    else:
        _count(said, rule.hits_addend, amount, where)


def _value(source: EnvoySource, entries: dict[str, str]) -> str:
    return entries.get(source.entry, source.value) if source.entry else source.value


def _say(fields: dict[str, str], name: str, value: str, where: str) -> None:
    if value and fields.setdefault(name, value) != value:
        raise InvalidAsk(
            f"{where}: {name} is {value[:80]!r}, and another descriptor says "
            f"{fields[name][:80]!r}; one request is one call"
        )


def _count(said: Said, name: str, amount: int, where: str) -> None:
    if said.counts.setdefault(name, amount) != amount:
        raise InvalidAsk(
            f"{where}: {name} is {amount}, and another descriptor says {said.counts[name]}; "
            "one request is one call"
        )


# ---- answers ------------------------------------------------------------------------------------


def passed(request: pb.RateLimitRequest) -> pb.RateLimitResponse:
    """Say yes, and nothing else."""
    return _response(OK, len(request.descriptors))


def refused(
    request: pb.RateLimitRequest, reason: str, message: str, unmatched: Iterable[int] = ()
) -> pb.RateLimitResponse:
    """Refuse what could not be decided; `unmatched` names the descriptors at fault, if some are."""
    response = _response(OVER_LIMIT, len(request.descriptors))
    faulty = set(unmatched)
    for at, status in enumerate(response.statuses):
        if faulty and at not in faulty:
            status.code = OK
    headers = {"x-costd-verdict": "deny", "x-costd-reason": reason, "x-costd-message": message}
    _headers(response, {**headers, "x-should-retry": "false"})
    response.dynamic_metadata.update({"verdict": "deny", "reason": reason})
    response.raw_body = message.encode()
    return response


def decided(
    request: pb.RateLimitRequest,
    decision: Decision,
    standing: Standing | None,
    *,
    now_ns: int,
) -> pb.RateLimitResponse:
    """Write a decision the way Envoy can pass it on: to the client, upstream, and to filters."""
    denied = decision.verdict is Verdict.DENY
    response = _response(OVER_LIMIT if denied else OK, len(request.descriptors))
    reset_s = 0
    if standing is not None:
        reset_s = _seconds_until(standing.resets_ns, now_ns)
        _tell_standing(response, standing, reset_s)
    model = f"{decision.provider}/{decision.model}" if decision.provider else decision.model
    told = {
        "x-costd-verdict": decision.verdict.name.lower(),
        "x-costd-reason": decision.reason.name,
        "x-costd-budget": decision.binding.rule if decision.binding else decision.tightest_budget,
        "x-costd-message": decision.message,
        "x-costd-upgrade": decision.upgrade_url or decision.upgrade_text,
        "x-costd-grant-refusal": str(decision.grant_refusal or ""),
        "x-costd-shadow": (
            Verdict(decision.shadow_verdict).name.lower() if decision.shadow_verdict else ""
        ),
    }
    if denied:
        retry_s = _seconds_until(decision.binding.resets_ns, now_ns) if decision.binding else 0
        if retry_s:
            told["retry-after"] = str(retry_s)
        if decision.reason.name != "RATE_LIMITED":
            # What the SDKs of OpenAI and Anthropic obey: a budget is not there again in a second.
            told["x-should-retry"] = "false"
        response.raw_body = (decision.message or decision.reason.name).encode()
    else:
        told |= {"x-costd-model": model, "x-costd-tier": decision.tier}
        upstream = {"x-costd-model": model, "x-costd-tier": decision.tier}
        if decision.directives.max_output_tokens is not None:
            upstream["x-costd-max-output-tokens"] = str(decision.directives.max_output_tokens)
        for name, value in upstream.items():
            if value:
                response.request_headers_to_add.add(key=name, value=_header_text(value))
    _headers(response, told)
    response.dynamic_metadata.update(_metadata(decision, told, model))
    return response


def _metadata(decision: Decision, told: dict[str, str], model: str) -> dict[str, Any]:
    """What other filters of the same request may read, at envoy.filters.http.ratelimit."""
    said = {name.removeprefix("x-costd-"): value for name, value in told.items() if value}
    found: dict[str, Any] = {
        name: said[name] for name in ("verdict", "reason", "budget") if name in said
    }
    if decision.verdict is not Verdict.DENY:
        directives = decision.directives
        found |= {
            "provider": decision.provider,
            "model": decision.model,
            "provider_model": model,
            "tier": decision.tier,
            "hold_nusd": decision.hold_nusd,
            "reservation_id": decision.reservation_id.hex(),
            "utilisation_bp": decision.utilisation_bp,
        }
        for name in directives.__struct_fields__:
            value = getattr(directives, name)
            if value is not None and value is not False:
                found[name] = value
    return found


def _tell_standing(response: pb.RateLimitResponse, standing: Standing, reset_s: int) -> None:
    for status in response.statuses:
        limit = status.current_limit
        limit.name = standing.name
        limit.requests_per_unit = min(standing.limit, UINT32_MAX)
        if standing.window in _UNITS:
            limit.unit = _UNITS[standing.window]
        status.limit_remaining = min(max(standing.remaining, 0), UINT32_MAX)
        if reset_s:
            status.duration_until_reset.seconds = reset_s
    # A quota of nothing: it tells what it is about, and nobody may answer from it unasked.
    response.quota.id = standing.name
    if reset_s:
        response.quota.valid_until.seconds = standing.resets_ns // NS_PER_S


def _seconds_until(resets_ns: int, now_ns: int) -> int:
    """Whole seconds, rounded up, 0 for never: who comes back then is not a moment too early."""
    if not now_ns < resets_ns < NEVER_NS:
        return 0
    return -(-(resets_ns - now_ns) // NS_PER_S)


def _response(code: Any, statuses_count: int) -> pb.RateLimitResponse:
    response = pb.RateLimitResponse(overall_code=code)
    for _ in range(statuses_count):
        response.statuses.add(code=code)
    return response


def _headers(response: pb.RateLimitResponse, headers: dict[str, str]) -> None:
    for name, value in headers.items():
        if value:
            response.response_headers_to_add.add(key=name, value=_header_text(value))


def _header_text(value: str) -> str:
    """Write text so that a header may carry it: printable ASCII, and not too long."""
    text = "".join(each if " " <= each <= "~" else "?" for each in value)
    return text[:HEADER_LENGTH_MAX]
