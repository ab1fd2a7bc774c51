import pytest

from costd.engine import keys
from costd.engine.invariants import books_problems, counter_problem
from costd.model.ask import Ask
from costd.model.counter import Counter
from costd.model.decision import Decision, Reason, Verdict
from costd.model.reservation import CounterLine, Reservation, ReservationState

KEY = keys.window_prefix(7, b"budget-1") + b"user=ann"


def reservation(*lines: CounterLine, state: ReservationState = ReservationState.HELD):
    return Reservation(
        reservation_id=b"r",
        caller="",
        ask=Ask(ask_id="a"),
        decision=Decision(verdict=Verdict.ALLOW, reason=Reason.OK, ask_id="a"),
        state=state,
        counters=lines,
        rates=(),
        hold_nusd=0,
        ceiling_nusd=None,
        admitted_ns=0,
        admitted_steady_ns=0,
        due_ns=0,
    )


@pytest.mark.parametrize(
    "counter",
    [
        Counter(),
        Counter(settled=5, reserved=5, limit=10),
        Counter(settled=50, limit=-1),
        *(
            Counter(settled=12, limit=10, **{cause: 2})
            for cause in ("overrun", "granted", "lowered", "late", "unadmitted", "shadow")
        ),
    ],
)
def test_sound_counters_have_no_problem(counter: Counter):
    assert counter_problem(counter) is None


@pytest.mark.parametrize(
    ("counter", "problem"),
    [
        (Counter(settled=11, limit=10), "11 used of 10, of which only 0 is excused"),
        (Counter(settled=13, limit=10, late=1), "13 used of 10, of which only 1 is excused"),
        (Counter(overrun=-1), "overrun below zero"),
        (Counter(settled=1, reserve_settled=2), "more was drawn from the reserve than was used"),
    ],
)
def test_what_stands_past_its_limit_without_a_cause_is_found(counter: Counter, problem: str):
    assert counter_problem(counter) == problem
    (found,) = books_problems([(KEY, counter)], [])
    assert found == f"counter {b'budget-1'.hex()} user=ann ending 7: {problem}"


def test_reserved_is_what_open_reservations_hold():
    held = reservation(CounterLine(KEY, "nusd", 5))
    closed = reservation(CounterLine(KEY, "nusd", 5), state=ReservationState.SETTLED)
    assert books_problems([(KEY, Counter(reserved=10))], [held, held, closed]) == []
    (problem,) = books_problems([(KEY, Counter(reserved=9))], [held, held])
    assert problem.endswith("reserved 9, but open reservations hold 10")
    (problem,) = books_problems([], [held])
    assert problem == f"counter {KEY.hex()} is missing, but 5 is held on it"
    assert books_problems([], [reservation(CounterLine(KEY, "nusd", 0))]) == []


def test_a_counter_tells_what_is_used_and_what_is_excused():
    counter = Counter(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    assert (counter.used, counter.reserve_used, counter.excused) == (3, 7, 45)
