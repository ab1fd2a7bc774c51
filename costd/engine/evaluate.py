"""Hold one candidate against every rule that matches it; consume nothing."""

from costd.engine import candidates as offers
from costd.engine.afford import check_budgets
from costd.engine.bounds import drawable
from costd.engine.candidates import Candidate
from costd.engine.degrade import Demands, steps_reached
from costd.engine.question import Evaluation, Question, Shorts
from costd.engine.rated import check_rates
from costd.engine.rules import BudgetRule, Matching, Rules, model_matches
from costd.model.counter import EMPTY_COUNTER, Counter
from costd.model.decision import NO_DIRECTIVES, Directives, Reason
from costd.model.kill import KillMode, KillSwitch
from costd.model.policy import ModelRule


def evaluate(question: Question, candidate: Candidate) -> Evaluation:
    """Hold a candidate against kill switches, model rules, rates and budgets, in this order.

    Shape:   reads counters and buckets through `question.state`, writes nothing.
    Ensures: a failing rule that names provider, model or tier rejects the candidate; any other
             ends the search.
    """
    result = Evaluation(candidate)
    kill = blocking_kill(question, candidate)
    if kill is not None:
        return result.fail(
            Reason.KILL_SWITCH,
            kill,
            rejects_candidate=kill.mode is KillMode.MAX_TIER or kill.scope.names_candidate,
        )
    problem = _candidate_problem(question, candidate)
    if problem is not None:
        return result.fail(problem, None, rejects_candidate=problem is Reason.CONTEXT_TOO_LONG)
    matching = result.matching = question.rules.matching(candidate.facts)
    for rule in matching.model_rules:
        if model_forbidden(rule, candidate) and _enforced(
            question, shadow=rule.shadow or question.rules.policy.shadow
        ):
            return result.fail(Reason.MODEL_FORBIDDEN, rule, rejects_candidate=True)
    if not matching.budgets and not _unmatched_allowed(question):
        return result.fail(Reason.NO_BUDGET, None)
    result.estimate = offers.estimate(question.rules, question.ask, question.task_class, candidate)
    counters = _read_counters(question, result, matching)
    if result.demands is not None:
        _apply_demands(question, result)
    short: Shorts = []
    if result.reason is Reason.OK and matching.rates:
        check_rates(question, result, matching, short)
    if result.reason is Reason.OK:
        check_budgets(question, result, counters, short)
    return result


def blocking_kill(question: Question, candidate: Candidate) -> KillSwitch | None:
    """Find an engaged kill switch that stops this candidate."""
    critical, tier_index = question.task_class.critical, candidate.tier_index
    for kill in question.kills.matching(candidate.facts):
        if kill.engaged(question.now.steady_ns) and kill_stops(
            kill, rules=question.rules, tier_index=tier_index, critical=critical
        ):
            return kill
    return None


def kill_stops(kill: KillSwitch, *, rules: Rules, tier_index: int, critical: bool) -> bool:
    """Tell whether a switch goes so far as to stop this call, which is in its scope."""
    if kill.mode is KillMode.MAX_TIER:
        best = rules.tier_index.get(kill.max_tier)
        return best is None or tier_index < best  # a tier that is gone from the policy stops all
    return kill.mode is KillMode.DENY_ALL or not critical


def _candidate_problem(question: Question, candidate: Candidate) -> Reason | None:
    """Check what belongs to the candidate itself: a known price, a large enough context."""
    policy = question.rules.policy
    if candidate.price is not None:
        fits = offers.fits_context(question.ask, question.task_class, candidate)
        problem = None if fits else Reason.CONTEXT_TOO_LONG
    elif candidate.model:
        problem = Reason.PRICE_UNKNOWN
    else:
        # A policy may name tiers without models; then an amount is all that is needed.
        told = question.ask.estimated_cost_nusd is not None
        named = bool(policy.tiers and policy.tiers[candidate.tier_index].models)
        problem = None if told and not named else Reason.NO_CANDIDATE
    return problem if _enforced(question, shadow=policy.shadow) else None


def _enforced(question: Question, *, shadow: bool) -> bool:
    return question.enforce_shadow or not shadow


def _unmatched_allowed(question: Question) -> bool:
    policy = question.rules.policy
    return policy.unmatched_allow or (policy.shadow and not question.enforce_shadow)


def model_forbidden(rule: ModelRule, candidate: Candidate) -> bool:
    """Tell whether a model rule keeps this candidate from being used."""
    provider, model = candidate.provider, candidate.model
    if rule.allow and not model_matches(rule.allow, provider, model):
        return True
    if not rule.forbid:
        return False
    # Providers know a model under several spellings; forbidding one forbids what is priced as it.
    source = candidate.price.source if candidate.price is not None else None
    return model_matches(rule.forbid, provider, model) or (
        source is not None
        and not source.assumed
        and model_matches(rule.forbid, source.provider, source.model)
    )


def _read_counters(
    question: Question, result: Evaluation, matching: Matching
) -> list[tuple[BudgetRule, bytes, Counter]]:
    """Read each matching budget's counter and gather what its steps demand."""
    facts, wall_ns = result.candidate.facts, question.now.wall_ns
    critical, free = question.task_class.critical, result.estimate.is_free
    read = question.state.counter
    counters = []
    for rule in matching.budgets:
        budget = rule.budget
        if budget.missing_deny and any(label not in facts for label in budget.per):
            if _enforced(question, shadow=rule.shadow) and result.reason is Reason.OK:
                result.fail(
                    Reason.LABEL_MISSING, rule, rejects_candidate=budget.selector.names_candidate
                )
            continue
        key = rule.counter_key(facts, wall_ns)
        counter = read(key) or EMPTY_COUNTER
        counters.append((rule, key, counter))
        if not rule.has_steps or (free and budget.unit == "nusd"):
            continue
        limit, used = drawable(rule, counter, critical=critical)
        if not rule.may_have_reached(used, limit):
            continue
        if question.takes_steps and _enforced(question, shadow=rule.shadow):
            reached = steps_reached(rule, used=used, limit=limit, wall_ns=wall_ns)
            if reached:
                if result.demands is None:
                    result.demands = Demands()
                result.demands.add(rule, reached)
                if result.demands.deny is rule and result.reason is Reason.OK:
                    result.fail(
                        Reason.STEP_DENY,
                        rule,
                        key=key,
                        rejects_candidate=budget.selector.names_candidate,
                    )
    return counters


def _apply_demands(question: Question, result: Evaluation) -> None:
    """Turn demands into directives; a shorter output also makes the hold smaller."""
    assert result.demands is not None
    directives = result.demands.directives
    if directives is None:
        return
    cap = directives.max_output_tokens
    if cap is not None:
        shorter = offers.estimate(
            question.rules, question.ask, question.task_class, result.candidate, cap
        )
        stated = question.ask.max_output_tokens
        if stated is not None and stated <= cap:
            directives = _without_output_cap(directives)
        result.estimate = shorter
    result.directives = directives


def _without_output_cap(directives: Directives) -> Directives:
    """Drop a bound that the ask already keeps, so that nothing is called degraded by it."""
    rest = Directives(
        max_retries=directives.max_retries,
        compression=directives.compression,
        cache=directives.cache,
        batch=directives.batch,
    )
    return NO_DIRECTIVES if rest == NO_DIRECTIVES else rest
