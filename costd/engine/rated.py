"""Check a candidate against every rate that matches; consume nothing."""

from costd.engine import keys
from costd.engine.candidates import Estimate
from costd.engine.ports import State
from costd.engine.question import Evaluation, Question, Shorts
from costd.engine.rate import available, give_back, refill_ns, take
from costd.engine.rules import Matching, RateRule, Rules
from costd.engine.shares import WHOLE, share_for
from costd.model.decision import Reason
from costd.model.lease import Shortage
from costd.model.policy import FailMode, Rate
from costd.model.reservation import RateLine
from costd.model.time import NEVER_NS


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


def check_rates(question: Question, result: Evaluation, matching: Matching, short: Shorts) -> None:
    """Check that every bucket holds what this ask takes.

    Where a fleet's rate lacks nothing but a larger share, and there is time to ask for it, that
    is noted in `short`.
    """
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
            lent = lent_rate(question, rule, key) if rule.is_shared else rate
            fits, full_ns = take(lent, read(key), units, steady_ns)
            if fits:
                line = RateLine(key, rate.unit, units, rate.interval_ns, rate.amount)
                result.rates.append((line, full_ns))
                continue
            if rule.is_shared:
                lacking = _lacking(question, rule, key, units)
                if lacking is not None and question.may_wait:
                    short.append((rule, lacking))
                    continue
                if lacking is not None and _nobody_said(question, lacking):
                    if question.rules.policy.fleet.fail_mode is FailMode.OPEN:
                        continue
                    problem = Reason.NO_LEASE
        if question.enforce_shadow or not rule.shadow:
            result.fail(problem, rule, key=key, rejects_candidate=rate.selector.names_candidate)
            return


def lent_rate(question: Question, rule: RateRule, key: bytes) -> Rate:
    """What this daemon may do of a rate: all of it, or the share that it is lent of the fleet's.

    With the policy's `fail_mode: safe`, a small share where it has less, and nobody can be asked.
    """
    if not rule.is_shared:
        return rule.rate
    share = _share(question, key)
    terms = question.rules.policy.fleet
    if terms.fail_mode is FailMode.SAFE and not question.may_wait:
        safe = WHOLE * terms.safe_share.numerator // terms.safe_share.denominator
        if share < safe and not question.state.is_exhausted(keys.share_key(key)):
            share = safe
    return rule.scaled(share)


def held_share(state: State, key: bytes) -> int:
    """What this daemon holds of a fleet's rate, in millionths."""
    counter = state.counter(keys.share_key(key))
    return counter.lease.amount if counter is not None and counter.lease is not None else 0


def _share(question: Question, key: bytes) -> int:
    """What may be used of a fleet's rate now: nothing once the tenure is over."""
    return held_share(question.state, key) if question.in_tenure else 0


def _lacking(question: Question, rule: RateRule, key: bytes, units: int) -> Shortage | None:
    """State which share might let this pass; None where not even the whole rate does.

    `critical` says that without it not one such call passes, however long it waits.
    """
    share, rate = _share(question, key), rule.rate
    needed = share_for(rate, units)
    if needed > WHOLE or share >= WHOLE:
        return None
    is_too_small = needed > share
    if not is_too_small:
        # What is added may bring along what refilled in it while nobody held it.
        free = available(rule.scaled(share), question.state.rate(key), question.now.steady_ns)
        needed = min(WHOLE, share + share_for(rate, units - free))
    return Shortage(keys.share_key(key), needed, is_too_small)


def _nobody_said(question: Question, lacking: Shortage) -> bool:
    """Tell whether a share is too small, and the coordinator did not say that there is no more."""
    return lacking.critical and not question.state.is_exhausted(lacking.key)


def put_right(rules: Rules, state: State, line: RateLine, units: int, steady_ns: int) -> int | None:
    """When a bucket is full again that so many units return to, or that lacks as many if negative.

    A fleet's rate has the share that this daemon holds by now, whatever it had when it took. None
    where the bucket stays as it is.
    """
    full_ns, ns_num, ns_den = state.rate(line.key), line.ns_num, line.ns_den
    if line.key[: keys.TAG_BYTES] in rules.shared_rates:
        share = held_share(state, line.key)
        if not share:
            return None  # it was given back, with all that was in the bucket
        ns_num, ns_den = ns_num * WHOLE, ns_den * share
    if units >= 0:
        return None if full_ns is None else give_back(full_ns, units, ns_num, ns_den)
    full_ns = max(full_ns or 0, steady_ns) + refill_ns(-units, ns_num, ns_den)
    return min(full_ns, NEVER_NS)
