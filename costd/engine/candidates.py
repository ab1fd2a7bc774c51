"""What an ask could run on: the asked model first, then cheaper ones down the ladder."""

from collections.abc import Iterator

import msgspec

from costd.engine.rules import Rules, model_matches
from costd.errors import InvalidAsk
from costd.model.ask import Ask, hold_problem
from costd.model.money import HOLD_MAX_NUSD, ceil_div
from costd.model.policy import ModelRef, TaskClass
from costd.model.price import Price
from costd.model.time import Now

_NOMINAL_COUNTS = {"input_tokens": 3000, "output_tokens": 1000}
"""Compares two models' prices where an ask states only an amount: three tokens in, one out."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One (tier, provider, model) an ask could run on, with the facts rules see."""

    tier_index: int
    asked_index: int
    """Index of the tier that was asked for."""
    tier: str
    provider: str
    model: str
    price: Price | None
    facts: dict[str, str]


class Estimate(msgspec.Struct, frozen=True):
    """What a candidate is expected to use; None is unknown."""

    hold_nusd: int
    ceiling_nusd: int | None
    prompt_tokens: int | None
    output_tokens: int | None
    is_free: bool = False
    """Whether it costs nothing; an amount of zero stated for a model that has a price does not."""


def task_class_of(rules: Rules, ask: Ask) -> TaskClass:
    """Find the ask's task class.

    Errors:  InvalidAsk where the policy does not know it or names no default.
    """
    policy = rules.policy
    name = ask.task_class or policy.default_task_class
    task_class = policy.task_classes.get(name)
    if task_class is None:
        known = ", ".join(policy.task_classes) or "none"
        if not name:
            raise InvalidAsk(
                "task_class is empty and the policy names no default_task_class; "
                f"set one of: {known}"
            )
        raise InvalidAsk(f"task_class {name!r} is not in the policy; it knows: {known}")
    return task_class


def asked_candidate(rules: Rules, ask: Ask, task_class: TaskClass, now: Now) -> Candidate:
    """Resolve what was asked for to a tier, a provider and a model.

    Errors:  InvalidAsk for a tier the policy does not have.
    """
    if ask.tier and ask.tier not in rules.tier_index:
        raise InvalidAsk(
            f"tier {ask.tier!r} is not in the policy; it has: {', '.join(rules.tier_index)}"
        )
    provider, model = ask.provider, ask.model
    if model:
        provider = provider or rules.provider_of(model)
        price = find_price(rules, ask, provider, model, now)
        index = rules.tier_of(provider, model)
        if index is None and price is not None and not price.source.assumed:
            index = rules.tier_of(price.source.provider, price.source.model)
        provider = known_provider(rules, provider, model, price)
        if index is None:  # where the policy lists a model, a caller cannot say otherwise
            index = rules.tier_index.get(
                ask.tier or task_class.tier or rules.policy.default_tier, 0
            )
    else:
        index = rules.tier_index.get(ask.tier or task_class.tier or rules.policy.default_tier, 0)
        first = _first_usable(rules, ask, index)
        provider, model = (first.provider, first.model) if first else (provider, "")
        price = find_price(rules, ask, provider, model, now) if model else None
    ref = ModelRef(provider, model)
    return _candidate(rules, ask, task_class, ref, price, index=index, asked_index=index)


def cheaper_candidates(
    rules: Rules, ask: Ask, task_class: TaskClass, now: Now, *, asked: Candidate
) -> Iterator[Candidate]:
    """Yield what could stand in for the asked candidate, best first.

    Other providers of its own tier come first, then the tiers below down to the class's
    `min_tier`; the asked provider's models first in each. Only what the caller can use, whose
    context window holds the ask, and by which this ask becomes cheaper.
    """
    tiers = rules.policy.tiers
    last = rules.tier_index.get(task_class.min_tier, len(tiers) - 1)
    for index in range(asked.tier_index, last + 1):
        refs = sorted(tiers[index].models, key=lambda ref: ref.provider != asked.provider)
        for ref in refs:
            if index == asked.tier_index and ref.provider == asked.provider:
                continue
            if not usable(ask, ref):
                continue
            price = find_price(rules, ask, ref.provider, ref.model, now)
            candidate = _candidate(
                rules, ask, task_class, ref, price, index=index, asked_index=asked.tier_index
            )
            if price is not None and is_cheaper(rules, ask, task_class, candidate, asked):
                yield candidate
        if not refs and index > asked.tier_index and ask.estimated_cost_nusd is not None:
            # A policy may name tiers without models; then the tier itself is the offer.
            ref = ModelRef("", "")
            candidate = _candidate(
                rules, ask, task_class, ref, None, index=index, asked_index=asked.tier_index
            )
            if _scaled(rules, ask.estimated_cost_nusd, candidate) <= ask.estimated_cost_nusd:
                yield candidate


def known_provider(rules: Rules, provider: str, model: str, price: Price | None) -> str:
    """Spell a provider as the policy has it for this model, else as the price does.

    Another spelling (OpenAI, gemini) would pass by every rule that names the provider.
    """
    if price is None or price.source.assumed or provider == rules.provider_of(model) != "":
        return provider
    return price.source.provider or provider


def usable(ask: Ask, ref: ModelRef) -> bool:
    """Tell whether the caller said it can use this model."""
    return not ask.acceptable_models or model_matches(
        ask.acceptable_models, ref.provider, ref.model
    )


def find_price(rules: Rules, ask: Ask, provider: str, model: str, now: Now) -> Price | None:
    """Look a price up, falling back to the one the policy assumes for unknown models."""
    price = rules.prices.find(provider, model, wall_ns=now.wall_ns, batch=ask.batch)
    assumed = rules.policy.unknown_price_assume
    if price is not None or assumed is None:
        return price
    stand_in = rules.prices.find(
        assumed.provider, assumed.model, wall_ns=now.wall_ns, batch=ask.batch
    )
    if stand_in is None:
        return None
    source = msgspec.structs.replace(stand_in.source, assumed=True)
    return msgspec.structs.replace(stand_in, source=source)


def fits_context(ask: Ask, task_class: TaskClass, candidate: Candidate) -> bool:
    """Tell whether prompt and output together fit the model's context window, if it is known."""
    window = candidate.price.context_window if candidate.price else None
    if window is None:
        return True
    output = ask.max_output_tokens
    if output is None:
        output = task_class.max_output_tokens or 0
    return (ask.prompt_tokens or 0) + output <= window


def is_cheaper(
    rules: Rules, ask: Ask, task_class: TaskClass, candidate: Candidate, asked: Candidate
) -> bool:
    """Tell whether this ask becomes cheaper by the candidate; tiers order quality, not price."""
    if not fits_context(ask, task_class, candidate):
        return False
    if asked.price is None or candidate.price is None or ask.estimated_cost_nusd is None:
        there = estimate(rules, ask, task_class, asked).hold_nusd
        try:
            return estimate(rules, ask, task_class, candidate).hold_nusd < there
        except InvalidAsk:  # it prices apart what the ask states as a part of nothing
            return False
    return candidate.price.cost_nusd(_NOMINAL_COUNTS) < asked.price.cost_nusd(_NOMINAL_COUNTS)


def estimate(
    rules: Rules,
    ask: Ask,
    task_class: TaskClass,
    candidate: Candidate,
    output_tokens_max: int | None = None,
) -> Estimate:
    """State what a candidate is expected to cost and use.

    Units:   `output_tokens_max` is a directive's bound on the output; the hold shrinks with it.
    Errors:  InvalidAsk where neither an amount nor token counts were stated.
    """
    output = ask.max_output_tokens
    ceiling_known = output is not None
    if output is None:
        output = task_class.max_output_tokens
    if output_tokens_max is not None and (output is None or output_tokens_max < output):
        output, ceiling_known = output_tokens_max, True
    amount = ask.estimated_cost_nusd
    if amount is not None:
        scaled = min(_scaled(rules, amount, candidate), HOLD_MAX_NUSD)
        price = candidate.price
        is_free = not scaled and price is not None and not price.cost_nusd(_NOMINAL_COUNTS)
        ceiling = None
        if (
            price is not None
            and ask.prompt_tokens is not None
            and ask.max_output_tokens is not None
        ):
            counts = {"input_tokens": ask.prompt_tokens or 0, "output_tokens": output or 0}
            # Absurd counts must not fill what all calls together may be said to be exposed to.
            ceiling = max(scaled, min(price.cost_nusd(counts), HOLD_MAX_NUSD))
        return Estimate(scaled, ceiling, ask.prompt_tokens, output, is_free)
    if ask.prompt_tokens is None and ask.max_output_tokens is None and not ask.units:
        raise InvalidAsk("state estimated_cost_nusd, or prompt_tokens and max_output_tokens")
    if output is None:
        if not ask.units:
            raise InvalidAsk(
                f"max_output_tokens is missing and task class {task_class.name!r} "
                "has no default for it"
            )
        output, ceiling_known = 0, True
    if candidate.price is None:
        return Estimate(0, None, ask.prompt_tokens, output)
    counts = {"input_tokens": ask.prompt_tokens or 0, "output_tokens": output}
    if ask.units:
        counts |= ask.units
    try:
        cost = candidate.price.cost_nusd(counts)
    except ValueError as error:
        raise InvalidAsk(f"units: {error}") from error
    problem = hold_problem(cost)
    if problem:
        raise InvalidAsk(f"at {candidate.model} the tokens and units stated cost {problem}")
    ceiling = cost if ceiling_known else None
    return Estimate(cost, ceiling, ask.prompt_tokens, output, not cost)


def _scaled(rules: Rules, amount: int, candidate: Candidate) -> int:
    """Scale an amount by the tiers' stated relative costs, where both state one."""
    tiers = rules.policy.tiers
    if not tiers:
        return amount
    here, there = (
        tiers[candidate.tier_index].relative_cost,
        tiers[candidate.asked_index].relative_cost,
    )
    if here is None or there is None or candidate.asked_index == candidate.tier_index:
        return amount
    share = here / there
    return ceil_div(amount * share.numerator, share.denominator)


def _first_usable(rules: Rules, ask: Ask, index: int) -> ModelRef | None:
    tiers = rules.policy.tiers
    if not tiers:
        return None
    for ref in tiers[index].models:
        if (not ask.provider or ref.provider == ask.provider) and usable(ask, ref):
            return ref
    return None


def _candidate(
    rules: Rules,
    ask: Ask,
    task_class: TaskClass,
    ref: ModelRef,
    price: Price | None,
    *,
    index: int,
    asked_index: int,
) -> Candidate:
    tiers = rules.policy.tiers
    tier = tiers[index].name if tiers else ""
    return Candidate(
        tier_index=index,
        asked_index=asked_index,
        tier=tier,
        provider=ref.provider,
        model=ref.model,
        price=price,
        facts={
            **ask.labels,
            "task_class": task_class.name,
            "provider": ref.provider,
            "model": ref.model,
            "tier": tier,
        },
    )
