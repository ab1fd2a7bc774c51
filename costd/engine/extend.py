"""Enlarge a reservation while its call goes on, and note usage so far."""

from dataclasses import dataclass

import msgspec

from costd.engine import books, keys
from costd.engine.bounds import fleet_room, from_reserve, may_excuse, room_left, shortage
from costd.engine.changes import Changes, Family
from costd.engine.evaluate import kill_stops
from costd.engine.resolve import Ledgered, move_of, rule_of
from costd.engine.rules import NO_KILLS, BudgetRule, Kills, budget_amount
from costd.model.counter import Counter
from costd.model.decision import Reason
from costd.model.kill import KillSwitch
from costd.model.lease import Shortage, Wanting
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


def extend(
    held: Reservation,
    more: More,
    books_of: Ledgered,
    kills: Kills = NO_KILLS,
    *,
    may_wait: bool = False,
) -> Extended | Wanting:
    """Hold more for a running call, if it fits; what was reported is noted either way.

    Shape:   pure; touches the reservation's own counters, also after their window has ended.
             With `may_wait`, where it lacks nothing but leases, it says which and does nothing.
    Errors:  ReservationClosed if it is no longer held.
    """
    move_of(held, Move.EXTEND)
    task_class = books_of.rules.policy.task_classes.get(held.ask.task_class)
    critical = task_class is not None and task_class.critical
    reason, refused_by = _refusal(held, more, books_of, kills, critical=critical)
    changes = Changes()
    if reason is Reason.OK:
        reason, refused_by, wanting = _unleased(
            held, more, books_of, critical=critical, may_wait=may_wait
        )
        if may_wait and wanting is not None:
            return wanting
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
        rule, counter = rule_of(books_of, line), books_of.state.counter(line.key)
        if rule is None or counter is None or line.excuse is Excuse.GRANTED or rule.shadow:
            continue
        if keys.is_grants(line.key):  # told below, as a grant's own reason
            continue
        room = fleet_room(rule, counter, critical=critical)
        if room is not None and _added(line, more) > room:
            return Reason.BUDGET_EXHAUSTED, rule
    if used is not None and used.used_nusd + more.cost_nusd > used.amount_nusd:
        return Reason.GRANT, None
    return Reason.OK, None


def _unleased(
    held: Reservation, more: More, books_of: Ledgered, *, critical: bool, may_wait: bool
) -> tuple[Reason, BudgetRule | None, Wanting | None]:
    """Find the fleet's budgets whose lease the addition does not fit into."""
    state, terms = books_of.state, books_of.rules.policy.fleet
    short: list[tuple[BudgetRule, Shortage]] = []
    for line in held.counters:
        rule, counter, added = rule_of(books_of, line), state.counter(line.key), _added(line, more)
        if rule is None or counter is None or not rule.is_shared or not added:
            continue
        if line.excuse in {Excuse.GRANTED, Excuse.SHADOW} or rule.shadow:
            continue
        if not _overdraws(rule, counter, added, books_of, critical=critical):
            continue
        is_grants = keys.is_grants(line.key)
        if not may_wait and state.is_exhausted(line.key):
            return Reason.GRANT if is_grants else Reason.BUDGET_EXHAUSTED, rule, None
        excused = added if line.excuse is Excuse.UNLEASED else line.hold + added
        if is_grants:
            used = state.grant(held.decision.grant_id)
            may_pass = used is not None and used.is_offline
        else:
            may_pass = may_excuse(terms, rule, counter, excused)
        if may_wait or not may_pass:
            short.append((rule, shortage(rule, line.key, counter, added, critical=critical)))
    if not short:
        return Reason.OK, None, None
    lacking_all = sorted((each for _, each in short), key=lambda each: each.key)
    return Reason.NO_LEASE, short[0][0], Wanting(tuple(lacking_all))


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
        rule = rule_of(books_of, line)
        excuse, excused = line.excuse, added
        if excuse is Excuse.NONE and _overdraws(rule, counter, added, books_of, critical=critical):
            # From now on the whole line is excused, so that what closes it is excused with it.
            excuse = Excuse.UNLEASED if rule and not rule.shadow else Excuse.SHADOW
            excused = line.hold + added
        reserved = 0
        if rule is not None and critical and excuse is Excuse.NONE:
            reserved = from_reserve(rule, counter, added)
        posted = books.post(
            counter,
            rule,
            reserved=added,
            reserve_reserved=reserved,
            granted=excused if excuse is Excuse.GRANTED else 0,
            shadow=excused if excuse is Excuse.SHADOW else 0,
            unadmitted=excused if excuse is Excuse.UNLEASED else 0,
            wall_ns=now.wall_ns,
        )
        books.write(changes, rule, line.key, posted, critical=critical, now=now)
        reserve_hold = line.reserve_hold + reserved
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


def _overdraws(
    rule: BudgetRule | None, counter: Counter, added: int, books_of: Ledgered, *, critical: bool
) -> bool:
    """Tell whether the addition does not fit: into a limit in shadow, or into a lease."""
    if rule is None:
        return False
    room = room_left(rule, counter, critical=critical, in_tenure=books_of.in_tenure)
    return room is not None and added > room
