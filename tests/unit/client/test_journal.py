"""What a spool keeps of drawn calls, and how the daemon hears of it after the process died."""

import logging
import os
import threading

import grpc
import pytest
from attach_desk import Wire
from costd_client import journal as journal_module
from costd_client.journal import Journal, leftovers
from costd_client.pb import admission_pb2 as pb
from costd_client.replay import replay
from test_allowance_session import draw, facts, settle


class Desk:
    """`Attach` of a daemon without a wire between, that dies where it is told to."""

    def __init__(self, books):
        self.books = books
        self.callers = []
        self.dies = ""
        self.dies_after_count = 0
        """Reports until it dies once; 0: never."""

    def open_stream(self, messages, caller):
        self.callers.append(caller)
        return Answers(self, messages)


class Answers:
    def __init__(self, desk, messages):
        self._desk, self._messages = desk, messages

    def __iter__(self):
        for message in self._messages:
            if message.HasField("hello"):
                yield pb.DaemonMessage(welcome=self._desk.books.welcome(message.hello))
                continue
            if self._desk.dies == "before":
                raise grpc.RpcError
            answer = self._desk.books.book(message.report)
            self._desk.dies_after_count -= 1
            if self._desk.dies == "after" or self._desk.dies_after_count == 0:
                raise grpc.RpcError
            yield pb.DaemonMessage(acknowledgement=answer)

    def cancel(self):
        pass


@pytest.fixture
def lived(tmp_path):
    """A session with a journal that has drawn and ended calls, part of them reported."""
    wire = Wire(open_journal=lambda name: Journal(tmp_path, session_id=name, caller="me"))
    wire.open()
    kind = facts()
    draw(wire, kind)
    wire.poll(calls_count=10**6, amount_nusd=10**12)

    def end(count):
        for _ in range(count):
            settle(wire, draw(wire, kind))

    end(3)
    wire.poll(after_s=0.03)  # booked and heard
    wire.answers = False
    end(250)
    wire.poll(after_s=0.03)
    wire.poll(after_s=0.03)  # sent, and perhaps booked
    end(4)  # not sent
    return wire


def die(wire):
    """As a process does: its file is closed, and no more."""
    wire.session.journal.abandon()


@pytest.mark.parametrize("booked", [1, 2, 3])
def test_what_a_dead_process_left_is_booked_once_whatever_had_been(lived, tmp_path, booked):
    for report in lived.reports()[1:booked]:
        lived.books.book(report)
    die(lived)
    desk = Desk(lived.books)
    for dies in ("before", "after", "before", "after", ""):
        desk.dies = dies
        for left in leftovers(tmp_path):
            try:
                replay(left, desk.open_stream)
            except grpc.RpcError:
                left.drop()
            else:
                left.done()
    assert len(lived.books.settled) == 257
    assert set(lived.books.settled.values()) == {1}
    assert {riding["run"] for _, riding in lived.books.settlements} == {"r1"}
    assert set(desk.callers) == {"me"}
    assert list(tmp_path.iterdir()) == []


def test_reports_that_are_smaller_than_the_dead_ones_take_no_number_for_another(tmp_path):
    wire = Wire(open_journal=lambda name: Journal(tmp_path, session_id=name, caller="me"))
    wire.open()
    kind = facts(labels={f"label-{number}": "x" * 250 for number in range(60)})
    draw(wire, kind)
    wire.poll(calls_count=10**6, amount_nusd=10**12)
    wire.answers = False
    for _ in range(400):
        settle(wire, draw(wire, kind))
    wire.poll(after_s=0.03)
    wire.poll(after_s=0.03)
    assert [len(one.settlements) for one in wire.reports()] == [200, 200]
    die(wire)
    desk = Desk(wire.books)
    desk.dies_after_count = 3
    for _ in range(2):
        for left in leftovers(tmp_path):
            try:
                replay(left, desk.open_stream)
            except grpc.RpcError:
                left.drop()
            else:
                left.done()
    assert len(wire.books.settled) == 400
    assert set(wire.books.settled.values()) == {1}


def test_a_living_process_keeps_its_file_to_itself(lived, tmp_path):
    assert list(leftovers(tmp_path)) == []
    lived.session.journal.close(keep=True)
    [left] = leftovers(tmp_path)
    assert list(leftovers(tmp_path)) == [], "locked by whoever tells of it"
    left.drop()


def test_what_the_daemon_has_heard_leaves_the_file(lived, tmp_path):
    [path] = tmp_path.glob("*.draws")
    lived.answers = True
    lived.session.broken()
    lived.open()
    for _ in range(3):
        lived.poll(after_s=0.03)
    assert lived.session.unheard_count == 0
    assert path.read_bytes().count(b"\n") == 1, "whose it is, and no more"
    lived.session.journal.close(keep=False)
    assert not path.exists()


def test_a_file_that_grew_is_written_anew_with_what_is_left(lived, tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "BYTES_MAX", 10_000)
    [path] = tmp_path.glob("*.draws")
    before = path.stat()
    lived.books.book(lived.reports()[1])
    lived.say(acknowledgement=pb.Acknowledgement(sequence=2))
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert after.st_size < before.st_size / 2
    die(lived)
    [left] = leftovers(tmp_path)
    replay(left, Desk(lived.books).open_stream)
    left.done()
    assert set(lived.books.settled.values()) == {1}
    assert len(lived.books.settled) == 257


def test_damaged_lines_are_skipped_and_the_others_count(lived, tmp_path, caplog):
    die(lived)
    [path] = tmp_path.glob("*.draws")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2:2] = [b"{torn\n", b"[]\n", b'{"end": "%%"}\n', b'{"end": ""}\n', b'{"report": 5}\n']
    path.write_bytes(b"".join(lines) + b'{"end": "Ck')
    for report in lived.reports()[1:]:
        lived.books.book(report)
    [left] = leftovers(tmp_path)
    replay(left, Desk(lived.books).open_stream)
    left.done()
    assert set(lived.books.settled.values()) == {1}
    assert len(lived.books.settled) == 257
    assert "damaged line" in caplog.text


def test_a_disk_that_refuses_costs_only_the_safety(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        journal = Journal(tmp_path / "file", session_id="s" * 16, caller="me")
    assert "cannot keep" in caplog.text
    wire = Wire(open_journal=lambda _: journal)
    wire.open()
    kind = facts()
    draw(wire, kind)
    wire.poll()
    settle(wire, draw(wire, kind))
    wire.poll(after_s=0.03)
    assert wire.session.unheard_count == 0
    journal.close(keep=True)


def test_a_forked_child_leaves_the_file_to_its_parent(lived, tmp_path):
    child = os.fork()
    if child == 0:
        lived.session.forget()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert list(leftovers(tmp_path)) == []
    die(lived)
    [left] = leftovers(tmp_path)
    left.drop()


def test_threads_that_end_calls_while_reports_are_heard_lose_nothing(tmp_path):
    wire = Wire(open_journal=lambda name: Journal(tmp_path, session_id=name, caller="me"))
    wire.open()
    kind = facts()
    draw(wire, kind)
    wire.poll(calls_count=10**6, amount_nusd=10**12)
    drawn = [draw(wire, kind) for _ in range(400)]
    threads = [
        threading.Thread(target=lambda part=part: [settle(wire, one) for one in part])
        for part in (drawn[:200], drawn[200:])
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        wire.poll(after_s=0.03)
    assert wire.session.unheard_count + len(wire.books.settled) == 400
    die(wire)
    for left in leftovers(tmp_path):
        replay(left, Desk(wire.books).open_stream)
        left.done()
    assert set(wire.books.settled.values()) == {1}
    assert len(wire.books.settled) == 400
