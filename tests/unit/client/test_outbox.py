"""What waits for the daemon: bounded, in order, never lost silently."""

import threading

import pytest
from costd_client.outbox import Delivery, Outbox
from costd_client.spool import Entry, Spool


class Daemon:
    """Takes deliveries in the order of a script; waits at a gate."""

    def __init__(self, *script):
        self.script = list(script)
        self.taken = []
        self.open = threading.Event()

    def __call__(self, entry):
        self.open.wait(5)
        self.taken.append(entry.entry_id)
        return self.script.pop(0) if self.script else Delivery.DONE


def entry(name, method="Record", request=b"r"):
    return Entry(name, method, request)


@pytest.fixture
def daemon():
    return Daemon()


@pytest.fixture
def outbox(daemon):
    outbox = Outbox(daemon, capacity_count=3)
    yield outbox
    daemon.open.set()
    outbox.close(5)


def test_entries_are_delivered_in_order(outbox, daemon):
    for name in "abc":
        outbox.put(entry(name))
    daemon.open.set()
    assert outbox.flush(5)
    assert daemon.taken == ["a", "b", "c"]


def test_an_unreachable_daemon_is_tried_again(outbox, daemon):
    daemon.script = [Delivery.UNREACHABLE, Delivery.UNREACHABLE, Delivery.DONE]
    daemon.open.set()
    outbox.put(entry("a"))
    assert outbox.flush(5)
    assert daemon.taken == ["a", "a", "a"]


def test_a_failing_entry_does_not_hold_up_the_others(outbox, daemon):
    daemon.script = [Delivery.FAILED]
    outbox.put(entry("a"))
    outbox.put(entry("b"))
    daemon.open.set()
    assert outbox.flush(5)
    assert daemon.taken == ["a", "b", "a"]


def test_a_delivery_that_breaks_does_not_end_all_others(caplog):
    taken = []

    def deliver(entry):
        taken.append(entry.entry_id)
        if taken == ["a"]:
            raise ValueError("Cannot invoke RPC on closed channel!")
        return Delivery.DONE

    outbox = Outbox(deliver)
    outbox.put(entry("a"))
    outbox.put(entry("b"))
    assert outbox.flush(5)
    assert outbox.close(5) == (0, 0, 0)
    assert taken == ["a", "b", "a"]
    assert "Record a cannot be delivered" in caplog.text


def test_a_rejected_entry_is_kept_for_people(outbox, daemon, caplog):
    daemon.script = [Delivery.REJECTED]
    daemon.open.set()
    outbox.put(entry("a"))
    assert outbox.flush(5)
    assert outbox.rejected == [entry("a")]
    assert "refused Record a for good" in caplog.text


def test_places_are_refused_when_full_and_given_back_when_dropped(outbox):
    assert outbox.hold(entry("a"))
    assert outbox.hold(entry("b"))
    assert outbox.put(entry("c"))
    assert not outbox.hold(entry("d"))
    assert not outbox.put(entry("e"), droppable=True)
    assert outbox.put(entry("a")), "its place is kept"
    outbox.drop("b")
    assert outbox.hold(entry("d"))
    assert outbox.pending == (2, 1, 0)


def test_settlements_may_go_beyond_the_capacity_but_not_without_end(outbox):
    assert [outbox.put(entry(str(number), "Settle")) for number in range(7)] == [True] * 6 + [False]


def test_closing_charges_calls_that_were_never_closed(daemon):
    outbox = Outbox(daemon)
    outbox.hold(entry("a"))
    daemon.open.set()
    assert outbox.close(5) == (0, 0, 0)
    assert daemon.taken == ["a"]


def test_closing_says_what_is_lost(caplog):
    outbox = Outbox(lambda _: Delivery.UNREACHABLE)
    outbox.put(entry("a"))
    assert outbox.close(0.05).queued_count == 1
    assert "1 calls were not recorded; lost with this process" in caplog.text


def test_a_spool_hands_over_what_was_not_delivered(tmp_path, caplog):
    first = Outbox(lambda _: Delivery.UNREACHABLE, folder=tmp_path)
    first.put(entry("a"))
    first.close(0.05)
    assert "kept in the spool" in caplog.text
    daemon = Daemon()
    daemon.open.set()
    second = Outbox(daemon, folder=tmp_path)
    second.start()
    assert second.flush(5)
    second.close(5)
    assert daemon.taken == ["a"]
    assert list(tmp_path.iterdir()) == []


def test_a_spool_of_a_living_process_is_left_alone(tmp_path):
    living = Spool(tmp_path)
    living.write("put", entry("a"))
    other = Spool(tmp_path)
    assert other.adopt() == []
    living.close(keep=True)
    assert other.adopt() == [entry("a")]
    other.close(keep=False)


def test_a_torn_or_damaged_line_costs_only_itself(tmp_path, caplog):
    spool = Spool(tmp_path)
    spool.write("put", entry("a"))
    spool.write("put", entry("b"))
    spool.write("done", entry("b"))
    spool.close(keep=True)
    path = next(tmp_path.glob("*.spool"))
    path.write_bytes(
        b'{"op": "put", "id": "x", "method": "Record", "request": "!"}\n[1]\n'
        + path.read_bytes()
        + b'{"op": "put", "id": "tor'
    )
    other = Spool(tmp_path)
    assert other.adopt() == [entry("a")]
    other.close(keep=False)
    assert caplog.text.count("skipped") == 2


def test_a_rejected_entry_is_kept_in_the_spool(tmp_path):
    daemon = Daemon(Delivery.REJECTED)
    daemon.open.set()
    outbox = Outbox(daemon, folder=tmp_path)
    outbox.put(entry("a"))
    assert outbox.flush(5)
    outbox.close(5)
    assert '"id": "a"' in (tmp_path / "rejected.jsonl").read_text()


def test_a_full_disk_refuses_the_call(tmp_path):
    outbox = Outbox(Daemon(), folder=tmp_path)

    def full(op, entry):
        raise OSError(28, "No space left on device")

    outbox._spool.write = full
    assert not outbox.hold(entry("a"))
    outbox.close(0)


def test_what_comes_after_closing_is_said_not_swallowed(caplog):
    outbox = Outbox(Daemon())
    outbox.close(0)
    assert not outbox.put(entry("a"))
    assert not outbox.hold(entry("b"))
    assert "Record a came after close" in caplog.text
