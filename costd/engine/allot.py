"""Size an allowance: what a client process may admit by itself of one scope, for a while."""

from collections.abc import Iterator

import msgspec

from costd.engine import candidates as offers
from costd.engine import keys
from costd.engine.admit import Answer, hold, plain, search
from costd.engine.bounds import drawable, fleet_room, room_left, shortage
from costd.engine.degrade import BURN_USED_BP
from costd.engine.draws import RATE_UNITS
from costd.engine.question import Evaluation, Question
from costd.engine.rate import available, take
from costd.engine.rated import lent_rate, rate_units
from costd.engine.rules import FULL_BP, BudgetRule, RateRule
from costd.model.allowance import Sums
from costd.model.counter import Counter
from costd.model.decision import Reason
from costd.model.lease import Wanting
from costd.model.money import AMOUNT_MAX, HOLD_MAX_NUSD, ceil_div
from costd.model.policy import AllowanceTerms
from costd.model.reservation import CounterLine, RateLine
from costd.model.time import NS_PER_S

CALLS_COUNT_MIN = 4
"""A smaller allowance saves nobody a round trip worth having."""

LIFETIME_NS_MIN = NS_PER_S // 10
"""One that ends sooner is over before its client has drawn anything worth having."""

DRAIN_MARGIN_NS = 2 * NS_PER_S
"""How long after the end of its lifetime a client may still say how far it drew."""

RATE_LIFETIME_NS = NS_PER_S
_RATE_BURST_SHARE = 4


class Allotment(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set aside: the answer with its reservation, how much, and for how long."""

    answer: Answer
    granted: Sums
    lifetime_ns: int
    counts_tokens: bool
    """Whether some rule counts tokens, so that draws must too."""


class Scarce(msgspec.Struct, frozen=True):
    """Nothing can be set aside; these counters have too little left, if that is why."""

    counter_keys: tuple[bytes, ...] = ()
    wanting: Wanting | None = None
    """What the coordinator would have to lend, where the fleet has enough and the leases lack."""


def allot(question: Question, calls_count: int) -> Allotment | Scarce:
    """Set aside so many calls like this one, or as many as are wise.

    Shape:   pure, as `admit`; `question.ask` is one typical call.
    Ensures: what is set aside passes every rule at once, keeps under the next step of every
             budget, leaves protected reserves alone, and is at most the policy's share of what
             is left. It ends before any window that it counts in, and before the money that
             stands behind it expires. Near a limit, near a step, in shadow, and for a call too
             long for a better model there is none: calls are then decided one by one.
    Errors:  InvalidAsk, as `admit`.
    """
    terms = question.rules.policy.allowance
    asked = offers.asked_candidate(question.rules, question.ask, question.task_class, question.now)
    if not terms.active or not terms.selector.holds(asked.facts):
        return Scarce()
    tried: list[Evaluation] = []
    first, chosen = search(question, asked, tried)
    if chosen is None or (question.rules.has_shadow and not plain(first, chosen)):
        if question.wanting is not None:
            return Scarce((), question.wanting)
        return Scarce((first.counter_key,) if first.counter_key else ())
    # A shorter call of the same scope would get a better model than this one.
    is_too_long = any(each.reason is Reason.CONTEXT_TOO_LONG for each in tried)
    one = Sums(1, chosen.estimate.hold_nusd, _tokens(chosen))
    if is_too_long or not (one.amount_nusd or chosen.estimate.is_free):
        return Scarce()
    if any(rule.rate.unit not in RATE_UNITS for rule, _, _ in _rates_of(question, chosen)):
        return Scarce()  # draws are counted in tokens of both kinds together
    most, scarce = _most_calls(question, chosen, terms, one)
    count = min(calls_count, terms.calls_count_max, most)
    if most < CALLS_COUNT_MIN:
        return scarce
    granted = Sums(count, count * one.amount_nusd, count * one.tokens_count)
    larger = _enlarged(question, chosen, granted)
    lines = larger.lines
    lifetime_ns = _lifetime_ns(question, larger, terms)
    if lifetime_ns < LIFETIME_NS_MIN:
        return Scarce()
    question.ask = msgspec.structs.replace(question.ask, ttl_ns=lifetime_ns + DRAIN_MARGIN_NS)
    return Allotment(
        answer=hold(question, larger, first=larger if chosen is first else first),
        granted=granted,
        lifetime_ns=lifetime_ns,
        counts_tokens=any(line.unit == "tokens" for _, line, _ in lines)
        or any(line.unit == "tokens" for line, _ in larger.rates),
    )


def _tokens(result: Evaluation) -> int:
    return (result.estimate.prompt_tokens or 0) + (result.estimate.output_tokens or 0)


def _most_calls(
    question: Question, chosen: Evaluation, terms: AllowanceTerms, one: Sums
) -> tuple[int, Scarce]:
    """How many such calls every budget and rate would set aside, and which have too little."""
    count = AMOUNT_MAX // max(1, one.amount_nusd, one.tokens_count)
    scarce, short = [], []
    share = terms.share
    for rule, line, counter in chosen.lines:
        each = one.of(line.unit)
        if rule.limit is None or (chosen.estimate.is_free and line.unit == "nusd"):
            room = AMOUNT_MAX - counter.used
        else:
            left = _room_left(rule, counter, terms, question.now.wall_ns)
            if left < each * CALLS_COUNT_MIN:
                scarce.append(line.key)
            if rule.is_shared:
                # What sets the least allowance aside, were the lease all that bounds it.
                least = ceil_div(each * CALLS_COUNT_MIN * share.denominator, share.numerator)
                lent = room_left(rule, counter, critical=False, in_tenure=question.in_tenure) or 0
                if lent < least <= left:
                    short.append(shortage(rule, line.key, counter, least, critical=False))
                left = min(left, lent)
            room = left * share.numerator // share.denominator
        if each:
            count = min(count, room // each)
    for rated, key, units in _rates_of(question, chosen):
        rate = lent_rate(question, rated, key)
        free = available(rate, question.state.rate(key), question.now.steady_ns)
        a_second = NS_PER_S * rate.amount // rate.interval_ns
        count = min(count, min(free, rate.burst // _RATE_BURST_SHARE, a_second) // units)
    short.sort(key=lambda lacking: lacking.key)
    return count, Scarce(tuple(scarce), Wanting(tuple(short)) if short else None)


def _lifetime_ns(question: Question, larger: Evaluation, terms: AllowanceTerms) -> int:
    """How long it may be drawn, at most to the end of the first window to end."""
    wall_ns = question.now.wall_ns
    ends_ns = [rule.window(wall_ns)[1] - wall_ns for rule, _, _ in larger.lines]
    held_ns = question.rules.policy.ttl_ns_max - DRAIN_MARGIN_NS
    rated_ns = RATE_LIFETIME_NS if larger.rates else terms.lifetime_ns
    shared_rates = question.rules.shared_rates
    if any(rule.is_shared and line.hold for rule, line, _ in larger.lines) or (
        shared_rates and any(line.key[: keys.TAG_BYTES] in shared_rates for line, _ in larger.rates)
    ):  # what is lent is not lent for longer
        ends_ns.append(question.state.leases_until_ns - question.now.steady_ns)
    return min(terms.lifetime_ns, rated_ns, held_ns, *ends_ns)


def has_little_left(rule: BudgetRule, counter: Counter, terms: AllowanceTerms) -> bool:
    """Tell whether a budget is so far used that its calls are decided one by one.

    Of a fleet's budget, by all daemons together.
    """
    if rule.limit is None:
        return False
    # The general part only: the reserve is drawn call by call.
    limit, _ = drawable(rule, counter, critical=False)
    left = fleet_room(rule, counter, critical=False) or 0
    return left * terms.single_below.denominator < limit * terms.single_below.numerator


def _room_left(rule: BudgetRule, counter: Counter, terms: AllowanceTerms, wall_ns: int) -> int:
    """What is left below the limit and the next step; nothing where calls are drawn singly."""
    limit, used = drawable(rule, counter, critical=False)
    left = fleet_room(rule, counter, critical=False) or 0
    if has_little_left(rule, counter, terms):
        return 0
    for step in rule.budget.steps:
        if step.at_bp is not None and used * FULL_BP < step.at_bp * limit:
            left = min(left, ceil_div(step.at_bp * limit, FULL_BP) - 1 - used)
        elif step.burn_bp is not None:
            left = min(left, _room_at_pace(rule, step.burn_bp, used, limit, wall_ns))
    return max(0, left)


def _room_at_pace(rule: BudgetRule, burn_bp: int, used: int, limit: int, wall_ns: int) -> int:
    """How much more may be used before a burn-rate step is reached at this moment."""
    start_ns, end_ns = rule.window(wall_ns)
    elapsed = max(wall_ns - start_ns, 1)
    at_pace = ceil_div(burn_bp * limit * elapsed, (end_ns - start_ns) * FULL_BP) - 1
    unwatched = ceil_div(limit * BURN_USED_BP, FULL_BP) - 1
    return max(at_pace, unwatched) - used


def _enlarged(question: Question, chosen: Evaluation, granted: Sums) -> Evaluation:
    """The winner as if all calls were one."""
    estimate = chosen.estimate
    count = granted.calls_count
    larger = Evaluation(chosen.candidate)
    larger.directives = chosen.directives
    larger.matching = chosen.matching
    larger.demands = chosen.demands
    larger.tightest, larger.tightest_key = chosen.tightest, chosen.tightest_key
    larger.tightest_bp, larger.threshold_bp = chosen.tightest_bp, chosen.threshold_bp
    ceiling = estimate.ceiling_nusd
    larger.estimate = msgspec.structs.replace(
        estimate,
        hold_nusd=granted.amount_nusd,
        ceiling_nusd=(
            None
            if ceiling is None
            else max(granted.amount_nusd, min(ceiling * count, HOLD_MAX_NUSD))
        ),
    )
    larger.lines = [
        (rule, CounterLine(line.key, line.unit, granted.of(line.unit)), counter)
        for rule, line, counter in chosen.lines
    ]
    for rule, key, each in _rates_of(question, chosen):
        units, rate = each * count, rule.rate
        lent, full_ns = lent_rate(question, rule, key), question.state.rate(key)
        fits, full_ns = take(lent, full_ns, units, question.now.steady_ns)
        assert fits, "a bucket holds at least what is available"
        line = RateLine(key, rate.unit, units, rate.interval_ns, rate.amount)
        larger.rates.append((line, full_ns))
    return larger


def _rates_of(question: Question, chosen: Evaluation) -> Iterator[tuple[RateRule, bytes, int]]:
    """Yield the rates that a call consumes: the rule, its bucket's key, units of one call."""
    matching = question.rules.matching(chosen.candidate.facts)
    for rule in matching.rates:
        units = rate_units(rule.rate.unit, chosen.estimate)
        if units:
            yield rule, rule.bucket_key(chosen.candidate.facts), units
