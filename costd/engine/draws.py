"""Settle an allowance in part, call by call, and give back what nobody drew."""

from collections.abc import Sequence

import msgspec

from costd.engine import books, keys
from costd.engine.changes import Changes, Family
from costd.engine.resolve import (
    Ledgered,
    Report,
    is_critical,
    refund,
    reversal,
    rule_of,
)
from costd.model.allowance import NOTHING, Allowance, AllowanceState, Sums
from costd.model.counter import EMPTY_COUNTER
from costd.model.reservation import CounterLine, Reservation, ReservationState

RATE_UNITS = {"requests": "calls", "tokens": "tokens", "nusd": "nusd"}
"""Kinds of rates that allowances draw on, and the budget unit that counts the same."""


class Draw(msgspec.Struct, frozen=True):
    """One call that ended: what it drew, and what it really used; a voided one used nothing."""

    held: Sums
    used: Sums


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """One call that a client says has ended."""

    allowance_id: bytes
    ask_id: str
    held: Sums
    report: Report
    cost_known: bool
    voided: bool = False
    problem: str = ""
    """What could not be read of it; it is charged at its hold then."""
    labels: dict[str, str] = {}
    cost_kind: str = ""
    prompt_tokens: int | None = None
    max_output_tokens: int | None = None


def is_open_ended(allowance: Allowance) -> bool:
    """Tell whether it may have been drawn further than is known."""
    return allowance.state is AllowanceState.OPEN or allowance.presumed


def bound_of(allowance: Allowance) -> Sums:
    """What all draws together can have taken, as far as anybody knows."""
    return allowance.granted if is_open_ended(allowance) else allowance.drawn


def settle_draws(
    held: Reservation, draws: Sequence[Draw], books_of: Ledgered
) -> tuple[Reservation, Changes]:
    """Turn the holds of ended calls into charges; the rest of the allowance stays as it is.

    Shape:   pure; one write per counter and bucket, however many draws there are. The draws lie
             within what the reservation holds, or held when it expired.
    Ensures: reserved falls by exactly what was drawn; settled rises by what was used, `overrun`
             by what each call used beyond its own hold. After an expiry, which charged the
             holds, the truth replaces them, and what exceeds them counts as `late`; what the
             expiry's usage event said of them is reversed.
    """
    changes, now = Changes(), books_of.now
    expired = held.state is not ReservationState.HELD
    drawn, lines = NOTHING, []
    for draw in draws:
        drawn = drawn.plus(draw.held)
    critical = is_critical(books_of, held)
    for line in held.counters:
        unit, hold = line.unit, drawn.of(line.unit)
        used = sum(draw.used.of(unit) for draw in draws)
        over = sum(max(0, draw.used.of(unit) - draw.held.of(unit)) for draw in draws)
        counter = books_of.state.counter(line.key)
        lines.append(line if expired else CounterLine(line.key, unit, max(0, line.hold - hold)))
        if counter is None or (counter.settled if expired else counter.reserved) < hold:
            continue  # its window ended so long ago that the books are closed
        rule = rule_of(books_of, line)
        posted = books.post(
            counter,
            rule,
            settled=used - hold if expired else used,
            reserved=0 if expired else -hold,
            overrun=0 if expired else over,
            late=over if expired else 0,
            wall_ns=now.wall_ns,
        )
        books.write(changes, rule, line.key, posted, critical=critical, now=now)
    if expired and drawn != NOTHING:
        taken = reversal(
            held,
            now,
            cost_nusd=drawn.amount_nusd,
            hold_nusd=drawn.amount_nusd,
            calls_count=drawn.calls_count,
        )
        changes.usage.append(taken)
    if not expired:
        for rate_line in held.rates:
            unit = RATE_UNITS[rate_line.unit]
            used = sum(draw.used.of(unit) for draw in draws)
            refund(changes, books_of, rate_line, drawn.of(unit) - used)
    return _less(held, drawn, tuple(lines), expired=expired), changes


def release(
    held: Reservation, undrawn: Sums, books_of: Ledgered, *, due_ns: int
) -> tuple[Reservation, Changes]:
    """Give back what nobody drew; what is in flight stays reserved until `due_ns`.

    Shape:   pure; a reservation of which nothing is left in flight is closed.
    """
    changes, now = Changes(), books_of.now
    critical = is_critical(books_of, held)
    lines = []
    for line in held.counters:
        back = min(undrawn.of(line.unit), line.hold)
        lines.append(CounterLine(line.key, line.unit, line.hold - back))
        counter = books_of.state.counter(line.key)
        if not back or counter is None or counter.reserved < back:
            continue
        rule = rule_of(books_of, line)
        posted = books.post(counter, rule, reserved=-back, wall_ns=now.wall_ns)
        books.write(changes, rule, line.key, posted, critical=critical, now=now)
    for rate_line in held.rates:
        refund(changes, books_of, rate_line, undrawn.of(RATE_UNITS[rate_line.unit]))
    kept = _less(held, undrawn, tuple(lines), expired=False)
    changes.puts.append((Family.DUE, keys.due_key(held.due_ns, held.reservation_id), None))
    changes.puts.append((Family.DUE, keys.due_key(due_ns, held.reservation_id), b""))
    return msgspec.structs.replace(kept, due_ns=due_ns), changes


def charge_unadmitted(held: Reservation, used: Sums, books_of: Ledgered) -> Changes:
    """Charge what a client spent beyond what it was granted: the money is gone all the same."""
    changes, now = Changes(), books_of.now
    for line in held.counters:
        rule = rule_of(books_of, line)
        amount = used.of(line.unit)
        posted = books.post(
            books_of.state.counter(line.key) or EMPTY_COUNTER,
            rule,
            settled=amount,
            unadmitted=amount,
            wall_ns=now.wall_ns,
        )
        critical = is_critical(books_of, held)
        books.write(changes, rule, line.key, posted, critical=critical, now=now)
    return changes


def _less(
    held: Reservation, gone: Sums, lines: tuple[CounterLine, ...], *, expired: bool
) -> Reservation:
    """The reservation without what is settled or given back."""
    if expired:
        return held
    before, ceiling = held.hold_nusd, held.ceiling_nusd
    hold = max(0, before - gone.amount_nusd)
    if ceiling is not None:  # what calls may cost beyond their holds goes with them
        ceiling = hold + (ceiling - before) * hold // max(1, before)
    return msgspec.structs.replace(held, counters=lines, hold_nusd=hold, ceiling_nusd=ceiling)
