"""The rules of the books, checked in tests, by the demo and by `costctl status`."""

from collections.abc import Iterable

from costd.engine import keys
from costd.model.counter import Counter
from costd.model.reservation import Reservation, ReservationState


def counter_problem(counter: Counter) -> str | None:
    """Check invariant I1 on one counter: nothing stands past its limit without a cause."""
    amounts = [name for name in counter.__struct_fields__ if name not in {"limit", "lease"}]
    negative = [name for name in amounts if getattr(counter, name) < 0]
    if negative:
        return f"{', '.join(negative)} below zero"
    if counter.limit >= 0 and counter.used > counter.limit + counter.excused:
        return f"{counter.used} used of {counter.limit}, of which only {counter.excused} is excused"
    if counter.reserve_used > counter.used:
        return "more was drawn from the reserve than was used"
    return None


def books_problems(
    counters: Iterable[tuple[bytes, Counter]], reservations: Iterable[Reservation]
) -> list[str]:
    """Check every counter, and that reserved is exactly what open reservations hold (I2)."""
    reserved: dict[bytes, int] = {}
    for reservation in reservations:
        if reservation.state is ReservationState.HELD:
            for line in reservation.counters:
                reserved[line.key] = reserved.get(line.key, 0) + line.hold
    problems = []
    for key, counter in counters:
        end_ns, tag, per = keys.split_counter_key(key)
        name = f"counter {tag.hex()} {keys.shown(per)} ending {end_ns}"
        problem = counter_problem(counter)
        if problem:
            problems.append(f"{name}: {problem}")
        held = reserved.pop(key, 0)
        if held != counter.reserved:
            problems.append(
                f"{name}: reserved {counter.reserved}, but open reservations hold {held}"
            )
    problems += [
        f"counter {key.hex()} is missing, but {held} is held on it"
        for key, held in reserved.items()
        if held
    ]
    return problems
