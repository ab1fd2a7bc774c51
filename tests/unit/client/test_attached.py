"""The thread behind allowances at awkward moments: while it pauses, and while it is given up."""

import queue
import threading

import grpc
import pytest
from attach_desk import Wire
from costd_client.attached import Attached
from costd_client.drawn import End
from costd_client.journal import Journal, leftovers
from costd_client.replay import Teller
from costd_client.surroundings import surroundings
from test_allowance import Held
from test_allowance_session import draw, facts, settle
from test_journal import Desk, die


class Failed(grpc.RpcError):
    """How a stream fails that is refused, or has no daemon."""

    def __init__(self, code):
        super().__init__(code)
        self._code = code

    def code(self):
        return self._code


class Streams:
    """Opens streams that fail at once, and tells of each."""

    def __init__(self, code=grpc.StatusCode.UNAVAILABLE):
        self.code = code
        self.opened = queue.SimpleQueue()

    def __call__(self, messages):
        self.opened.put(messages)
        raise Failed(self.code)


class Pausing(Attached):
    """Does something in its thread, just before each pause."""

    def before_pause(self):
        """Set by a test."""

    def _pause(self, wait_s):
        self.before_pause()
        super()._pause(wait_s)


def ended_call(attached):
    """Have a call to tell of."""
    drawn = Held().draw(1, 1)
    drawn.allowance.home = attached.session.home
    attached.end(drawn, End(None, 1))


def test_no_stream_is_opened_once_close_has_given_up():
    streams = Streams()
    attached = Pausing(streams, surroundings(maps_pages=False))
    pauses, goes_on = threading.Event(), threading.Event()

    def wait():
        pauses.set()
        assert goes_on.wait(10)

    attached.before_pause = wait
    ended_call(attached)
    assert pauses.wait(10)
    streams.opened.get(timeout=10)
    thread = attached._thread
    attached.close(0)
    goes_on.set()
    thread.join(10)
    assert not thread.is_alive()
    assert streams.opened.empty()


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED])
def test_a_flush_just_before_a_pause_ends_it(code):
    streams = Streams(code)
    attached = Pausing(streams, surroundings(maps_pages=False))
    attached._wait_s = 60
    flushed = []

    def flush_once():
        if not flushed:
            flushed.append(attached.flush(0))

    attached.before_pause = flush_once
    ended_call(attached)
    streams.opened.get(timeout=10)
    streams.opened.get(timeout=10)
    attached.close(0)


def dead_session(folder, number):
    """Leave a file of a process that died with one call to tell of; returns its daemon's books."""
    wire = Wire(open_journal=lambda name: Journal(folder, session_id=name, caller=f"me-{number}"))
    wire.open()
    kind = facts()
    draw(wire, kind)
    wire.poll()
    settle(wire, draw(wire, kind))
    die(wire)
    [path] = folder.glob("session*.draws")
    path.rename(folder / f"{number}.draws")
    return wire.books


@pytest.mark.parametrize(
    "refusal",
    [
        Failed(grpc.StatusCode.INVALID_ARGUMENT),
        Failed(grpc.StatusCode.UNIMPLEMENTED),
        ValueError("caller is 'm\xe9'; it must be printable ASCII"),
    ],
)
def test_a_file_that_is_refused_keeps_no_later_one_waiting(refusal, tmp_path, caplog):
    dead_session(tmp_path, 1)
    desk = Desk(dead_session(tmp_path, 2))

    def open_stream(messages, caller):
        if caller == "me-1":
            raise refusal
        return desk.open_stream(messages, caller)

    teller = Teller(tmp_path, open_stream)
    assert teller.wait(10)
    assert list(desk.books.settled.values()) == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["1.draws"]
    assert "1.draws is refused and stays as it is" in caplog.text
    [left] = leftovers(tmp_path)
    left.drop()
