"""Check a candidate's hold against every budget that matches; consume nothing."""

from costd.engine.bounds import drawable, fleet_room, from_reserve, may_excuse, room_left, shortage
from costd.engine.degrade import utilisation_bp
from costd.engine.question import Evaluation, Question, Shorts, note_tightest
from costd.engine.rules import BudgetRule
from costd.model.counter import EMPTY_COUNTER, Counter
from costd.model.decision import Reason
from costd.model.lease import Wanting
from costd.model.money import AMOUNT_MAX
from costd.model.reservation import CounterLine, Excuse


def check_budgets(
    question: Question,
    result: Evaluation,
    counters: list[tuple[BudgetRule, bytes, Counter]],
    short: Shorts,
) -> None:
    """Check settled + reserved + hold <= limit for every budget, and note the tightest.

    `short` is what rates lack already, and gets what leases on budgets do.
    """
    estimate = result.estimate
    prompt, output = estimate.prompt_tokens, estimate.output_tokens
    tokens = None if prompt is None or output is None else prompt + output
    amounts = {"nusd": estimate.hold_nusd, "tokens": tokens or 0, "calls": 1}
    is_free, critical = estimate.is_free, question.task_class.critical
    for rule, key, counter in counters:
        budget = rule.budget
        unit = budget.unit
        untold = unit == "tokens" and tokens is None and budget.limit is not None
        if untold and (question.enforce_shadow or not rule.shadow):
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
        line: CounterLine | None
        limit, drawn = budget.limit, used
        if not rule.is_shared and not budget.reserve and used + (hold or 1) <= limit:
            line = CounterLine(key, unit, hold)  # the quick way of most budgets
        else:
            find = _leased_line if rule.is_shared else _line
            line = find(question, result, rule, (key, counter, hold), short)
            if line is None:
                return
            limit, drawn = drawable(rule, counter, critical=critical)
        result.lines.append((rule, line, counter))
        share = utilisation_bp(drawn + hold, limit)
        if share >= result.tightest_bp:
            note_tightest(result, rule, key, share)
    if short:
        _lacks_leases(question, result, short)


def _line(
    question: Question,
    result: Evaluation,
    rule: BudgetRule,
    wanted: tuple[bytes, Counter, int],
    _short: Shorts,
) -> CounterLine | None:
    """Find how a budget of this daemon's own holds this; None where it does not, and it failed."""
    key, counter, hold = wanted
    budget, used = rule.budget, counter.settled + counter.reserved
    assert budget.limit is not None
    # A call that will cost something needs room, also where its caller says nothing.
    fits, reserve_hold = used + (hold or 1) <= budget.limit, 0
    if budget.reserve:
        if question.task_class.critical:
            reserve_hold = from_reserve(rule, counter, hold)
        else:
            limit, drawn = drawable(rule, counter, critical=False)
            fits = fits and drawn + (hold or 1) <= limit
    if fits:
        return CounterLine(key, budget.unit, hold, reserve_hold)
    if question.enforce_shadow or not rule.shadow:
        _exhausted(result, rule, key)
        return None
    return CounterLine(key, budget.unit, hold, 0, Excuse.SHADOW)


def _exhausted(result: Evaluation, rule: BudgetRule, key: bytes) -> None:
    result.fail(
        Reason.BUDGET_EXHAUSTED,
        rule,
        key=key,
        rejects_candidate=rule.budget.selector.names_candidate,
    )


def _leased_line(
    question: Question,
    result: Evaluation,
    rule: BudgetRule,
    wanted: tuple[bytes, Counter, int],
    short: Shorts,
) -> CounterLine | None:
    """Find how a fleet's budget holds this; None where the fleet has no more, and it failed.

    Where only the lease is too small, that is noted in `short`, and the line is void: all
    budgets that are short are to be told of together.
    """
    key, counter, hold = wanted
    unit, critical, amount = rule.budget.unit, question.task_class.critical, hold or 1
    room = room_left(rule, counter, critical=critical, in_tenure=question.in_tenure)
    if room is not None and amount <= room:
        return CounterLine(key, unit, hold, from_reserve(rule, counter, hold) if critical else 0)
    lacking = shortage(rule, key, counter, amount, critical=critical)
    known = fleet_room(rule, counter, critical=critical)
    has_none = (known is not None and amount > known) or (
        not question.may_wait and question.state.is_exhausted(key)
    )
    if rule.shadow and not (has_none and question.enforce_shadow):
        # Nobody is asked for what only looks on; it is judged by how the fleet stands.
        return CounterLine(key, unit, hold, 0, Excuse.SHADOW)
    if has_none:
        _exhausted(result, rule, key)
        return None
    terms = question.rules.policy.fleet
    if not question.may_wait and may_excuse(terms, rule, counter, amount):
        return CounterLine(key, unit, hold, 0, Excuse.UNLEASED)
    short.append((rule, lacking))
    return CounterLine(key, unit, hold)


def _lacks_leases(question: Question, result: Evaluation, short: Shorts) -> None:
    """Fail a candidate that lacks nothing but leases; the first one's are worth asking for."""
    rule, first = short[0]
    result.fail(
        Reason.NO_LEASE,
        rule,
        key=first.key,
        rejects_candidate=all(each.selector.names_candidate for each, _ in short),
    )
    if question.wanting is None:
        lacking = sorted((each for _, each in short), key=lambda each: each.key)
        question.wanting = Wanting(tuple(lacking))


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
