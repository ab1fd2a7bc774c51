import contextlib

import pytest

from costd.daemon.books.ledger import Ledger
from costd.daemon.fleet.not_lent import NotLent
from costd.daemon.fleet.reports import STANDS_COUNT_MAX
from costd.daemon.fleet.tenancy import TIDY_EVERY_NS, Situation, Tenancy
from costd.engine import keys
from costd.engine.changes import Family
from costd.engine.resolve import Report
from costd.errors import StoreUnavailable
from costd.model.ask import Ask
from costd.model.grant import GrantRefusal
from costd.model.lease import Lease
from costd.model.policy import PolicySet
from costd.model.time import NEVER_NS, NS_PER_S
from costd.policy import parse_policy
from costd.testing import FakeClock, MemoryStore
from costd.wire.pb import fleet_pb2 as pb


def tenancy_on(store):
    ledger = Ledger(store, PolicySet(revision="r1"), FakeClock(), in_fleet=True)
    return Tenancy(ledger, daemon_id="d1", situation=Situation(name="d1", boot_id="boot"))


def enrol_of(tenancy):
    said = []
    tenancy.connected(said.append)
    return said[0].enrol


def test_books_that_are_told_to_be_late_say_so_and_name_the_epoch_they_were_told():
    store = MemoryStore()
    tenancy = tenancy_on(store)
    assert not enrol_of(tenancy).books_are_old
    tenancy.receive(pb.ToDaemon(late=pb.LateEnrol(epoch=7)))
    tenancy.disconnected()
    for again in (tenancy, tenancy_on(store)):
        enrol = enrol_of(again)
        assert (enrol.books_are_old, enrol.epoch) == (True, 7)


def test_who_is_enrolled_is_not_told_to_be_late():
    tenancy = tenancy_on(MemoryStore())
    enrol_of(tenancy)
    tenancy.receive(pb.ToDaemon(welcome=pb.Admittance(epoch=3)))
    tenancy.receive(pb.ToDaemon(late=pb.LateEnrol(epoch=7)))
    tenancy.disconnected()
    enrol = enrol_of(tenancy)
    assert (enrol.books_are_old, enrol.epoch) == (False, 3)


def test_counters_are_marked_with_the_epoch_of_enrols_that_do_not_state_them():
    store = MemoryStore()

    def marks_of(tenancy, *names):
        tenancy.ledger.account_anew(names)
        return [dict(store.scan(Family.LEASES))[name] for name in names]

    tenancy = tenancy_on(store)
    assert marks_of(tenancy, b"before any") == [b"\0" * 8]
    enrol_of(tenancy)
    tenancy.receive(pb.ToDaemon(welcome=pb.Admittance(epoch=5)))
    assert marks_of(tenancy, b"admitted, and not heard") == [b"\0" * 8]
    tenancy.report()
    tenancy.receive(pb.ToDaemon(receipt=pb.ReportReceipt(epoch=5, sequence=1)))
    assert marks_of(tenancy, b"heard") == [b""]
    tenancy.disconnected()
    assert marks_of(tenancy, b"cut off") == [b""]
    enrol_of(tenancy)
    assert marks_of(tenancy, b"joining again") == [b"\0" * 7 + b"\5"]
    assert marks_of(tenancy_on(store), b"restarted") == [b"\0" * 7 + b"\5"]


def test_a_reply_shows_that_the_coordinator_has_heard():
    store = MemoryStore()
    tenancy = tenancy_on(store)
    enrol_of(tenancy)
    tenancy.receive(pb.ToDaemon(welcome=pb.Admittance(epoch=5)))
    tenancy.receive(pb.ToDaemon(reply=pb.LeaseReply(epoch=5, request_id="r")))
    tenancy.ledger.account_anew([b"heard"])
    assert dict(store.scan(Family.LEASES)) == {b"heard": b""}


def limited_to(calls_count):
    budget = f"{{id: b, window: total, limit: {calls_count} calls}}"
    text = f"version: 1\ntask_classes: {{t: {{}}}}\nunmatched: allow\nbudgets: [{budget}]"
    return parse_policy(text, "p")


def fleet_ledger(store):
    return Ledger(store, limited_to(100), FakeClock(), in_fleet=True)


def test_a_daemon_tells_of_all_its_counters_where_the_coordinator_has_forgotten():
    store = MemoryStore()
    ledger = fleet_ledger(store)
    [rule] = ledger.rules.budgets.values()
    key, granted = rule.counter_key({}, 0), b"\xff" * 8 + rule.tag + b"never arrived"
    ledger.set_leases({key: Lease(amount=3, version=1)})
    ledger.account_no_longer([key])
    tenancy = Tenancy(ledger, daemon_id="d1", situation=Situation(name="d1", boot_id="boot"))
    said = []
    tenancy.connected(said.append)
    assert not said.pop().enrol.stands
    levels = [pb.Level(counter_key=granted)]
    welcome = pb.Admittance(epoch=4, has_forgotten=True, levels=levels)
    tenancy.receive(pb.ToDaemon(welcome=welcome))
    told = {stand.counter_key: stand.amount for stand in said[0].report.stands}
    assert told == {key: 3, granted: 0}
    # It goes on until that is receipted, over a restart.
    again = Tenancy(fleet_ledger(store), daemon_id="d1", situation=Situation(boot_id="boot"))
    assert {stand.counter_key for stand in enrol_of(again).stands} == {key, granted}


@pytest.mark.parametrize(("limit", "kept"), [(99, 0), (100, 60), (101, 60)])
def test_what_was_lent_by_a_limit_that_was_cut_is_given_back_at_once(limit, kept):
    ledger = fleet_ledger(MemoryStore())
    [rule] = ledger.rules.budgets.values()
    key = rule.counter_key({}, 0)
    tenancy = Tenancy(ledger, daemon_id="d1", situation=Situation(name="d1", boot_id="boot"))
    ledger.set_leases({key: Lease(amount=60, limit=100, version=1)})
    said = []
    tenancy.connected(said.append)
    ledger.swap_policy(limited_to(limit), actor="ops")
    tenancy.policy_changed()  # before it is enrolled there is nobody to tell
    tenancy.receive(pb.ToDaemon(welcome=pb.Admittance(epoch=3)))
    said.clear()
    tenancy.policy_changed()
    told = [stand.amount for message in said for stand in message.report.stands]
    assert told == ([] if kept else [0])
    assert ledger.lease(key).amount == kept


def test_counters_are_told_in_turn_where_more_change_all_the_time_than_a_report_holds():
    ledger = fleet_ledger(MemoryStore())
    [rule] = ledger.rules.budgets.values()
    busy = [rule.counter_key({}, 0) + b"%04d" % n for n in range(2 * STANDS_COUNT_MAX + 7)]
    tenancy = Tenancy(ledger, daemon_id="d1", situation=Situation(name="d1", boot_id="boot"))
    said = []
    tenancy.connected(said.append)
    tenancy.receive(pb.ToDaemon(welcome=pb.Admittance(epoch=3)))
    said.clear()
    for _ in range(3):
        ledger.fleet_changed.update(busy)
        tenancy.report()
    told = [[stand.counter_key for stand in message.report.stands] for message in said]
    assert [len(keys) for keys in told] == [STANDS_COUNT_MAX] * 3
    assert [key for keys in told for key in keys][: len(busy)] == busy


def test_what_nobody_has_any_more_is_forgotten_with_its_window():
    ledger = fleet_ledger(MemoryStore())
    tenancy = Tenancy(ledger, daemon_id="d1", situation=Situation(name="d1", boot_id="boot"))
    tenancy.connected(lambda _: None)
    tenancy.receive(pb.ToDaemon(welcome=pb.Admittance(epoch=3)))
    now_ns = ledger.clock.now().wall_ns
    over, lasting = (
        keys.window_prefix(end_ns, b"t" * keys.TAG_BYTES) for end_ns in (now_ns + 1, NEVER_NS)
    )
    for key in (over, lasting):
        tenancy.borrowing.not_lent.exhaust([key])
        tenancy.borrowing.not_lent.refuse(key, GrantRefusal.EXPIRED)
    ledger.clock.advance(TIDY_EVERY_NS / NS_PER_S)
    tenancy.tick()
    assert (ledger.state.is_exhausted(over), ledger.state.is_exhausted(lasting)) == (False, True)
    assert ledger.state.refused_grant(over) is None
    assert ledger.state.refused_grant(lasting) is GrantRefusal.EXPIRED


def test_of_endless_windows_the_one_that_was_spoken_of_longest_ago_is_forgotten_first():
    not_lent = NotLent(keys_count_max=2)
    for key in (b"a", b"b", b"a", b"c"):
        not_lent.exhaust([key])
        not_lent.refuse(key, GrantRefusal.EXPIRED)
    assert [*not_lent.exhausted] == [*not_lent.refused_grants] == [b"a", b"c"]


def test_an_enrol_names_the_newest_report_that_was_receipted():
    store = MemoryStore()
    tenancy = tenancy_on(store)
    enrol_of(tenancy)
    tenancy.receive(pb.ToDaemon(welcome=pb.Admittance(epoch=3)))
    tenancy.report()
    tenancy.report()
    tenancy.receive(pb.ToDaemon(receipt=pb.ReportReceipt(epoch=3, sequence=1)))
    tenancy.disconnected()
    for again in (tenancy, tenancy_on(store)):
        enrol = enrol_of(again)
        assert (enrol.epoch, enrol.heard_epoch, enrol.heard_sequence) == (3, 3, 1)


class FullDisk(MemoryStore):
    """A disk that has room, or none."""

    has_room = True

    def commit(self, puts):
        if not self.has_room:
            raise StoreUnavailable("the disk is full; make room")
        super().commit(puts)


def test_what_a_full_disk_kept_from_being_forgotten_the_next_receipt_lets_go():
    """Nobody tells of it again: the coordinator has it, and the stream goes on."""
    store = FullDisk()
    ledger = fleet_ledger(store)
    [rule] = ledger.rules.budgets.values()
    key = rule.counter_key({}, 0)
    tenancy = Tenancy(ledger, daemon_id="d1", situation=Situation(name="d1", boot_id="boot"))
    enrol_of(tenancy)
    tenancy.receive(pb.ToDaemon(welcome=pb.Admittance(epoch=3)))
    ledger.set_leases({key: Lease(amount=0, version=1)})
    ledger.fleet_changed.add(key)
    for sequence, has_room in ((1, False), (2, True)):
        tenancy.report()
        store.has_room = has_room
        with contextlib.nullcontext() if has_room else pytest.raises(StoreUnavailable):
            tenancy.receive(pb.ToDaemon(receipt=pb.ReportReceipt(epoch=3, sequence=sequence)))
        assert (key in ledger.lent.held) is not has_room
    assert dict(store.scan(Family.LEASES)) == {}


@pytest.mark.parametrize("asked", ["recalled", "idle"])
def test_what_a_full_disk_forbids_to_give_back_stays_held_and_all_else_is_told(asked):
    """An error would end the stream, and no other begins before there is room."""
    store = FullDisk()
    ledger = fleet_ledger(store)
    [rule] = ledger.rules.budgets.values()
    key = rule.counter_key({}, 0)
    tenancy = Tenancy(ledger, daemon_id="d1", situation=Situation(name="d1", boot_id="boot"))
    said = []
    tenancy.connected(said.append)
    tenancy.receive(pb.ToDaemon(welcome=pb.Admittance(epoch=3)))
    tenancy.receive(pb.ToDaemon(reply=pb.LeaseReply(epoch=3, request_id="r")))
    ledger.set_leases({key: Lease(amount=60, limit=100, version=1)})
    ledger.record(Ask(ask_id="x" * 32, task_class="t"), Report(cost_nusd=1), cost_known=True)

    tenancy.tick()
    said.clear()

    def give_back():
        if asked == "recalled":
            tenancy.receive(pb.ToDaemon(recall=pb.Recall(epoch=3, counter_keys=[key])))
        ledger.clock.advance(21)
        tenancy.tick()

    store.has_room = False
    give_back()
    assert ledger.lease(key).amount == 60
    assert any(message.HasField("report") for message in said)
    store.has_room = True
    give_back()
    assert ledger.lease(key).amount == 1


def sequences(store):
    return [int.from_bytes(key, "big") for key, _ in store.scan(Family.USAGE)]


@pytest.mark.parametrize(
    ("logged", "stored", "left"),
    [
        ([1, 2, 5, 6], 2, [1, 2, 3, 4]),
        ([1, 2, 5, 6], 1, [1, 2, 5, 6]),
        ([1, 2, 5, 6], 5, [1, 2, 5, 6]),
        ([5, 6], 2, [5, 6]),
        ([1, 2], 2, [1, 2]),
    ],
    ids=[
        "behind what is stored",
        "further on, once it is that far",
        "before it",
        "trimmed",
        "none",
    ],
)
def test_usage_moves_up_to_what_is_stored_where_all_have_lost_what_was_between(
    logged, stored, left
):
    store = MemoryStore()
    rows = [(Family.USAGE, keys.sequence_key(number), number) for number in logged]
    store.commit(rows)
    tenancy = tenancy_on(store)
    enrol_of(tenancy)
    welcome = pb.Admittance(epoch=3, usage_sequence=stored, has_forgotten=True)
    tenancy.receive(pb.ToDaemon(welcome=welcome))
    assert sequences(store) == left
    assert [event for _, event in store.scan(Family.USAGE)] == logged
