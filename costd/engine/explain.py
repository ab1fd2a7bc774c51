"""Show how an ask would be decided: every candidate, every rule, consuming nothing."""

from contextlib import suppress
from dataclasses import dataclass

from costd.engine import candidates as offers
from costd.engine import keys
from costd.engine.admit import Answer, admit, ends_search, search
from costd.engine.binding import budget_binding
from costd.engine.bounds import drawable, fleet_room, room_left
from costd.engine.degrade import steps_reached
from costd.engine.evaluate import blocking_kill, evaluate, model_forbidden
from costd.engine.question import Evaluation, Question
from costd.engine.rate import available, take
from costd.engine.rated import lent_rate, rate_units
from costd.engine.rules import BudgetRule, RateRule, budget_amount
from costd.errors import InvalidAsk
from costd.model.counter import EMPTY_COUNTER
from costd.model.decision import Binding, Decision, Reason
from costd.model.grant import Grant, GrantRefusal
from costd.model.money import format_nusd
from costd.model.policy import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleReport:
    """One rule held against one candidate."""

    binding: Binding
    passed: bool
    reason: Reason
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateReport:
    """What became of one candidate.

    `outcome` is chosen, fits, rejected, ends_search or, where one ended it first, not_reached.
    """

    tier: str
    provider: str
    model: str
    hold_nusd: int
    outcome: str
    why: str
    rules: tuple[RuleReport, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision that admit would give, and how it came about."""

    decision: Decision
    candidates: tuple[CandidateReport, ...]


def explain(question: Question, *, grant: Grant | GrantRefusal | None = None) -> Explanation:
    """Decide as `admit` does and report every candidate, also those behind the winner.

    Errors:  InvalidAsk, as admit.
    """
    asked = offers.asked_candidate(question.rules, question.ask, question.task_class, question.now)
    others = offers.cheaper_candidates(
        question.rules, question.ask, question.task_class, question.now, asked=asked
    )
    evaluations = [evaluate(question, candidate) for candidate in (asked, *others)]
    tried: list[Evaluation] = []
    search(question, asked, tried)
    ended = _ends(question, tried[-1], asked)
    reached = {_name(result.candidate) for result in tried}
    enders = {_name(result.candidate) for result in evaluations if _ends(question, result, asked)}
    answer = admit(question, grant=grant)
    assert isinstance(answer, Answer), "nobody waits for an explanation"
    reports = []
    for result in evaluations:
        name = _name(result.candidate)
        outcome = "rejected"
        if _is_chosen(answer, result.candidate):
            outcome = "chosen"
        elif ended and name not in reached:
            outcome = "not_reached"
        elif result.reason is Reason.OK:
            outcome = "fits"
        elif name in enders:
            outcome = "ends_search"
        reports.append(_candidate_report(question, result, outcome))
    return Explanation(answer.decision, tuple(reports))


def _ends(question: Question, result: Evaluation, asked: offers.Candidate) -> bool:
    return result.reason is not Reason.OK and ends_search(question, result, asked)


def _name(candidate: offers.Candidate) -> tuple[str, str, str]:
    return candidate.provider, candidate.model, candidate.tier


def _is_chosen(answer: Answer, candidate: offers.Candidate) -> bool:
    given = answer.decision
    return answer.reservation is not None and _name(candidate) == (
        given.provider,
        given.model,
        given.tier,
    )


def _candidate_report(question: Question, result: Evaluation, outcome: str) -> CandidateReport:
    candidate = result.candidate
    why = "" if result.reason is Reason.OK else result.reason.name
    if result.reason is Reason.OK and result.demands is not None:
        why = "STEP"
    return CandidateReport(
        tier=candidate.tier,
        provider=candidate.provider,
        model=candidate.model,
        hold_nusd=result.estimate.hold_nusd,
        outcome=outcome,
        why=why,
        rules=tuple(_rule_reports(question, result)),
    )


def _rule_reports(question: Question, result: Evaluation) -> list[RuleReport]:
    """Hold every matching rule against the candidate, past the first that fails."""
    candidate = result.candidate
    matching = question.rules.matching(candidate.facts)
    reports = []
    kill = blocking_kill(question, candidate)
    if kill is not None:
        binding = Binding(rule=kill.kill_id, kind="kill_switch", resets_ns=kill.releases_ns)
        reports.append(
            RuleReport(binding=binding, passed=False, reason=Reason.KILL_SWITCH, note=kill.reason)
        )
    for model_rule in matching.model_rules:
        forbidden = model_forbidden(model_rule, candidate)
        reports.append(
            RuleReport(
                binding=Binding(rule=model_rule.rule_id, kind="model_rule"),
                passed=not forbidden,
                reason=Reason.MODEL_FORBIDDEN if forbidden else Reason.OK,
                note="in shadow" if model_rule.shadow else "",
            )
        )
    estimate = result.estimate
    if result.matching is None:  # something before the rules ended it
        # Admit does not come to an ask that states nothing either; the rules see nothing stated.
        with suppress(InvalidAsk):
            estimate = offers.estimate(question.rules, question.ask, question.task_class, candidate)
    reports += [_rate_report(question, rule, candidate, estimate) for rule in matching.rates]
    reports += [_budget_report(question, rule, result, estimate) for rule in matching.budgets]
    return reports


def _rate_report(
    question: Question, rule: RateRule, candidate: offers.Candidate, estimate: offers.Estimate
) -> RuleReport:
    rate, steady_ns = rule.rate, question.now.steady_ns
    key = rule.bucket_key(candidate.facts)
    lent, full_ns = lent_rate(question, rule, key), question.state.rate(key)
    units = rate_units(rate.unit, estimate)
    fits = units is not None and take(lent, full_ns, units, steady_ns)[0]
    free = available(lent, full_ns, steady_ns)
    reason = Reason.ESTIMATE_MISSING if units is None else Reason.RATE_LIMITED
    binding = Binding(
        rule=rate.rate_id,
        kind="rate",
        key=keys.shown(keys.per_key(rate.per, candidate.facts)) if rate.per else "",
        limit=rate.burst,
        used=rate.burst - free,
        unit=rate.unit,
    )
    asked = "unknown" if units is None else shown_amount(rate.unit, units)
    note = f"takes {asked}, {shown_amount(rate.unit, free)} available"
    if rule.shadow:
        note += ", in shadow"
    return RuleReport(binding=binding, passed=fits, reason=Reason.OK if fits else reason, note=note)


def _budget_report(
    question: Question, rule: BudgetRule, result: Evaluation, estimate: offers.Estimate
) -> RuleReport:
    budget, facts = rule.budget, result.candidate.facts
    critical = question.task_class.critical
    binding = budget_binding(question, rule, result)
    if budget.missing_deny and any(label not in facts for label in budget.per):
        return RuleReport(binding=binding, passed=False, reason=Reason.LABEL_MISSING)
    if budget.limit is None:
        return RuleReport(binding=binding, passed=True, reason=Reason.OK, note="only tracks")
    counter = question.state.counter(rule.counter_key(facts, question.now.wall_ns)) or EMPTY_COUNTER
    tokens_known = None not in {estimate.prompt_tokens, estimate.output_tokens}
    if budget.unit == "tokens" and not tokens_known:
        return RuleReport(binding=binding, passed=False, reason=Reason.ESTIMATE_MISSING)
    tokens = (estimate.prompt_tokens or 0) + (estimate.output_tokens or 0)
    hold = budget_amount(budget.unit, cost_nusd=estimate.hold_nusd, tokens=tokens)
    limit, used = drawable(rule, counter, critical=critical)
    left = room_left(rule, counter, critical=critical, in_tenure=question.in_tenure) or 0
    in_all = fleet_room(rule, counter, critical=critical) or 0
    reached = steps_reached(rule, used=used, limit=limit, wall_ns=question.now.wall_ns)
    denies = question.takes_steps and any(step.deny for step in reached)
    free = estimate.is_free and budget.unit == "nusd"
    passed = free or ((hold or 1) <= left and not denies)
    reason = Reason.STEP_DENY if denies else Reason.BUDGET_EXHAUSTED
    notes = [f"holds {shown_amount(budget.unit, hold)}, {shown_amount(budget.unit, left)} left"]
    if rule.is_shared:
        notes[0] += f" of the lease, {shown_amount(budget.unit, in_all)} in the fleet"
        if not denies and (hold or 1) <= in_all:
            reason = Reason.NO_LEASE
    if reached:
        heard = "" if question.takes_steps else " (not for this critical class)"
        notes.append(f"steps reached: {', '.join(map(_step_name, reached))}{heard}")
    if rule.shadow:
        notes.append("in shadow")
    return RuleReport(
        binding=binding,
        passed=passed,
        reason=Reason.OK if passed else reason,
        note="; ".join(notes),
    )


def shown_amount(unit: str, amount: int) -> str:
    """Write an amount for people."""
    return format_nusd(amount) if unit == "nusd" else f"{amount:,}"


def _step_name(step: Step) -> str:
    if step.at_bp is not None:
        return f"{step.at_bp / 100:g} %"
    assert step.burn_bp is not None
    return f"burn rate {step.burn_bp / 10_000:g}"
