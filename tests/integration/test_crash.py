import random
import re

import msgspec
import pytest

from bench.audit import discrepancies
from bench.crash import POLICY, Outcome, main
from bench.journal import Entry, Journal
from costd.daemon.books.ledger import Ledger
from costd.engine.changes import Family
from costd.model.ask import Ask
from costd.model.reservation import ReservationState
from costd.policy import parse_policy
from costd.store.memory import MemoryStore
from costd.testing import FakeClock

POLICY_SET = parse_policy(POLICY, "crash policy")


def number_after(label, report):
    return int(re.search(rf"{re.escape(label)}\W*([\d,]+)", report)[1].replace(",", ""))


@pytest.mark.slow
def test_a_daemon_killed_under_load_keeps_every_answer_and_none_twice(capsys):
    exit_code = main(["--rounds", "5", "--seed", "11"])
    report = capsys.readouterr().out
    assert exit_code == 0, report
    assert "seed 11" in report
    assert number_after("kills (-9)", report) == 5
    assert number_after("that hit asks in flight", report) >= 3
    assert number_after("decisions answered", report) > 50


def test_a_run_whose_kills_hit_too_little_proves_nothing():
    outcome = Outcome(
        journal=Journal(), kills_count=5, asks_hit={1: 3, 4: 1}, problems=[], took_s=1.0
    )
    assert not outcome.hits_enough
    outcome.asks_hit[2] = 1
    assert outcome.hits_enough


# ---- the audit itself: whatever goes wrong in the books must not escape it ------------------


@pytest.fixture
def books():
    """A ledger that admitted and closed thirty asks, and the journal of their callers."""
    store, journal, chance = MemoryStore(), Journal(), random.Random(5)
    ledger = Ledger(store, POLICY_SET, FakeClock())
    for number in range(30):
        entry = Entry(
            caller=f"caller-{number % 3}",
            ask_id=f"ask-{number:020d}",
            project=chance.choice(("api", "web")),
            user=f"user-{number % 4}",
        )
        ask = Ask(
            ask_id=entry.ask_id,
            labels={"project": entry.project, "user": entry.user},
            estimated_cost_nusd=chance.randrange(1, 10**6),
        )
        decision = ledger.admit(ask, caller=entry.caller).decision
        entry.verdict, entry.model = int(decision.verdict), decision.model
        entry.reservation_id, entry.hold_nusd = decision.reservation_id.hex(), decision.hold_nusd
        if number % 3 == 1:
            entry.cost_nusd = entry.hold_nusd + 5
            ledger.settle(decision.reservation_id, cost_nusd=entry.cost_nusd)
            entry.state = ReservationState.SETTLED
        elif number % 3 == 2:
            ledger.void(decision.reservation_id)
            entry.state = ReservationState.VOIDED
        journal.entries.append(entry)
    return store, journal


def found(books):
    store, journal = books
    return "\n".join(discrepancies(store, POLICY_SET, journal))


def first(store, family):
    return next(iter(store.scan(family)))


def test_sound_books_have_no_discrepancies(books):
    assert found(books) == ""


def test_a_decision_that_is_gone_is_found(books):
    store, journal = books
    store.commit([(Family.RESERVATIONS, journal.entries[0].identity, None)])
    assert "no reservation is there" in found(books)


def test_a_reservation_nobody_was_told_of_is_found(books):
    _, journal = books
    del journal.entries[0]
    assert "no caller was told of" in found(books)


def test_a_refused_ask_that_holds_money_is_found(books):
    _, journal = books
    journal.entries[0].reservation_id = ""
    assert "was refused, but a reservation" in found(books)


def test_a_settlement_at_another_cost_is_found(books):
    _, journal = books
    journal.entries[1].cost_nusd += 1
    report = found(books)
    assert "the books say" in report
    assert "usage event is missing" in report


def test_a_settlement_that_is_gone_is_found(books):
    store, _ = books
    key, _ = first(store, Family.USAGE)
    store.commit([(Family.USAGE, key, None)])
    report = found(books)
    assert "usage event is missing" in report
    assert "gaps" in report


def test_a_settlement_booked_twice_is_found(books):
    store, _ = books
    _, event = first(store, Family.USAGE)
    store.commit([(Family.USAGE, (11).to_bytes(8, "big"), event)])
    assert "too many" in found(books)


def test_a_counter_that_is_off_by_a_nano_dollar_is_found(books):
    store, _ = books
    for key, counter in list(store.scan(Family.COUNTERS)):
        store.commit(
            [(Family.COUNTERS, key, msgspec.structs.replace(counter, settled=counter.settled + 1))]
        )
        assert "callers saw (reserved, settled)" in found(books)
        store.commit([(Family.COUNTERS, key, counter)])
    assert found(books) == ""


def test_totals_that_are_off_are_found(books):
    store, _ = books
    store.commit([(Family.META, b"totals", msgspec.msgpack.encode([1]))])
    assert "the totals say" in found(books)


def test_a_reservation_that_would_never_expire_is_found(books):
    store, _ = books
    key, _ = first(store, Family.DUE)
    store.commit([(Family.DUE, key, None)])
    assert "due entry" in found(books)


def test_what_callers_complained_of_is_told(books):
    _, journal = books
    journal.complain(journal.entries[0], "asked again, it was decided anew")
    assert "decided anew" in found(books)
