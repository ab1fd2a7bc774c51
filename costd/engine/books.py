"""The arithmetic of counters: every write to one goes through here.

Causes are kept apart so that the books always explain themselves (invariant I1 of `Counter`).
"""

import msgspec

from costd.engine import keys
from costd.engine.bounds import bounds, drawable
from costd.engine.changes import Changes, Family
from costd.engine.degrade import burn_bp as pace_bp
from costd.engine.degrade import steps_reached, utilisation_bp
from costd.engine.rules import BudgetRule
from costd.errors import InvalidAsk, InvariantBroken
from costd.model.counter import Counter
from costd.model.events import Alert, AuditRecord
from costd.model.kill import KillMode, KillSwitch
from costd.model.labels import NO_LABEL, Match, Selector
from costd.model.money import AMOUNT_MAX
from costd.model.reservation import CounterLine, Excuse
from costd.model.time import Now

_PERCENT_BP = 100


def post(
    counter: Counter,
    rule: BudgetRule | None,
    *,
    settled: int = 0,
    reserved: int = 0,
    reserve_settled: int = 0,
    reserve_reserved: int = 0,
    overrun: int = 0,
    granted: int = 0,
    late: int = 0,
    unadmitted: int = 0,
    shadow: int = 0,
    start_ns: int = 0,
    wall_ns: int = 0,
) -> Counter:
    """Add to a counter's columns and keep `lowered` true.

    Shape:   pure; `rule` says which limit is in force now; None where the policy has lost the
             budget: there is none then.
    Ensures: a column never falls below zero; `lowered` rises only where the limit was cut.
    Errors:  InvariantBroken where more would be released than is reserved; InvalidAsk for an
             amount that would pass what can be stored.
    """
    now_settled, now_reserved = counter.settled + settled, counter.reserved + reserved
    if now_reserved < 0 or now_settled < 0:
        raise InvariantBroken(
            f"a counter would stand at settled {now_settled}, reserved {now_reserved}"
        )
    if now_settled + now_reserved > AMOUNT_MAX:
        raise InvalidAsk(
            f"a budget's counter stands at {counter.used}; with this amount it would pass "
            f"{AMOUNT_MAX}, the most that can be counted"
        )
    now_overrun = counter.overrun + overrun
    now_granted = max(0, counter.granted + granted)
    now_late = counter.late + late
    now_unadmitted = counter.unadmitted + unadmitted
    now_shadow = max(0, counter.shadow + shadow)
    lowered = 0
    limit = None if rule is None else bounds(rule, counter)[0]
    new_limit = -1 if limit is None else limit
    if limit is not None and (counter.lowered or counter.limit != new_limit):
        excess = now_settled + now_reserved - new_limit
        excess -= now_overrun + now_granted + now_late + now_unadmitted + now_shadow
        cut = counter.limit < 0 or new_limit < counter.limit
        lowered = max(0, excess) if cut else max(0, min(counter.lowered, excess))
    alerted_bp, burn_alerted_bp = counter.alerted_bp, counter.burn_alerted_bp
    is_raised = limit is not None and new_limit > counter.limit
    if is_raised and (alerted_bp or burn_alerted_bp) and not (rule and rule.is_shared):
        # A raised limit puts steps out of reach again; reaching them anew alerts and halts anew.
        # A pace rises and falls with time: one that is still past its step was reached anew.
        alerted_bp = min(alerted_bp, utilisation_bp(counter.used, new_limit))
        burn_alerted_bp = 0
    return Counter(
        now_settled,
        now_reserved,
        counter.reserve_settled + reserve_settled,
        counter.reserve_reserved + reserve_reserved,
        now_overrun,
        now_granted,
        lowered,
        now_late,
        now_unadmitted,
        now_shadow,
        new_limit,
        alerted_bp,
        burn_alerted_bp,
        start_ns or counter.start_ns,
        wall_ns or counter.changed_ns,
        counter.lease,
    )


def hold(counter: Counter, rule: BudgetRule, line: CounterLine, *, wall_ns: int) -> Counter:
    """Reserve what a line holds; `post` says what that means, this is its quick way.

    Shape:   pure; the line has been checked against the limit, or is excused.
    """
    limit = bounds(rule, counter)[0] if rule.is_shared else rule.budget.limit
    if line.excuse or counter.lowered or counter.limit != (-1 if limit is None else limit):
        return post(
            counter,
            rule,
            reserved=line.hold,
            reserve_reserved=line.reserve_hold,
            granted=line.hold if line.excuse is Excuse.GRANTED else 0,
            shadow=line.hold if line.excuse is Excuse.SHADOW else 0,
            unadmitted=line.hold if line.excuse is Excuse.UNLEASED else 0,
            start_ns=rule.window(wall_ns)[0],
            wall_ns=wall_ns,
        )
    return Counter(
        counter.settled,
        counter.reserved + line.hold,
        counter.reserve_settled,
        counter.reserve_reserved + line.reserve_hold,
        counter.overrun,
        counter.granted,
        0,
        counter.late,
        counter.unadmitted,
        counter.shadow,
        counter.limit,
        counter.alerted_bp,
        counter.burn_alerted_bp,
        counter.start_ns,
        wall_ns,
        counter.lease,
    )


def write(
    changes: Changes,
    rule: BudgetRule | None,
    key: bytes,
    counter: Counter,
    *,
    critical: bool,
    now: Now,
) -> None:
    """Put a counter, with the alerts and the halt that its new level brings.

    `rule` is None where the policy no longer has the budget; its counter is kept all the same.
    Of a fleet's budget the coordinator alerts and halts, who sees what all daemons use.
    """
    if rule is not None and rule.has_steps:
        limit, used = drawable(rule, counter, critical=critical and not rule.is_shared)
        if rule.is_shared:
            counter = _note_reached(changes, rule, key, counter, limit=limit, used=used, now=now)
        elif rule.may_have_reached(used, limit):
            counter = raise_crossings(changes, rule, key, counter, limit=limit, used=used, now=now)
    changes.puts.append((Family.COUNTERS, key, counter))


def _note_reached(
    changes: Changes,
    rule: BudgetRule,
    key: bytes,
    counter: Counter,
    *,
    limit: int,
    used: int,
    now: Now,
) -> Counter:
    """Note which steps the fleet has reached, so that what was granted below them is looked at."""
    alerted = burn_alerted = 0
    if rule.may_have_reached(used, limit):
        for step in steps_reached(rule, used=used, limit=limit, wall_ns=now.wall_ns):
            alerted = max(alerted, step.at_bp or 0)
            burn_alerted = max(burn_alerted, step.burn_bp or 0)
    if (alerted, burn_alerted) == (counter.alerted_bp, counter.burn_alerted_bp):
        return counter
    if alerted > counter.alerted_bp or burn_alerted > counter.burn_alerted_bp:
        changes.crossed.append(key)
    return msgspec.structs.replace(counter, alerted_bp=alerted, burn_alerted_bp=burn_alerted)


def raise_crossings(
    changes: Changes,
    rule: BudgetRule,
    key: bytes,
    counter: Counter,
    *,
    limit: int,
    used: int,
    now: Now,
) -> Counter:
    """Alert once per window for every step reached; engage the kill switch of a halt step."""
    share = utilisation_bp(used, limit)
    pace = 0
    end_ns = int.from_bytes(key[:8], "big")
    if rule.has_burn:
        start_ns = counter.start_ns
        pace = pace_bp(used, limit, start_ns=start_ns, end_ns=end_ns, wall_ns=now.wall_ns)
    if share < rule.first_step_bp and not pace:
        return counter
    alerted, burn_alerted = counter.alerted_bp, counter.burn_alerted_bp
    halts = False
    for step in rule.budget.steps:
        if step.at_bp is not None and counter.alerted_bp < step.at_bp <= share:
            alerted = max(alerted, step.at_bp)
            reached = step.at_bp
        elif step.burn_bp is not None and counter.burn_alerted_bp < step.burn_bp <= pace:
            burn_alerted = max(burn_alerted, step.burn_bp)
            reached = step.burn_bp
        else:
            continue
        if step.alert:
            changes.alerts.append(_alert(rule, key, share, reached, now, burn=step.at_bp is None))
        halts = halts or step.halt
    # What a window spent that has ended is no reason to stop anybody in the present one.
    if halts and not rule.shadow and now.wall_ns < end_ns:
        halt(changes, rule, key, share, now)
    if (alerted, burn_alerted) == (counter.alerted_bp, counter.burn_alerted_bp):
        return counter
    changes.crossed.append(key)
    return msgspec.structs.replace(counter, alerted_bp=alerted, burn_alerted_bp=burn_alerted)


def _alert(
    rule: BudgetRule, key: bytes, share: int, reached: int, now: Now, *, burn: bool
) -> Alert:
    shown = keys.shown(keys.split_counter_key(key)[2])
    name = f"{rule.budget.budget_id} ({shown})" if shown else rule.budget.budget_id
    text = (
        f"budget {name} is spent {reached / 10_000:g} times as fast as it would last"
        if burn
        else f"budget {name} is {share // _PERCENT_BP} % used, past {reached / _PERCENT_BP:g} %"
    )
    return Alert(
        raised_ns=now.wall_ns,
        kind="burn_rate" if burn else "threshold",
        rule=rule.budget.budget_id,
        key=shown,
        threshold_bp=reached,
        utilisation_bp=share,
        message=text,
    )


def halt(changes: Changes, rule: BudgetRule, key: bytes, share: int, now: Now) -> None:
    """Engage the kill switch for a budget's scope; only a person releases it."""
    per = keys.split_counter_key(key)[2]
    values = dict(part.split("=", 1) for part in per.split(keys.SEPARATOR)) if per else {}
    scope = Selector(
        (
            # The values first: they tell one user's switch from the thousands of others'.
            *(
                Match(
                    name,
                    frozenset() if value == NO_LABEL else frozenset({value}),
                    negated=value == NO_LABEL,
                )
                for name, value in values.items()
            ),
            *rule.budget.selector.matches,
        )
    )
    kill_id = f"halt/{rule.budget.budget_id}/{keys.shown(per) or '-'}"
    reason = f"budget {rule.budget.budget_id} reached its halt step at {share // _PERCENT_BP} %"
    switch = KillSwitch(
        kill_id=kill_id,
        scope=scope,
        mode=KillMode.DENY_ALL,
        reason=reason,
        actor="costd",
        engaged_ns=now.wall_ns,
    )
    changes.put(Family.KILLS, kill_id.encode(), switch)
    changes.audit.append(
        AuditRecord(
            at_ns=now.wall_ns, actor="costd", action="kill_engaged", subject=kill_id, detail=reason
        )
    )
    changes.alerts.append(
        Alert(
            raised_ns=now.wall_ns,
            kind="kill_engaged",
            rule=rule.budget.budget_id,
            key=keys.shown(per),
            utilisation_bp=share,
            message=f"kill switch engaged: {reason}",
        )
    )
