import pytest
from msgspec.structs import replace

from costd.coordinator.enrolling import check_enrol, has_forgotten, was_given_up
from costd.coordinator.rows import Daemon, given_up
from costd.errors import LateEnrol, NotPermitted
from costd.wire.pb import fleet_pb2 as pb

KNOWN = Daemon(daemon_id="d1", name="host-1", epoch=4, spoken_epoch=3)


def enrol(**fields):
    return pb.Enrol(daemon_id="d1", **fields)


@pytest.mark.parametrize("epoch", [3, 4, 9])
@pytest.mark.parametrize("books_are_old", [False, True])
def test_a_daemon_that_knows_what_it_said_last_may_enrol(epoch, books_are_old):
    check_enrol(KNOWN, enrol(epoch=epoch, books_are_old=books_are_old), "host-1")


@pytest.mark.parametrize("books_are_old", [False, True])
def test_an_enrol_from_before_what_was_said_since_is_late(books_are_old):
    with pytest.raises(LateEnrol, match="from before epoch 3") as raised:
        check_enrol(KNOWN, enrol(epoch=2, books_are_old=books_are_old), "host-1")
    assert raised.value.epoch == 3


def test_books_that_were_enrolled_under_another_name_are_refused():
    with pytest.raises(NotPermitted, match="'d1' is 'host-1', and this certificate says 'host-2'"):
        check_enrol(KNOWN, enrol(epoch=4), "host-2")


@pytest.mark.parametrize(
    ("fields", "forgotten"),
    [
        ({"epoch": 4, "heard_epoch": 3, "heard_sequence": 9}, False),
        ({"epoch": 4, "heard_epoch": 4, "heard_sequence": 6}, False),
        ({"epoch": 4, "heard_epoch": 4, "heard_sequence": 7}, True),
        ({"epoch": 5, "heard_epoch": 4, "heard_sequence": 6}, True),
        ({"epoch": 3, "heard_epoch": 3, "heard_sequence": 9}, False),
    ],
    ids=["an older epoch", "the newest report", "a later report", "a later epoch", "nothing new"],
)
def test_a_daemon_that_was_receipted_more_shows_that_the_database_has_forgotten(fields, forgotten):
    known = replace(KNOWN, spoken_epoch=4, sequence=6)
    assert has_forgotten(known, enrol(**fields)) is forgotten


def test_what_was_forgotten_is_known_until_the_daemon_has_spoken_of_it():
    known = replace(KNOWN, epoch=6, spoken_epoch=4, sequence=0)  # its Admittance was lost
    assert has_forgotten(known, enrol(epoch=5, heard_epoch=5, heard_sequence=1))


@pytest.mark.parametrize(
    ("fields", "forgotten"),
    [
        ({"epoch": 4, "heard_epoch": 4, "heard_sequence": 6}, False),
        ({"epoch": 4, "heard_epoch": 4, "heard_sequence": 7}, True),
        ({"epoch": 5, "heard_epoch": 4, "heard_sequence": 6}, True),
        ({"epoch": 3, "heard_epoch": 3, "heard_sequence": 9}, False),
    ],
    ids=["the newest report", "a later report", "the epoch it was given up in", "nothing new"],
)
def test_that_the_database_has_forgotten_is_seen_of_a_daemon_that_was_given_up(fields, forgotten):
    known = given_up(replace(KNOWN, spoken_epoch=4, sequence=6))
    assert given_up(known) == known
    assert has_forgotten(known, enrol(**fields)) is forgotten
    assert was_given_up(known, enrol(**fields)) is not forgotten


def test_a_daemon_that_was_not_given_up_was_not():
    assert not was_given_up(replace(KNOWN, sequence=0), enrol(epoch=4))
