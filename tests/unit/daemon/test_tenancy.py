from costd.daemon.ledger import Ledger
from costd.daemon.tenancy import Situation, Tenancy
from costd.model.policy import PolicySet
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
