"""Hold one candidate against every rule that matches it; consume nothing."""

from costd.engine import candidates as offers
from costd.engine import keys
from costd.engine.candidates import Candidate, Estimate
from costd.engine.degrade import Demands, drawable, steps_reached, utilisation_bp
from costd.engine.ports import State
from costd.engine.rate import take
from costd.engine.rules import (
    BudgetRule,
    Kills,
    Matching,
    RateRule,
    Rules,
    model_matches,
)
from costd.model.ask import Ask
from costd.model.counter import EMPTY_COUNTER, Counter
from costd.model.decision import NO_DIRECTIVES, Directives, Reason
from costd.model.kill import KillMode, KillSwitch
from costd.model.money import AMOUNT_MAX
from costd.model.policy import ModelRule, TaskClass
from costd.model.reservation import CounterLine, Excuse, RateLine
from costd.model.time import Now


class Evaluation:
    """What became of one candidate; mutable while it is being evaluated, read-only after.

    `reason` OK means that it fits. Otherwise `rejects_candidate` tells whether the next candidate
    may be tried or the search ends here. `lines` and `rates` are what to hold if it wins.
    """

    __slots__ = (
        "binding_rule", "candidate", "counter_key", "demands", "directives", "estimate", "lines",
        "matching", "rates", "reason", "rejects_candidate", "threshold_bp", "tightest",
        "tightest_bp", "tightest_key",
    )  # fmt: skip

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.reason = Reason.OK
        self.rejects_candidate = False
        self.binding_rule: BudgetRule | RateRule | ModelRule | KillSwitch | None = None
        self.counter_key = b""
        self.demands: Demands | None = None
        self.directives: Directives = NO_DIRECTIVES
        self.estimate = Estimate(0, None, None, None)
        self.matching: Matching | None = None
        self.lines: list[tuple[BudgetRule, CounterLine, Counter]] = []
        self.rates: list[tuple[RateLine, int]] = []
        self.tightest: BudgetRule | None = None
        self.tightest_key = b""
        self.tightest_bp = 0
        self.threshold_bp = 0

    def fail(
        self,
        reason: Reason,
        rule: BudgetRule | RateRule | ModelRule | KillSwitch | None,
        *,
        rejects_candidate: bool = False,
        key: bytes = b"",
    ) -> "Evaluation":
        """Note why the candidate does not fit."""
        self.reason = reason
        self.binding_rule = rule
        self.rejects_candidate = rejects_candidate
        self.counter_key = key
        return self


class Question:
    """Everything that stays the same while an ask's candidates are evaluated."""

    __slots__ = (
        "ask",
        "caller",
        "enforce_shadow",
        "identity",
        "kills",
        "now",
        "rules",
        "state",
        "takes_steps",
        "task_class",
    )

    def __init__(
        self,
        *,
        rules: Rules,
        state: State,
        kills: Kills,
        ask: Ask,
        caller: str,
        task_class: TaskClass,
        now: Now,
    ) -> None:
        self.caller = caller
        self.identity = keys.reservation_id(caller, ask.ask_id)
        """The reservation's id, if there is to be one: a repeated ask finds it by this."""
        self.rules = rules
        self.state = state
        self.kills = kills
        self.ask = ask
        self.task_class = task_class
        self.now = now
        self.takes_steps = not task_class.critical or task_class.takes_steps
        self.enforce_shadow = True
        """Whether rules in shadow refuse; off when the real answer is found."""


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
    if result.reason is Reason.OK and matching.rates:
        _check_rates(question, result, matching)
    if result.reason is Reason.OK:
        _check_budgets(question, result, counters)
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


def rate_units(rate_unit: str, estimate: Estimate) -> int | None:
    """How much of a bucket this ask takes; None where the ask does not say."""
    if rate_unit == "requests":
        return 1
    if rate_unit == "nusd":
        return estimate.hold_nusd
    prompt, output = estimate.prompt_tokens, estimate.output_tokens
    if rate_unit == "prompt_tokens":
        return prompt
    if rate_unit == "output_tokens":
        return output
    return None if prompt is None or output is None else prompt + output


def _check_rates(question: Question, result: Evaluation, matching: Matching) -> None:
    facts, steady_ns = result.candidate.facts, question.now.steady_ns
    read = question.state.rate
    for rule in matching.rates:
        rate = rule.rate
        problem, key = Reason.RATE_LIMITED, b""
        units = rate_units(rate.unit, result.estimate)
        if rate.missing_deny and any(label not in facts for label in rate.per):
            problem = Reason.LABEL_MISSING
        elif units is None:
            problem = Reason.ESTIMATE_MISSING
        elif not units:
            continue
        else:
            key = rule.bucket_key(facts)
            fits, full_ns = take(rate, read(key), units, steady_ns)
            if fits:
                line = RateLine(key, rate.unit, units, rate.interval_ns, rate.amount)
                result.rates.append((line, full_ns))
                continue
        if _enforced(question, shadow=rule.shadow):
            result.fail(problem, rule, key=key, rejects_candidate=rate.selector.names_candidate)
            return


def _check_budgets(
    question: Question, result: Evaluation, counters: list[tuple[BudgetRule, bytes, Counter]]
) -> None:
    """Check settled + reserved + hold <= limit for every budget, and note the tightest."""
    estimate = result.estimate
    prompt, output = estimate.prompt_tokens, estimate.output_tokens
    tokens = None if prompt is None or output is None else prompt + output
    amounts = {"nusd": estimate.hold_nusd, "tokens": tokens or 0, "calls": 1}
    is_free, critical = estimate.is_free, question.task_class.critical
    for rule, key, counter in counters:
        budget = rule.budget
        unit = budget.unit
        untold = unit == "tokens" and tokens is None and budget.limit is not None
        if untold and _enforced(question, shadow=rule.shadow):
            names_candidate = budget.selector.names_candidate
            result.fail(Reason.ESTIMATE_MISSING, rule, rejects_candidate=names_candidate)
            return
        hold = amounts[unit]
        used = counter.settled + counter.reserved
        if budget.limit is None or (is_free and unit == "nusd"):
            # It only tracks, or the call is free: money budgets do not apply.
            if used + hold > AMOUNT_MAX:
                result.fail(Reason.BUDGET_EXHAUSTED, rule, key=key)
                return
            result.lines.append((rule, CounterLine(key, unit, hold), counter))
            continue
        # A call that will cost something needs room, also where its caller says nothing.
        fits = used + (hold or 1) <= budget.limit
        limit, drawn, from_reserve = budget.limit, used, 0
        if budget.reserve:
            limit, drawn = drawable(rule, counter, critical=critical)
            if critical:
                general = used - counter.reserve_settled - counter.reserve_reserved
                from_reserve = hold - min(hold, max(0, budget.limit - budget.reserve - general))
            else:
                fits = fits and drawn + (hold or 1) <= limit
        if fits:
            line = CounterLine(key, unit, hold, from_reserve)
        elif question.enforce_shadow or not rule.shadow:
            result.fail(
                Reason.BUDGET_EXHAUSTED,
                rule,
                key=key,
                rejects_candidate=budget.selector.names_candidate,
            )
            return
        else:
            line = CounterLine(key, unit, hold, 0, Excuse.SHADOW)
        result.lines.append((rule, line, counter))
        share = utilisation_bp(drawn + hold, limit)
        if share >= result.tightest_bp:
            note_tightest(result, rule, key, share)


def note_levels(question: Question, result: Evaluation) -> None:
    """Note the tightest budget as it stands, for a refusal, which holds nothing."""
    facts, wall_ns = result.candidate.facts, question.now.wall_ns
    result.tightest_bp = 0
    for rule in question.rules.matching(facts).budgets:
        if rule.budget.limit is None:
            continue
        key = rule.counter_key(facts, wall_ns)
        counter = question.state.counter(key) or EMPTY_COUNTER
        limit, used = drawable(rule, counter, critical=question.task_class.critical)
        share = utilisation_bp(used, limit)
        if share >= result.tightest_bp:
            note_tightest(result, rule, key, share)


def note_tightest(result: Evaluation, rule: BudgetRule, key: bytes, share: int) -> None:
    """Note the tightest budget so far, and the highest threshold it has crossed."""
    result.tightest, result.tightest_key, result.tightest_bp = rule, key, share
    if share >= rule.first_step_bp:
        result.threshold_bp = max(
            step.at_bp
            for step in rule.budget.steps
            if step.at_bp is not None and step.at_bp <= share
        )
    else:
        result.threshold_bp = 0
