"""Hold the books against what the callers saw."""

from collections import Counter as Tally
from collections.abc import Iterator

from bench.journal import Entry, Journal
from costd.daemon.books.totals import Totals
from costd.engine import keys
from costd.engine.changes import Family
from costd.engine.invariants import books_problems
from costd.model.policy import Budget, PolicySet
from costd.model.reservation import Reservation, ReservationState
from costd.store.port import Store

Sums = dict[tuple[str, str], tuple[int, int]]
"""(budget, per key) → (reserved, settled)."""


def discrepancies(store: Store, policy: PolicySet, journal: Journal) -> list[str]:
    """List everything in which books and callers differ, or the books contradict themselves.

    Shape:   reads only; nothing may write meanwhile, and no ask may be without an answer.
    Ensures: empty means that every answered decision and closing is in the books, none twice,
             nothing else is, and reserved and settled are what the callers saw.
    """
    stored = dict(store.scan(Family.RESERVATIONS))
    return [
        *journal.complaints,
        *_of_decisions(stored, journal),
        *_of_usage(store, journal),
        *_of_counters(store, policy, journal),
        *_of_totals(store, journal),
        *_of_due(store, stored),
        *books_problems(store.scan(Family.COUNTERS), stored.values()),
    ]


def _of_decisions(stored: dict[bytes, Reservation], journal: Journal) -> Iterator[str]:
    """Compare reservations one by one; then nothing may be left over."""
    left = dict(stored)
    for entry in journal.answered:
        held = left.pop(entry.identity, None)
        name = f"{entry.caller} {entry.ask_id}"
        if held is None:
            if entry.is_held:
                yield f"{name}: was told that it holds {entry.hold_nusd}; no reservation is there"
            continue
        if not entry.is_held:
            yield f"{name}: was refused, but a reservation of {held.hold_nusd} is there"
            continue
        seen = (
            entry.reservation_id,
            *(entry.verdict, entry.model, entry.hold_nusd),
            *(entry.state, entry.cost_nusd),
        )
        decision = held.decision
        booked = (
            held.reservation_id.hex(),
            *(int(decision.verdict), decision.model, held.hold_nusd),
            *(held.state, held.cost_nusd),
        )
        if seen != booked:
            yield f"{name}: saw {seen}, the books say {booked}"
    for held in left.values():
        yield f"{held.caller} {held.ask.ask_id}: a reservation that no caller was told of"


def _of_usage(store: Store, journal: Journal) -> Iterator[str]:
    """Every settlement is one usage event, every usage event one settlement."""
    events = list(store.scan(Family.USAGE))
    booked = Tally((event.reservation_id.hex(), event.cost_nusd) for _, event in events)
    seen = Tally(
        (entry.reservation_id, entry.cost_nusd)
        for entry in journal.answered
        if entry.state is ReservationState.SETTLED
    )
    for (identity, cost_nusd), count in (seen - booked).items():
        yield f"reservation {identity}: settled at {cost_nusd}, but {count} usage event is missing"
    for (identity, cost_nusd), count in (booked - seen).items():
        yield f"reservation {identity}: {count} usage event of {cost_nusd} too many"
    numbers = [int.from_bytes(key, "big") for key, _ in events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield "the sequence numbers of usage events have gaps"


def _of_counters(store: Store, policy: PolicySet, journal: Journal) -> Iterator[str]:
    """Reserved and settled of every counter are the sums of what the callers saw."""
    names = {keys.budget_tag(budget): budget.budget_id for budget in policy.budgets}
    booked: Sums = {}
    for key, counter in store.scan(Family.COUNTERS):
        _, tag, per = keys.split_counter_key(key)
        booked[names[tag], per] = (counter.reserved, counter.settled)
    seen = _sums(policy, journal)
    for name in sorted(seen.keys() | booked.keys()):
        expected, found = seen.get(name, (0, 0)), booked.get(name, (0, 0))
        if expected != found:
            yield f"budget {name}: callers saw (reserved, settled) {expected}, books say {found}"


def _sums(policy: PolicySet, journal: Journal) -> Sums:
    """Add up what the callers saw, without asking costd's rules."""
    sums: Sums = {}
    for entry in journal.answered:
        if not entry.is_held:
            continue
        labels = {"project": entry.project, "user": entry.user}
        for budget in policy.budgets:
            if not budget.selector.holds(labels):
                continue
            reserved, settled = _amounts(entry, budget)
            per = ",".join(f"{name}={labels[name]}" for name in budget.per)
            before = sums.get((budget.budget_id, per), (0, 0))
            sums[budget.budget_id, per] = (before[0] + reserved, before[1] + settled)
    return sums


def _amounts(entry: Entry, budget: Budget) -> tuple[int, int]:
    """What one entry adds to (reserved, settled)."""
    if entry.state is ReservationState.HELD:
        return (entry.hold_nusd if budget.unit == "nusd" else 1, 0)
    if entry.state is ReservationState.SETTLED:
        return (0, entry.cost_nusd if budget.unit == "nusd" else 1)
    return 0, 0


def _of_totals(store: Store, journal: Journal) -> Iterator[str]:
    """What the daemon keeps instead of counting is what counting finds."""
    totals = Totals.load(store)
    open_entries = [
        entry
        for entry in journal.answered
        if entry.is_held and entry.state is ReservationState.HELD
    ]
    seen = (len(open_entries), sum(entry.hold_nusd for entry in open_entries))
    if seen != (totals.open_count, totals.reserved_nusd):
        yield (
            f"callers hold (count, nano-USD) {seen}; "
            f"the totals say {(totals.open_count, totals.reserved_nusd)}"
        )


def _of_due(store: Store, stored: dict[bytes, Reservation]) -> Iterator[str]:
    """Every reservation is due once, so that each will expire or be forgotten."""
    due = Tally(key for key, _ in store.scan(Family.DUE))
    expected = Tally(keys.due_key(held.due_ns, identity) for identity, held in stored.items())
    for key, count in ((due - expected) + (expected - due)).items():
        yield f"due entry {key.hex()}: {count} too many or too few"
