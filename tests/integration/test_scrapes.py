"""Connections to the metrics' port that never become a scrape."""

import socket
import urllib.request

import pytest

from costd.telemetry import scrapes
from costd.telemetry.metrics import Metrics

WAIT_S = 30


@pytest.fixture
def address():
    """Where metrics are served."""
    metrics = Metrics(version="1", name="test")
    host, _, port = metrics.listen("127.0.0.1", 0).rpartition(":")
    yield host, int(port)
    metrics.close()


@pytest.fixture
def connect(address):
    """Connect, and hang up at the end."""
    made = []

    def connected(said=b""):
        made.append(socket.create_connection(address, timeout=WAIT_S))
        made[-1].sendall(said)
        return made[-1]

    yield connected
    for each in made:
        each.close()


def scraped(address):
    with urllib.request.urlopen("http://{}:{}/metrics".format(*address), timeout=WAIT_S) as reply:
        return reply.read().decode()


def is_ended(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_whoever_connects_and_says_nothing_makes_room_for_who_comes_later(address, connect):
    first = [connect(said) for said in (b"", b"GET /metrics HTTP/1.1\r\n")]
    for _ in range(scrapes.CONNECTIONS_COUNT_MAX):
        connect()
    assert all(map(is_ended, first))
    assert "python_gc" in scraped(address)


def test_a_silent_connection_ends_by_itself_and_fills_no_log(address, connect, monkeypatch, capfd):
    monkeypatch.setattr(scrapes.Scrape, "timeout", 0.1)
    for said in (b"", b"GET /metrics HTTP/1.1\r\nHost: me", b"\xff" * 100):
        assert is_ended(connect(said))
    assert capfd.readouterr().err == ""
    monkeypatch.undo()
    assert "python_gc" in scraped(address)
