"""Enlarge a reservation while its call goes on, and note usage so far."""

from dataclasses import dataclass

import msgspec

from costd.engine import books, keys
from costd.engine.changes import Changes, Family
from costd.engine.resolve import Ledgered, room_left
from costd.engine.rules import BudgetRule, budget_amount
from costd.errors import ReservationClosed
from costd.model.counter import Counter
from costd.model.decision import Reason
from costd.model.kill import KillMode, KillSwitch
from costd.model.reservation import CounterLine, Excuse, Reservation, ReservationState
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


def extend(
    held: Reservation, more: More, books_of: Ledgered, kills: tuple[KillSwitch, ...] = ()
) -> Extended:
    """Hold more for a running call, if it fits; what was reported is noted either way.

    Shape:   pure; touches the reservation's own counters, also after their window has ended.
    Errors:  ReservationClosed if it is no longer held.
    """
    if held.state is not ReservationState.HELD:
        raise ReservationClosed(
            f"reservation {held.reservation_id.hex()} is {held.state.name.lower()}; "
            "it cannot be extended"
        )
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
    if grown is not held:
        changes.puts.append((Family.RESERVATIONS, grown.reservation_id, grown))
    return Extended(reservation=grown, reason=reason, refused_by=refused_by, changes=changes)


def _refusal(
    held: Reservation,
    more: More,
    books_of: Ledgered,
    kills: tuple[KillSwitch, ...],
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
    for kill in kills:
        stops = kill.engaged(books_of.now.steady_ns) and kill.scope.holds(facts)
        if (
            stops
            and not decision.grant_id
            and not (critical and kill.mode is KillMode.CRITICAL_ONLY)
        ):
            return Reason.KILL_SWITCH, kill
    for line in held.counters:
        rule = books_of.rules.budgets.get(line.key[8 : 8 + keys.TAG_BYTES])
        counter = books_of.state.counter(line.key)
        if rule is None or counter is None or line.excuse is not Excuse.NONE or rule.shadow:
            continue
        room = room_left(rule, counter, critical=critical)
        if room is not None and _added(line, more) > room:
            return Reason.BUDGET_EXHAUSTED, rule
    used = books_of.state.grant(decision.grant_id) if decision.grant_id else None
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
        rule = books_of.rules.budgets.get(line.key[8 : 8 + keys.TAG_BYTES])
        limit = (
            rule.budget.limit
            if rule is not None
            else (None if counter.limit < 0 else counter.limit)
        )
        from_reserve = _more_from_reserve(rule, counter, added) if critical else 0
        posted = books.post(
            counter,
            limit,
            reserved=added,
            reserve_reserved=from_reserve,
            granted=added if line.excuse is Excuse.GRANTED else 0,
            shadow=_shadowed(rule, counter, line, added),
            wall_ns=now.wall_ns,
        )
        books.write(changes, rule, line.key, posted, critical=critical, now=now)
        lines.append(
            CounterLine(
                line.key,
                line.unit,
                line.hold + added,
                line.reserve_hold + from_reserve,
                line.excuse,
            )
        )
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


def _shadowed(rule: BudgetRule | None, counter: Counter, line: CounterLine, added: int) -> int:
    """How much of the addition a budget in shadow would have refused."""
    if line.excuse is Excuse.SHADOW:
        return added
    if rule is None or not rule.shadow or rule.budget.limit is None:
        return 0
    return added if counter.used + added > rule.budget.limit else 0


def _more_from_reserve(rule: BudgetRule | None, counter: Counter, added: int) -> int:
    """The part of an addition that the general part of a budget cannot hold."""
    if rule is None or rule.budget.limit is None or not rule.budget.reserve:
        return 0
    general_left = rule.budget.limit - rule.budget.reserve - (counter.used - counter.reserve_used)
    return added - min(added, max(0, general_left))
