import pytest

from costd.daemon.books.ledger import Ledger
from costd.daemon.fleet.outbox import Outbox
from costd.engine import keys
from costd.engine.changes import Family
from costd.errors import StoreUnavailable
from costd.model.ask import Ask
from costd.policy import parse_policy
from costd.testing import FakeClock, MemoryStore
from costd.wire.pb import fleet_pb2 as pb

POLICY = parse_policy(
    "version: 1\ntask_classes: {draft: {}}\ndefault_task_class: draft\n"
    "budgets: [{id: b, window: total, limit: $100, share: host}]",
    "policy.yaml",
)


class Books:
    """A daemon's usage events, each of another cost, and what its outbox sends of them."""

    def __init__(self):
        self.store = MemoryStore()
        self.clock = FakeClock()
        self.ledger = Ledger(self.store, POLICY, self.clock, in_fleet=True)
        self.outbox = Outbox(self.ledger)
        self.sent = []

    def spend(self, *costs_nusd):
        for cost_nusd in costs_nusd:
            ask = Ask(ask_id=f"ask-of-{cost_nusd:09}", estimated_cost_nusd=1_000)
            decision = self.ledger.admit(ask).decision
            self.ledger.settle(decision.reservation_id, cost_nusd=cost_nusd)

    def lose(self, *sequences):
        self.store.commit([(Family.USAGE, keys.sequence_key(each), None) for each in sequences])

    def enrolled(self, stored):
        self.outbox.close_gap(stored)
        self.outbox.connected(self.sent.append, 1, stored)
        self.outbox.tick()
        return self.batches()

    def sends_next(self, *, stored=None):
        """A second later, with a receipt before or without."""
        self.sent.clear()
        if stored is not None:
            self.outbox.receipted(pb.UsageReceipt(epoch=1, sequence=stored))
        self.clock.advance(seconds=1)
        self.outbox.tick()
        return self.batches()

    def batches(self):
        return [
            [(event.sequence, event.cost_nusd) for event in batch.events] for batch in self.sent
        ]


@pytest.fixture
def books():
    made = Books()
    made.spend(1, 2, 3, 4, 5)
    return made


def test_events_are_sent_from_behind_those_that_are_stored(books):
    assert books.enrolled(stored=2) == [[(3, 3), (4, 4), (5, 5)]]


def test_a_gap_right_behind_what_is_stored_is_closed(books):
    books.lose(3)
    assert books.enrolled(stored=2) == [[(3, 4), (4, 5)]]
    books.spend(6)
    assert books.ledger.totals.usage_seq == 5


def test_what_is_moved_is_not_counted_as_spent_again(books):
    def charged():
        return sum(each.charged_nusd for each in books.ledger.tallies.charges.values())

    books.lose(3)
    assert charged() == 1 + 2 + 3 + 4 + 5
    assert books.enrolled(stored=2) == [[(3, 4), (4, 5)]]
    assert charged() == 1 + 2 + 3 + 4 + 5


def test_a_later_gap_ends_a_batch_and_is_closed_once_that_is_stored(books):
    books.lose(4)
    assert books.enrolled(stored=1) == [[(2, 2), (3, 3)]]
    assert books.sends_next() == []
    assert books.sends_next(stored=2) == []
    assert books.sends_next(stored=3) == [[(4, 5)]]
    assert books.sends_next(stored=4) == []
    assert books.outbox.waiting_count == 0


def test_what_is_lost_behind_all_that_is_left_is_waited_for_no_more_once_that_is_stored(books):
    books.lose(2, 3, 4, 5)  # by a power failure; then a backup brings back a database without any
    assert books.enrolled(stored=0) == [[(1, 1)]]
    assert books.sends_next(stored=1) == []
    assert books.outbox.waiting_count == 0
    books.spend(6)
    assert books.sends_next() == [[(2, 6)]]


def test_what_is_lost_at_the_end_is_waited_for_no_more(books):
    books.lose(4, 5)
    assert books.enrolled(stored=3) == []
    assert books.outbox.waiting_count == 0
    books.spend(6)
    assert books.enrolled(stored=3) == [[(4, 6)]]


@pytest.mark.parametrize("trimmed", [(1, 2, 3), (1, 2, 3, 4, 5)])
def test_what_was_trimmed_is_no_gap(books, trimmed):
    books.lose(*trimmed)
    assert books.outbox.first_sequence() == len(trimmed) + 1
    books.enrolled(stored=1)
    assert books.ledger.totals.usage_seq == 5


def test_a_receipt_of_this_epoch_says_what_is_stored(books):
    books.enrolled(stored=0)
    books.outbox.receipted(pb.UsageReceipt(epoch=2, sequence=4))
    assert books.outbox.waiting_count == 5
    books.outbox.receipted(pb.UsageReceipt(epoch=1, sequence=4))
    assert books.outbox.waiting_count == 1


def test_on_a_full_disk_nothing_is_moved_and_no_number_is_given_twice(books, monkeypatch):
    def refuse(*_):
        raise StoreUnavailable("no space left on device")

    books.lose(3)
    with monkeypatch.context() as full:
        full.setattr(books.store, "commit", refuse)
        with pytest.raises(StoreUnavailable, match="no space"):
            books.outbox.close_gap(2)
    books.spend(6)
    assert books.ledger.totals.usage_seq == 6
    assert books.enrolled(stored=2) == [[(3, 4), (4, 5), (5, 6)]]
