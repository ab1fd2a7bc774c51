"""Close a reservation: settle, void, expire; or enlarge it. Each touches exactly its own lines."""

from dataclasses import dataclass

import msgspec

from costd.engine import books, keys
from costd.engine.changes import Changes, Family
from costd.engine.ports import State
from costd.engine.rated import put_right
from costd.engine.rules import BudgetRule, Rules
from costd.errors import ReservationClosed
from costd.model.ask import name_problem
from costd.model.events import Alert, UsageEvent
from costd.model.money import AMOUNT_MAX, format_nusd
from costd.model.price import Price
from costd.model.reservation import (
    RESERVATION_MOVES,
    CounterLine,
    Excuse,
    Move,
    RateLine,
    Reservation,
    ReservationState,
)
from costd.model.time import Now
from costd.model.usage import CallOutcome, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgered:
    """What closing reads: state, the rules in force, the moment, and how long closed ones stay."""

    state: State
    rules: Rules
    now: Now
    closed_keep_ns: int

    @property
    def in_tenure(self) -> bool:
        """Whether what the coordinator has lent may be spent now."""
        return self.rules.in_fleet and self.now.steady_ns < self.state.leases_until_ns


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller says of a finished call; `cost_nusd` was priced as the admit was."""

    cost_nusd: int
    usage: Usage | None = None
    duration_ns: int = 0
    outcome: CallOutcome = CallOutcome.UNSPECIFIED
    retry_count: int = 0
    provider: str = ""
    model: str = ""
    price: Price | None = None
    """What the cost was computed from, where that is not the admit's price."""

    def problem(self) -> str | None:
        """Say which name is too long or cannot be printed; None if none is."""
        return name_problem("provider", self.provider) or name_problem("model", self.model)


def settle(held: Reservation, report: Report, books_of: Ledgered) -> tuple[Reservation, Changes]:
    """Close a reservation at its measured cost; a late one replaces the charge of its expiry.

    Shape:   pure; `held` is unchanged; Changes touches one counter per line of `held.counters`.
    Units:   `report.cost_nusd` whole nano-USD, rounded up by pricing.
    Ensures: reserved falls by the full hold, settled rises by the cost, even above the hold.
    Errors:  ReservationClosed if it was voided, or settled before.
    """
    state = move_of(held, Move.SETTLE)
    late = held.state is ReservationState.EXPIRED
    changes, now = Changes(), books_of.now
    charged = _measured(held, report.cost_nusd, report.usage)
    for line in held.counters:
        if late:
            _replace_charge(changes, books_of, held, line, charged[line.unit])
        else:
            _charge(changes, books_of, held, line, charged[line.unit])
    if not late:
        _settle_rates(changes, books_of, held, report)
    before = held.cost_nusd if late else held.hold_nusd
    _adjust_grant(changes, books_of, held, report.cost_nusd - before)
    over = report.cost_nusd - held.hold_nusd
    if over > 0 and report.cost_nusd > held.cost_nusd:  # an expiry may have told of it already
        changes.alerts.append(_overrun_alert(held, over, now))
    price_id = report.price.price_id if report.price is not None else ""
    closed = _close(
        changes, held, state, books_of, cost_nusd=report.cost_nusd, settled_price_id=price_id
    )
    if late:
        changes.usage.append(
            reversal(held, now, cost_nusd=before, hold_nusd=held.hold_nusd, usage=held.reported)
        )
    changes.usage.append(usage_event(held, report, now, closed_as="late" if late else "settled"))
    return closed, changes


def void(held: Reservation, books_of: Ledgered) -> tuple[Reservation, Changes]:
    """Close a reservation at zero, because the call never left; rates are refunded in full.

    Errors:  ReservationClosed if it is closed, or usage was reported.
    """
    state = move_of(held, Move.VOID)
    if held.reported is not None or held.reported_nusd:
        raise ReservationClosed(
            f"reservation {held.reservation_id.hex()} has reported usage, so the call did leave; "
            "settle it"
        )
    changes = Changes()
    for line in held.counters:
        _charge(changes, books_of, held, line, 0)
    for rate_line in held.rates:
        refund(changes, books_of, rate_line, rate_line.taken)
    _adjust_grant(changes, books_of, held, -held.hold_nusd, uses=-1)
    return _close(changes, held, state, books_of, cost_nusd=0), changes


def expire(
    held: Reservation, books_of: Ledgered, *, calls_count: int = 1
) -> tuple[Reservation, Changes]:
    """Close a reservation that nobody closed, at max(hold, reported): it was not free.

    Units:   `calls_count` more than one where it is what an allowance still had in flight.
    """
    state = move_of(held, Move.EXPIRE)
    changes, now = Changes(), books_of.now
    charges = expiry_charges(held)
    for line in held.counters:
        _charge(changes, books_of, held, line, charges[line.unit], clipped=True)
    cost_nusd = charges["nusd"]
    _adjust_grant(changes, books_of, held, cost_nusd - held.hold_nusd)
    closed = _close(changes, held, state, books_of, cost_nusd=cost_nusd)
    if cost_nusd > held.hold_nusd:
        changes.alerts.append(_overrun_alert(held, cost_nusd - held.hold_nusd, now))
    report = Report(cost_nusd=cost_nusd, usage=held.reported, outcome=CallOutcome.TIMEOUT)
    changes.usage.append(
        usage_event(held, report, now, closed_as="expired", calls_count=calls_count)
    )
    return closed, changes


def expiry_charges(held: Reservation) -> dict[str, int]:
    """What an expiry charges, by unit: the hold, or what was reported if that is more."""
    reported = held.reported.total_tokens if held.reported else 0
    tokens = next((line.hold for line in held.counters if line.unit == "tokens"), 0)
    return {
        "nusd": max(held.hold_nusd, held.reported_nusd),
        "tokens": max(tokens, reported),
        # Many, where what nobody closed is the rest of an allowance.
        "calls": next((line.hold for line in held.counters if line.unit == "calls"), 1),
    }


def move_of(held: Reservation, move: Move) -> ReservationState:
    """Find the state that a move leads to.

    Errors:  ReservationClosed where the table has none.
    """
    state = RESERVATION_MOVES[held.state].get(move)
    if state is None:
        raise ReservationClosed(
            f"reservation {held.reservation_id.hex()} is {held.state.name.lower()}; "
            f"it cannot be {_PAST[move]}"
        )
    return state


_PAST = {
    Move.SETTLE: "settled",
    Move.VOID: "voided",
    Move.EXPIRE: "expired",
    Move.EXTEND: "extended",
}


def _measured(held: Reservation, cost_nusd: int, usage: Usage | None) -> dict[str, int]:
    """What was really used, by unit; without token counts the hold's stand."""
    held_tokens = next((line.hold for line in held.counters if line.unit == "tokens"), 0)
    known = usage is not None and (
        usage.prompt_tokens is not None or usage.output_tokens is not None
    )
    tokens = usage.total_tokens if usage is not None and known else held_tokens
    return {"nusd": cost_nusd, "tokens": tokens, "calls": 1}


def _from_reserve(line: CounterLine, charged: int) -> int:
    """The part of a charge drawn from the protected reserve: what the general part lacks."""
    return max(0, min(charged, line.hold) - (line.hold - line.reserve_hold))


def _charge(
    changes: Changes,
    books_of: Ledgered,
    held: Reservation,
    line: CounterLine,
    charged: int,
    *,
    clipped: bool = False,
) -> None:
    """Turn one line's hold into a charge; an expiry, which may not fail, is clipped instead."""
    counter = books_of.state.counter(line.key)
    if counter is None or counter.reserved < line.hold:
        return  # its window ended so long ago that the books are closed; a record may reopen them
    rule = rule_of(books_of, line)
    if clipped:
        charged = min(charged, AMOUNT_MAX - counter.used + line.hold)
    over = charged - line.hold
    posted = books.post(
        counter,
        rule,
        settled=charged,
        reserved=-line.hold,
        reserve_settled=_from_reserve(line, charged),
        reserve_reserved=-line.reserve_hold,
        overrun=max(0, over) if line.excuse is Excuse.NONE else 0,
        granted=over if line.excuse is Excuse.GRANTED else 0,
        shadow=over if line.excuse is Excuse.SHADOW else 0,
        unadmitted=over if line.excuse is Excuse.UNLEASED else 0,
        wall_ns=books_of.now.wall_ns,
    )
    critical = is_critical(books_of, held)
    books.write(changes, rule, line.key, posted, critical=critical, now=books_of.now)


def _replace_charge(
    changes: Changes, books_of: Ledgered, held: Reservation, line: CounterLine, charged: int
) -> None:
    """Replace what an expiry charged by the truth; beyond the hold it counts as `late`."""
    counter = books_of.state.counter(line.key)
    before = expiry_charges(held)[line.unit]
    if counter is None or counter.settled < before:
        return  # as in `_charge`
    rule = rule_of(books_of, line)
    plain = line.excuse is Excuse.NONE
    posted = books.post(
        counter,
        rule,
        settled=charged - before,
        reserve_settled=_from_reserve(line, charged) - _from_reserve(line, before),
        overrun=-max(0, before - line.hold) if plain else 0,
        late=max(0, charged - line.hold) if plain else 0,
        granted=charged - before if line.excuse is Excuse.GRANTED else 0,
        shadow=charged - before if line.excuse is Excuse.SHADOW else 0,
        unadmitted=charged - before if line.excuse is Excuse.UNLEASED else 0,
        wall_ns=books_of.now.wall_ns,
    )
    critical = is_critical(books_of, held)
    books.write(changes, rule, line.key, posted, critical=critical, now=books_of.now)


def rule_of(books_of: Ledgered, line: CounterLine) -> BudgetRule | None:
    """Find the budget of a line, which the policy may have lost."""
    return books_of.rules.budget_of(line.key)


def is_critical(books_of: Ledgered, held: Reservation) -> bool:
    """Tell whether the class of a reservation is critical under the policy in force."""
    task_class = books_of.rules.policy.task_classes.get(held.ask.task_class)
    return task_class is not None and task_class.critical


def _settle_rates(changes: Changes, books_of: Ledgered, held: Reservation, report: Report) -> None:
    """Refund what a bucket gave too much, or take what it gave too little, into debt if need be."""
    usage = report.usage
    for line in held.rates:
        actual: int | None = None
        if line.unit == "nusd":
            actual = report.cost_nusd
        elif usage is not None:
            prompt, output = usage.prompt_tokens, usage.output_tokens
            if line.unit == "prompt_tokens":
                actual = prompt
            elif line.unit == "output_tokens":
                actual = output
            elif line.unit == "tokens" and (prompt is not None or output is not None):
                actual = usage.total_tokens
        if actual is not None and actual != line.taken:
            refund(changes, books_of, line, line.taken - actual)


def refund(changes: Changes, books_of: Ledgered, line: RateLine, units: int) -> None:
    """Refill a bucket by so many units, or take as many if negative, into debt if need be."""
    full_ns = put_right(books_of.rules, books_of.state, line, units, books_of.now.steady_ns)
    if full_ns is not None:
        changes.put(Family.RATES, line.key, full_ns)


def _adjust_grant(
    changes: Changes, books_of: Ledgered, held: Reservation, amount_nusd: int, *, uses: int = 0
) -> None:
    """Keep an override grant's use true to what its call cost."""
    grant_id = held.decision.grant_id
    used = books_of.state.grant(grant_id) if grant_id else None
    if used is None or not (amount_nusd or uses):
        return
    kept = msgspec.structs.replace(
        used,
        used_nusd=min(max(0, used.used_nusd + amount_nusd), AMOUNT_MAX),
        uses_count=max(0, used.uses_count + uses),
    )
    changes.put(Family.GRANTS, grant_id.encode(), kept)


def _close(
    changes: Changes,
    held: Reservation,
    state: ReservationState,
    books_of: Ledgered,
    *,
    cost_nusd: int,
    settled_price_id: str = "",
) -> Reservation:
    """Write the closed reservation, to be forgotten later."""
    keep_ns = books_of.closed_keep_ns
    if state is ReservationState.EXPIRED:
        keep_ns = books_of.rules.policy.late_settle_ns
    due_ns = books_of.now.steady_ns + keep_ns
    closed = msgspec.structs.replace(
        held,
        state=state,
        cost_nusd=cost_nusd,
        closed_ns=books_of.now.wall_ns,
        due_ns=due_ns,
        settled_price_id=settled_price_id,
    )
    changes.puts.append((Family.DUE, keys.due_key(held.due_ns, held.reservation_id), None))
    changes.puts.append((Family.DUE, keys.due_key(due_ns, held.reservation_id), b""))
    changes.puts.append((Family.RESERVATIONS, held.reservation_id, closed))
    return closed


def _overrun_alert(held: Reservation, over_nusd: int, now: Now) -> Alert:
    return Alert(
        raised_ns=now.wall_ns,
        kind="overrun",
        rule=held.decision.tightest_budget,
        key=held.decision.tightest_key,
        amount_nusd=over_nusd,
        message=(
            f"call {held.ask.ask_id} cost {format_nusd(over_nusd)} more than the "
            f"{format_nusd(held.hold_nusd)} held for it"
        ),
    )


def reversal(
    held: Reservation,
    now: Now,
    *,
    cost_nusd: int,
    hold_nusd: int,
    usage: Usage | None = None,
    calls_count: int = 1,
) -> UsageEvent:
    """Take back what the event of an expiry said, so that sums over events hold the truth alone.

    Shape:   the expiry's event again, or a part of it, with every amount negative: it lands in
             the same sums, whatever they are grouped by.
    """
    taken = usage.negative() if usage is not None else None
    report = Report(cost_nusd=-cost_nusd, usage=taken, outcome=CallOutcome.TIMEOUT)
    event = usage_event(held, report, now, closed_as="reversed", calls_count=-calls_count)
    return msgspec.structs.replace(event, hold_nusd=-hold_nusd)


def usage_event(
    held: Reservation, report: Report, now: Now, *, closed_as: str, calls_count: int = 1
) -> UsageEvent:
    """State what a closed call used and cost, for the outbox."""
    decision, price = held.decision, report.price
    return UsageEvent(
        reservation_id=held.reservation_id,
        ask=held.ask,
        tier=decision.tier,
        provider=report.provider or decision.provider,
        model=report.model or decision.model,
        cost_nusd=report.cost_nusd,
        hold_nusd=held.hold_nusd,
        admitted_ns=held.admitted_ns,
        settled_ns=now.wall_ns,
        usage=report.usage,
        price=price.source if price else decision.price,
        price_id=price.price_id if price else decision.price_id,
        reason=decision.reason,
        closed_as=closed_as,
        calls_count=calls_count,
        verdict=0 if closed_as == "recorded" else decision.verdict,
        duration_ns=report.duration_ns,
        outcome=report.outcome,
        retry_count=report.retry_count,
    )
