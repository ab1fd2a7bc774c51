"""Files of a spool on a full disk, after a crash, and in the hands of several at once."""

import contextlib
import json
import resource
import threading

import grpc
import pytest
from attach_desk import Books, Wire
from costd_client import journal as journal_module
from costd_client.journal import Journal, leftovers
from costd_client.outbox import Delivery, Outbox
from costd_client.pb import admission_pb2 as pb
from costd_client.replay import replay
from costd_client.spool import Entry, Spool
from test_allowance_session import draw, facts, settle
from test_journal import Desk, die


@contextlib.contextmanager
def room_for(bytes_count):
    """Let no file grow beyond so many bytes: the last write that fits is cut, the next fails."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))


def entry(name, request=b"r"):
    return Entry(name, "Record", request)


@pytest.fixture
def wire(tmp_path):
    """A session with a journal, and an allowance to draw from."""
    wire = Wire(open_journal=lambda name: Journal(tmp_path, session_id=name, caller="me"))
    wire.open()
    draw(wire, facts())
    wire.poll(calls_count=10**6, amount_nusd=10**12)
    return wire


def end(wire, count, kind):
    """Draw so many calls and end them; returns their ids."""
    drawn = [draw(wire, kind) for _ in range(count)]
    for one in drawn:
        settle(wire, one)
    return [one.ask_id for one in drawn]


@pytest.fixture
def kind(wire):
    kind = facts()
    draw(wire, kind)
    return kind


def told(wire, folder, desk=None):
    """Tell of what was left, until the desk dies."""
    for left in leftovers(folder):
        try:
            replay(left, (desk or Desk(wire.books)).open_stream)
        except grpc.RpcError:
            left.drop()
        else:
            left.done()
    return wire.books.settled


def journal_of(folder):
    [path] = folder.glob("*.draws")
    return path


def test_an_end_that_a_full_disk_tore_does_not_take_the_next_along(wire, kind, tmp_path):
    first = end(wire, 1, kind)
    with room_for(journal_of(tmp_path).stat().st_size + 40):
        end(wire, 1, kind)
    third = end(wire, 1, kind)
    die(wire)
    assert sorted(told(wire, tmp_path)) == sorted(first + third)


@pytest.mark.parametrize("room", [0, 30])
def test_what_was_sent_under_a_number_that_the_disk_refused_is_not_charged_twice(
    wire, kind, tmp_path, room
):
    end(wire, 3, kind)
    wire.answers = False
    with room_for(journal_of(tmp_path).stat().st_size + room):
        wire.poll(after_s=0.03)
    later = end(wire, 2, kind)
    wire.books.book(wire.reports()[-1])
    die(wire)
    settled = told(wire, tmp_path)
    assert set(settled.values()) == {1}
    assert set(later) <= set(settled), "what ended since is kept again"


@pytest.mark.parametrize("room", [0, 300])
def test_a_file_that_cannot_be_written_anew_stays_as_it_is(wire, kind, tmp_path, monkeypatch, room):
    monkeypatch.setattr(journal_module, "BYTES_MAX", 10_000)
    end(wire, 200, kind)
    wire.answers = False
    wire.poll(after_s=0.03)
    end(wire, 50, kind)
    wire.poll(after_s=0.03)
    booked = pb.Acknowledgement(sequence=wire.reports()[-2].sequence)
    wire.books.book(wire.reports()[-2])
    with room_for(room):
        wire.say(acknowledgement=booked)
    assert [path.suffix for path in tmp_path.iterdir()] == [".draws"]
    again = threading.Thread(target=wire.say, kwargs={"acknowledgement": booked}, daemon=True)
    again.start()
    again.join(10)
    assert not again.is_alive(), "the next attempt waits for nobody"
    die(wire)
    settled = told(wire, tmp_path)
    assert len(settled) == 250
    assert set(settled.values()) == {1}


def test_a_line_written_behind_a_torn_one_counts(wire, tmp_path):
    kind = facts(labels={f"label-{number}": "x" * 250 for number in range(60)})
    draw(wire, kind)
    wire.poll(calls_count=10**6, amount_nusd=10**12)
    wire.answers = False
    end(wire, 400, kind)
    wire.poll(after_s=0.03)
    wire.poll(after_s=0.03)
    die(wire)
    with journal_of(tmp_path).open("ab") as file:
        file.write(b'{"end": "Ck')
    desk = Desk(wire.books)
    desk.dies_after_count = 3  # smaller reports than the dead ones, of the same numbers
    told(wire, tmp_path, desk)
    settled = told(wire, tmp_path)
    assert len(settled) == 400
    assert set(settled.values()) == {1}


def test_a_kill_between_any_two_writes_or_within_one_has_nothing_charged_twice(
    wire, kind, tmp_path
):
    wire.answers = False
    for count in (2, 3, 1):
        end(wire, count, kind)
        wire.poll(after_s=0.03)
    end(wire, 1, kind)
    die(wire)
    path = journal_of(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    for whole_count in range(1, len(lines)):
        written = b"".join(lines[:whole_count])
        numbered_count = written.count(b'"report"')
        for torn in (b"", lines[whole_count][:-5]):
            for booked_count in range(numbered_count + 1):  # sent is only what has a number
                wire.books = Books(granted=wire.books.granted)
                for report in wire.reports()[:booked_count]:
                    wire.books.book(report)
                path.write_bytes(written + torn)
                assert list(told(wire, tmp_path).values()) == [1] * written.count(b'"end"')


def test_a_copy_that_a_kill_left_half_written_is_swept_with_the_file(wire, kind, tmp_path):
    end(wire, 1, kind)
    die(wire)
    journal_of(tmp_path).with_suffix(".new").write_bytes(b'{"session"')
    assert len(told(wire, tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_opened_keeps_no_other_file_waiting(wire, kind, tmp_path, caplog):
    end(wire, 1, kind)
    die(wire)
    (tmp_path / "0.draws").mkdir()
    assert len(told(wire, tmp_path)) == 1
    assert "0.draws" in caplog.text


@pytest.mark.parametrize("room", [0, 20])
def test_a_hold_that_does_not_fit_on_the_disk_is_refused_and_harms_no_other(tmp_path, room):
    outbox = Outbox(lambda _: Delivery.UNREACHABLE, folder=tmp_path)
    assert outbox.hold(entry("a"))
    [path] = tmp_path.glob("*.spool")
    with room_for(path.stat().st_size + room):
        assert not outbox.hold(entry("b"))
    assert outbox.hold(entry("c"))
    assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()] == ["a", "c"]
    outbox.drop("a")
    outbox.drop("c")
    outbox.close(0)


def test_a_full_disk_keeps_no_program_from_starting(tmp_path, caplog):
    dead = Spool(tmp_path)
    dead.write("put", entry("a"))
    dead.write("put", entry("b", b"r" * 1_000))
    dead.close(keep=True)
    with room_for(500):
        outbox = Outbox(lambda _: Delivery.UNREACHABLE, folder=tmp_path)
        outbox.close(0)
    assert "cannot take over" in caplog.text
    other = Spool(tmp_path)
    assert {one.entry_id for one in other.adopt()} == {"a", "b"}
    other.close(keep=False)


def test_what_cannot_be_opened_is_no_reason_not_to_start(tmp_path, caplog):
    (tmp_path / "0.spool").mkdir()
    dead = Spool(tmp_path)
    dead.write("put", entry("a"))
    dead.close(keep=True)
    other = Spool(tmp_path)
    assert other.adopt() == [entry("a")]
    assert "0.spool" in caplog.text
    other.close(keep=False)


def test_a_file_is_not_adopted_between_its_making_and_its_locking(tmp_path):
    adopter, stop = Spool(tmp_path), threading.Event()

    def adopt():
        while not stop.is_set():
            adopter.adopt()

    threads = [threading.Thread(target=adopt) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3_000):
            living = Spool(tmp_path)
            lost = not living._path.exists()
            living.close(keep=False)
            assert not lost, "what is written there would die with the process"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        adopter.close(keep=False)


def test_many_who_adopt_at_once_take_each_entry_once(tmp_path):
    for number in range(200):
        dead = Spool(tmp_path)
        dead.write("put", entry(f"e{number}"))
        dead.close(keep=True)
    adopters = [Spool(tmp_path) for _ in range(4)]
    taken = []
    threads = [
        threading.Thread(target=lambda one=one: taken.extend(one.adopt())) for one in adopters
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.entry_id for one in taken) == sorted(f"e{number}" for number in range(200))
    for one in adopters:
        one.close(keep=False)
