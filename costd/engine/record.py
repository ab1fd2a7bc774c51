"""Charge spend that nobody asked for: past the limit if need be, into `unadmitted`."""

from costd.engine import books, keys
from costd.engine.changes import Changes, Family
from costd.engine.question import Question
from costd.engine.resolve import Ledgered, Report, usage_event
from costd.engine.rules import budget_amount
from costd.model.counter import EMPTY_COUNTER
from costd.model.decision import Decision, Reason, Verdict
from costd.model.labels import Facts
from costd.model.price import Price
from costd.model.reservation import CounterLine, Reservation, ReservationState


def record(
    question: Question,
    report: Report,
    books_of: Ledgered,
    *,
    happened_ns: int,
    price: Price | None,
) -> tuple[Reservation, Changes]:
    """Charge a call that was not admitted, on the budgets that would have matched it.

    Shape:   `question.ask.ask_id` is the record id; writes a reservation that is settled already,
             so that repeating the record finds it.
    Ensures: counts in the windows of `happened_ns`; consumes no rate.
    """
    ask, rules, now = question.ask, question.rules, books_of.now
    tier_index = rules.tier_of(report.provider, report.model)
    if tier_index is None and price is not None and not price.source.assumed:
        tier_index = rules.tier_of(price.source.provider, price.source.model)
    tier = rules.policy.tiers[tier_index].name if tier_index is not None else ask.tier
    facts = {
        **ask.labels,
        "task_class": question.task_class.name,
        "provider": report.provider,
        "model": report.model,
        "tier": tier,
    }
    changes = Changes()
    lines = _charge(changes, question, facts, report, happened_ns)
    identity = question.identity
    decision = Decision(
        verdict=Verdict.ALLOW,
        reason=Reason.OK,
        ask_id=ask.ask_id,
        reservation_id=identity,
        tier=tier,
        provider=report.provider,
        model=report.model,
        policy_revision=rules.policy.revision,
        price_id=price.price_id if price else "",
        price=price.source if price else None,
    )
    stored = Reservation(
        reservation_id=identity,
        caller=question.caller,
        ask=ask,
        decision=decision,
        state=ReservationState.SETTLED,
        counters=lines,
        rates=(),
        hold_nusd=0,
        ceiling_nusd=None,
        admitted_ns=happened_ns,
        admitted_steady_ns=now.steady_ns,
        due_ns=now.steady_ns + max(books_of.closed_keep_ns, rules.policy.late_settle_ns),
        reported=report.usage,
        cost_nusd=report.cost_nusd,
        closed_ns=now.wall_ns,
    )
    changes.puts.append((Family.RESERVATIONS, identity, stored))
    changes.puts.append((Family.DUE, keys.due_key(stored.due_ns, identity), b""))
    changes.usage.append(usage_event(stored, report, now, closed_as="recorded"))
    return stored, changes


def _charge(
    changes: Changes, question: Question, facts: Facts, report: Report, happened_ns: int
) -> tuple[CounterLine, ...]:
    """Charge every matching budget in the window of that time."""
    now, lines = question.now, []
    tokens = report.usage.total_tokens if report.usage else 0
    for rule in question.rules.matching(facts).budgets:
        unit = rule.budget.unit
        amount = budget_amount(unit, cost_nusd=report.cost_nusd, tokens=tokens)
        start_ns, _ = rule.window(happened_ns)
        key = rule.counter_key(facts, happened_ns)
        posted = books.post(
            question.state.counter(key) or EMPTY_COUNTER,
            rule,
            settled=amount,
            unadmitted=amount,
            start_ns=start_ns,
            wall_ns=now.wall_ns,
        )
        books.write(changes, rule, key, posted, critical=question.task_class.critical, now=now)
        lines.append(CounterLine(key, unit, 0))
    return tuple(lines)
