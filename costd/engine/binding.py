"""Describe the rule that decided, at its level of this moment, for the caller."""

from costd.engine import keys
from costd.engine.bounds import drawable
from costd.engine.question import Evaluation, Question
from costd.engine.rate import available, take
from costd.engine.rated import lent_rate, rate_units
from costd.engine.rules import BudgetRule, RateRule, budget_amount
from costd.model.counter import EMPTY_COUNTER
from costd.model.decision import Binding, Reason
from costd.model.kill import KillSwitch
from costd.model.policy import ModelRule
from costd.model.time import NEVER_NS


def binding_of(question: Question, result: Evaluation) -> Binding | None:
    """Describe the rule that made the candidate fail, for the caller."""
    rule, now = result.binding_rule, question.now
    if isinstance(rule, BudgetRule):
        return budget_binding(question, rule, result)
    if isinstance(rule, RateRule):
        rate = rule.rate
        full_ns = question.state.rate(result.counter_key)
        lent = lent_rate(question, rule, result.counter_key)
        units = rate_units(rate.unit, result.estimate) or 0
        _, full_after = take(lent, full_ns, units, now.steady_ns)
        burst_ns = take(lent, None, lent.burst, 0)[1]
        # Of a fleet's rate a larger share may come at any moment, and one that is too small
        # never fills far enough.
        never = units > lent.burst or result.reason is Reason.LABEL_MISSING
        free = available(lent, full_ns, now.steady_ns)
        return Binding(
            rule=rate.rate_id,
            kind="rate",
            unit=rate.unit,
            limit=rate.burst,
            used=rate.burst - free,
            key=keys.shown(keys.per_key(rate.per, result.candidate.facts)) if rate.per else "",
            # A debt that takes longer than time can be written ends when time does.
            resets_ns=0
            if never
            else min(now.wall_ns + max(0, full_after - burst_ns - now.steady_ns), NEVER_NS),
        )
    if isinstance(rule, ModelRule):
        return Binding(rule=rule.rule_id, kind="model_rule")
    if isinstance(rule, KillSwitch):
        return Binding(rule=rule.kill_id, kind="kill_switch", resets_ns=rule.releases_ns)
    return None


def budget_binding(question: Question, rule: BudgetRule, result: Evaluation) -> Binding:
    """Describe a budget's level as the class at hand sees it."""
    budget, facts = rule.budget, result.candidate.facts
    start_ns, end_ns = rule.window(question.now.wall_ns)
    counter = question.state.counter(rule.counter_key(facts, question.now.wall_ns)) or EMPTY_COUNTER
    limit, used = None, counter.used
    ends = end_ns != NEVER_NS
    resets = ends and result.reason is not Reason.LABEL_MISSING
    if budget.limit is not None:
        limit, used = drawable(rule, counter, critical=question.task_class.critical)
        if result.reason is Reason.BUDGET_EXHAUSTED:
            # What does not fit into an empty window will not fit into the next one either.
            resets = ends and max(1, _hold_of(budget.unit, result)) <= limit
        elif result.reason is Reason.NO_LEASE:
            resets = False  # it passes as soon as the coordinator answers
    return Binding(
        rule=budget.budget_id,
        kind="budget",
        limit=limit,
        used=used,
        unit=budget.unit,
        key=keys.shown(keys.per_key(budget.per, facts)) if budget.per else "",
        window_start_ns=start_ns,
        window_end_ns=end_ns if ends else 0,
        resets_ns=end_ns if resets else 0,
    )


def _hold_of(unit: str, result: Evaluation) -> int:
    """How much of a budget's unit the candidate would have held."""
    estimate = result.estimate
    tokens = (estimate.prompt_tokens or 0) + (estimate.output_tokens or 0)
    return budget_amount(unit, cost_nusd=estimate.hold_nusd, tokens=tokens)
