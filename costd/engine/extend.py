"""Enlarge a reservation while its call goes on, and note usage so far."""

from dataclasses import dataclass

import msgspec

from costd.engine import books, keys
from costd.engine.changes import Changes, Family
from costd.engine.degrade import room_left
from costd.engine.evaluate import kill_stops
from costd.engine.resolve import Ledgered, move_of, rule_and_limit
from costd.engine.rules import NO_KILLS, BudgetRule, Kills, budget_amount
from costd.model.counter import Counter
from costd.model.decision import Reason
from costd.model.kill import KillSwitch
from costd.model.reservation import CounterLine, Excuse, Move, Reservation
from costd.model.usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class More:
    """What a running call asks for; zeros ask for nothing."""

    cost_nusd: int = 0
    tokens: int = 0
    ttl_ns: int = 0
    reported: Usage | None = None
    reported_nusd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended:
    """The reservation as it stands now; `reason` OK if the extension fitted."""

    reservation: Reservation
    reason: Reason
    refused_by: BudgetRule | KillSwitch | None
    changes: Changes


def extend(held: Reservation, more: More, books_of: Ledgered, kills: Kills = NO_KILLS) -> Extended:
    """Hold more for a running call, if it fits; what was reported is noted either way.

    Shape:   pure; touches the reservation's own counters, also after their window has ended.
    Errors:  ReservationClosed if it is no longer held.
    """
    move_of(held, Move.EXTEND)
    task_class = books_of.rules.policy.task_classes.get(held.ask.task_class)
    critical = task_class is not None and task_class.critical
    reason, refused_by = _refusal(held, more, books_of, kills, critical=critical)
    changes = Changes()
    grown = msgspec.structs.replace(
        held,
        reported=more.reported or held.reported,
        reported_nusd=max(held.reported_nusd, more.reported_nusd),
    )
    if reason is Reason.OK:
        grown = _grow(changes, grown, more, books_of, critical=critical)
    if grown != held:
        changes.puts.append((Family.RESERVATIONS, grown.reservation_id, grown))
    return Extended(reservation=grown, reason=reason, refused_by=refused_by, changes=changes)


def _refusal(
    held: Reservation,
    more: More,
    books_of: Ledgered,
    kills: Kills,
    *,
    critical: bool,
) -> tuple[Reason, BudgetRule | KillSwitch | None]:
    decision = held.decision
    facts = {
        **held.ask.labels,
        "task_class": held.ask.task_class,
        "provider": decision.provider,
        "model": decision.model,
        "tier": decision.tier,
    }
    used = books_of.state.grant(decision.grant_id) if decision.grant_id else None
    rules, passes_kill = books_of.rules, used is not None and used.passes_kill
    tier_index = rules.tier_index.get(decision.tier, 0)
    for kill in () if passes_kill else kills.matching(facts):
        if kill.engaged(books_of.now.steady_ns) and kill_stops(
            kill, rules=rules, tier_index=tier_index, critical=critical
        ):
            return Reason.KILL_SWITCH, kill
    for line in held.counters:
        rule, counter = rule_and_limit(books_of, line)[0], books_of.state.counter(line.key)
        if rule is None or counter is None or line.excuse is Excuse.GRANTED or rule.shadow:
            continue
        room = room_left(rule, counter, critical=critical)
        if room is not None and _added(line, more) > room:
            return Reason.BUDGET_EXHAUSTED, rule
    if used is not None and used.used_nusd + more.cost_nusd > used.amount_nusd:
        return Reason.GRANT, None
    return Reason.OK, None


def _added(line: CounterLine, more: More) -> int:
    """How much of a line's unit the extension adds; it stays one call."""
    if line.unit == "calls":
        return 0
    return budget_amount(line.unit, cost_nusd=more.cost_nusd, tokens=more.tokens)


def _grow(
    changes: Changes, held: Reservation, more: More, books_of: Ledgered, *, critical: bool
) -> Reservation:
    """Write the larger holds and the later expiry."""
    now, policy = books_of.now, books_of.rules.policy
    lines = []
    for line in held.counters:
        counter = books_of.state.counter(line.key)
        added = _added(line, more)
        if counter is None or not added:
            lines.append(line)
            continue
        rule, limit = rule_and_limit(books_of, line)
        excuse, shadowed = line.excuse, 0
        if excuse is Excuse.SHADOW:
            shadowed = added
        elif excuse is Excuse.NONE and _overdraws(rule, counter, added, critical=critical):
            # From now on the whole line is excused, so that what closes it is excused with it.
            excuse, shadowed = Excuse.SHADOW, line.hold + added
        plain = excuse is Excuse.NONE
        from_reserve = _more_from_reserve(rule, counter, added) if critical and plain else 0
        posted = books.post(
            counter,
            limit,
            reserved=added,
            reserve_reserved=from_reserve,
            granted=added if excuse is Excuse.GRANTED else 0,
            shadow=shadowed,
            wall_ns=now.wall_ns,
        )
        books.write(changes, rule, line.key, posted, critical=critical, now=now)
        reserve_hold = line.reserve_hold + from_reserve
        lines.append(CounterLine(line.key, line.unit, line.hold + added, reserve_hold, excuse))
    used = books_of.state.grant(held.decision.grant_id) if held.decision.grant_id else None
    if used is not None and more.cost_nusd:
        grown_use = msgspec.structs.replace(used, used_nusd=used.used_nusd + more.cost_nusd)
        changes.put(Family.GRANTS, used.grant_id.encode(), grown_use)
    due_ns = held.due_ns
    if more.ttl_ns:
        due_ns = min(now.steady_ns + more.ttl_ns, held.admitted_steady_ns + policy.ttl_ns_max)
    if due_ns != held.due_ns:
        changes.puts.append((Family.DUE, keys.due_key(held.due_ns, held.reservation_id), None))
        changes.puts.append((Family.DUE, keys.due_key(due_ns, held.reservation_id), b""))
    ceiling = held.ceiling_nusd
    return msgspec.structs.replace(
        held,
        counters=tuple(lines),
        hold_nusd=held.hold_nusd + more.cost_nusd,
        ceiling_nusd=None if ceiling is None else max(ceiling, held.hold_nusd + more.cost_nusd),
        due_ns=due_ns,
    )


def _overdraws(rule: BudgetRule | None, counter: Counter, added: int, *, critical: bool) -> bool:
    """Tell whether a budget, which must then be in shadow, would have refused the addition."""
    room = room_left(rule, counter, critical=critical) if rule is not None else None
    return room is not None and added > room


def _more_from_reserve(rule: BudgetRule | None, counter: Counter, added: int) -> int:
    """The part of an addition that the general part of a budget cannot hold."""
    if rule is None or rule.limit is None or not rule.budget.reserve:
        return 0
    general_left = rule.limit - rule.budget.reserve - (counter.used - counter.reserve_used)
    return added - min(added, max(0, general_left))
