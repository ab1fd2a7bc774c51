"""Say why not, and what would pass instead."""

from costd.engine import candidates as offers
from costd.engine.bounds import room_left
from costd.engine.evaluate import evaluate
from costd.engine.question import Evaluation, Question
from costd.engine.rate import available
from costd.engine.rated import lent_rate, rate_units
from costd.engine.rules import RateRule
from costd.model.counter import EMPTY_COUNTER
from costd.model.decision import Binding, Reason, WouldPass
from costd.model.money import AMOUNT_MAX, format_nusd

_OFFERS_MAX = 3
LIMITS = frozenset({Reason.BUDGET_EXHAUSTED, Reason.NO_LEASE, Reason.RATE_LIMITED})
"""Refusals by amount, which something smaller might not meet."""


def would_pass(
    question: Question, refused: Evaluation, asked: offers.Candidate
) -> tuple[WouldPass, ...]:
    """List what would be admitted now: a smaller amount, or cheaper candidates.

    Shape:   evaluates candidates again, consuming nothing; at most three offers.
    """
    rule = refused.binding_rule
    if (
        isinstance(rule, RateRule)
        and rule.rate.unit == "requests"
        and not refused.rejects_candidate
    ):
        return ()  # no amount and no model makes a call less than one request
    found = []
    if refused.reason in LIMITS:
        amount = largest_amount(question, asked)
        if amount:
            found.append(
                WouldPass(
                    tier=asked.tier, provider=asked.provider, model=asked.model, amount_nusd=amount
                )
            )
    if (
        refused.reason in LIMITS
        or refused.rejects_candidate
        or refused.reason is Reason.PRICE_UNKNOWN
    ):
        for candidate in offers.cheaper_candidates(
            question.rules, question.ask, question.task_class, question.now, asked=asked
        ):
            if len(found) >= _OFFERS_MAX:
                break
            if evaluate(question, candidate).reason is Reason.OK:
                found.append(
                    WouldPass(
                        tier=candidate.tier, provider=candidate.provider, model=candidate.model
                    )
                )
    return tuple(found)


def largest_amount(question: Question, candidate: offers.Candidate) -> int:
    """Find the largest hold that every money rule would let this candidate make now; 0 if none.

    Zero as well where a rule in other units refuses, because no amount of money helps there.
    """
    facts, now = candidate.facts, question.now
    matching = question.rules.matching(facts)
    estimate = offers.estimate(question.rules, question.ask, question.task_class, candidate)
    room = estimate.hold_nusd
    for rule in matching.budgets:
        if rule.shadow:
            continue
        counter = question.state.counter(rule.counter_key(facts, now.wall_ns)) or EMPTY_COUNTER
        left = room_left(
            rule, counter, critical=question.task_class.critical, in_tenure=question.in_tenure
        )
        if left is None:
            left = AMOUNT_MAX - counter.used
        if rule.budget.unit == "nusd":
            room = min(room, left)
        elif left < _needed(rule.budget.unit, estimate):
            return 0
    for rate_rule in matching.rates:
        room = _room_in_bucket(question, rate_rule, candidate, estimate, room)
    return room


def _needed(unit: str, estimate: offers.Estimate) -> int:
    if unit == "calls":
        return 1
    return max(1, (estimate.prompt_tokens or 0) + (estimate.output_tokens or 0))


def _room_in_bucket(
    question: Question,
    rule: RateRule,
    candidate: offers.Candidate,
    estimate: offers.Estimate,
    room: int,
) -> int:
    if rule.shadow:
        return room
    key = rule.bucket_key(candidate.facts)
    lent, full_ns = lent_rate(question, rule, key), question.state.rate(key)
    free = available(lent, full_ns, question.now.steady_ns)
    if rule.rate.unit == "nusd":
        return min(room, free)
    return room if free >= (rate_units(rule.rate.unit, estimate) or 0) else 0


def describe(reason: Reason, binding: Binding | None, asked: offers.Candidate) -> str:
    """Say in one sentence why an ask was refused or degraded."""
    if reason is Reason.NO_CANDIDATE:
        return f"no model of tier {asked.tier or '(none)'} is acceptable to the caller"
    return _SENTENCES[reason].format(
        rule=_subject(binding),
        level=_level(binding),
        model=f"{asked.provider}/{asked.model}".strip("/"),
    )


_SENTENCES = {
    Reason.BUDGET_EXHAUSTED: "{rule} has too little left: {level}",
    Reason.NO_LEASE: (
        "{rule} is the fleet's: this daemon holds no lease for so much, and had no answer from "
        "the coordinator: {level}"
    ),
    Reason.RATE_LIMITED: "{rule} has not refilled enough: {level}",
    Reason.STEP_DENY: "{rule} has reached its deny step: {level}",
    Reason.STEP: "{rule} has reached a step that asks for something cheaper: {level}",
    Reason.KILL_SWITCH: "{rule} is engaged",
    Reason.MODEL_FORBIDDEN: "{rule} forbids {model}",
    Reason.NO_BUDGET: (
        "no budget matches this ask and the policy denies those; add a budget or `unmatched: allow`"
    ),
    Reason.LABEL_MISSING: "{rule} counts per a label that this ask lacks",
    Reason.PRICE_UNKNOWN: (
        "nobody knows what {model} costs; add it to the policy's prices "
        "or let `unknown_price` assume another model's"
    ),
    Reason.ESTIMATE_MISSING: "{rule} counts tokens; state prompt_tokens and max_output_tokens",
    Reason.CONTEXT_TOO_LONG: "prompt and output do not fit the context window of {model}",
}


def _subject(binding: Binding | None) -> str:
    if binding is None:
        return ""
    kind = binding.kind.replace("_", " ")
    return f"{kind} {binding.rule}{f' ({binding.key})' if binding.key else ''}"


def _level(binding: Binding | None) -> str:
    if binding is None:
        return ""
    if binding.limit is None:
        return "no more can be counted"
    if binding.unit == "nusd":
        return f"{format_nusd(binding.used)} of {format_nusd(binding.limit)} used"
    return f"{binding.used:,} of {binding.limit:,} {binding.unit} used"
