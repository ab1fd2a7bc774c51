"""The webhook among callers who mean harm: nobody keeps an API server at another address out."""

import asyncio
import contextlib
import gc
import io
import json
import socket
import ssl
import urllib.request

import pytest
import uvloop
from injecting import POD, InjectorProcess, review_of

from costd.injector.connection import Connection
from costd.injector.serve import serve
from costd.injector.settings import Settings
from costd.serving.stop import Stop
from costd.telemetry.logs import make_log
from costd.testing.certifier import Certifier
from costd.testing.process import wait_until
from costd.trust import Kind

BODY_BYTES_MAX = 1024 * 1024
COUNT_MAX = 12
CROWD = "127.0.0.2"
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return Certifier(tmp_path_factory.mktemp("ca")).pair(Kind.DAEMON, "webhook")


def made(pair, *flags):
    files = ("--tls-cert", pair.certificate, "--tls-key", pair.key)
    limits = ("--body-bytes-max", BODY_BYTES_MAX, "--connections-count-max", COUNT_MAX)
    process = InjectorProcess(*files, *limits, "--drain-s", 0, *flags)
    process.ca = pair.ca.read_text()
    return process


@pytest.fixture(scope="module")
def injector(pair):
    with made(pair, "--deadline-s", 30) as running:
        yield running


def ended(wire):
    """Whether a connection is over, as far as it has been heard."""
    wire.settimeout(0.01)
    try:
        return wire.recv(1000) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def body_head(length):
    return (
        "POST /inject HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def kept(wire):
    """One that was answered, and says nothing more."""
    wire.sendall(GET)
    assert wire.recv(1000).startswith(b"HTTP/1.1 200")


def begun(wire):
    """One whose body does not come."""
    wire.sendall(body_head(100) + b"{")


@pytest.mark.parametrize("do", [kept, begun], ids=["kept", "begun"])
def test_who_has_the_most_connections_makes_room(injector, do):
    own = injector.connect()
    assert injector.ask(review_of(), over=own).patch
    with contextlib.ExitStack() as stack:
        crowd = []
        for _ in range(COUNT_MAX + 8):
            wire = stack.enter_context(injector.open(CROWD))
            do(wire)
            crowd.append(wire)
        for _ in range(3):
            assert injector.ask(review_of()).patch
        # What the API server keeps for later is not what ends.
        assert injector.ask(review_of(), over=own).patch
        over = wait_until(lambda: [wire for wire in crowd if ended(wire)], "some have ended")
        assert over[0] is crowd[0]
    own.close()


def test_connections_that_do_not_even_begin_are_counted(injector):
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(injector.open_plain(CROWD)) for _ in range(COUNT_MAX + 20)]
        assert injector.ask(review_of()).patch

        def over():
            return sum(map(ended, crowd)) >= 20

        wait_until(over, "those that were too many have ended", 20)


def test_an_address_that_has_them_all_loses_the_one_that_waits_longest(injector):
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(injector.open()) for _ in range(COUNT_MAX)]
        begun(crowd[0])
        for wire in crowd[1:]:
            kept(wire)
        assert injector.ask(review_of()).patch
        wait_until(lambda: ended(crowd[1]), "the first that waited has ended")
        assert [ended(wire) for wire in crowd].count(True) == 1


def test_who_comes_first_from_an_address_gets_in_among_many_addresses(injector):
    with contextlib.ExitStack() as stack:
        for n in range(COUNT_MAX):
            kept(stack.enter_context(injector.open(f"127.0.0.{n + 10}")))
        for _ in range(3):
            assert injector.ask(review_of()).patch


def test_who_holds_the_most_bodies_makes_room(injector):
    """Four of the largest fit; an API server that sends a large one beside them has room."""
    large = json.loads(json.dumps(POD))
    large["metadata"]["annotations"] = {"a": "x" * 200_000}
    with contextlib.ExitStack() as stack:
        crowd = []
        for _ in range(5):
            wire = stack.enter_context(injector.open(CROWD))
            with contextlib.suppress(OSError):  # turned away before all is said
                wire.sendall(body_head(BODY_BYTES_MAX) + b" " * (BODY_BYTES_MAX - 1))
            crowd.append(wire)
        for _ in range(3):
            assert injector.ask(review_of(large)).patch

        def said():
            for wire in crowd:
                wire.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    yield wire.recv(1000)

        found = wait_until(lambda: list(said()), "one is turned away", 15)
        for each in found:
            assert each.startswith(b"HTTP/1.1 429")
            assert b"retry-after: 1\r\n" in each
    wait_until(lambda: injector.ask(review_of()).status == 200, "there is room again", 20)


def test_a_handshake_that_does_not_come_ends_the_connection(pair):
    with made(pair, "--deadline-s", "0.2") as hurried, hurried.open_plain() as wire:
        wait_until(lambda: ended(wire), "it is over, and not after a minute", 20)
        assert hurried.stop() == 0
        assert "Traceback" not in hurried.log_text()


def test_a_connection_that_is_broken_off_is_forgotten_at_once(pair):
    """Else each takes its buffers for two minutes: a few a second, and memory is full."""
    written, stop = io.StringIO(), Stop()
    log = make_log(level="info", style="json", stream=written)
    settings = Settings(
        listen="127.0.0.1:0", metrics_listen="off", tls_cert=pair.certificate, tls_key=pair.key,
        drain_s=0,
    )  # fmt: skip

    def breaks_off(port):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
            trusting = ssl.create_default_context(cadata=pair.ca.read_text())
            with trusting.wrap_socket(plain, server_hostname="localhost") as wire:
                kept(wire)

    async def crowd():
        serving = asyncio.create_task(serve(settings, log, stop))
        async with asyncio.timeout(60):
            await asyncio.to_thread(
                wait_until, lambda: "injecting" in written.getvalue(), "it serves"
            )
            said = json.loads(written.getvalue().splitlines()[-1])["address"]
            for _ in range(5):
                await asyncio.to_thread(breaks_off, int(said.rpartition(":")[2]))
            await asyncio.to_thread(wait_until, lambda: not alive(), "all are forgotten")
            stop.ask()
            await serving

    # As hosts run it: what is held differs from loop to loop.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(crowd())
    assert '"stopped"' in written.getvalue()


def alive():
    """The connections that somebody holds."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, Connection)]


def test_what_had_to_make_room_is_counted(injector):
    host, port = injector.address("metrics_listening")
    with contextlib.ExitStack() as stack:
        for _ in range(COUNT_MAX + 1):
            stack.enter_context(injector.open_plain(CROWD))
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as page:
            text = page.read().decode()
    assert 'costd_injector_refused_total{reason="TooManyConnections"}' in text
