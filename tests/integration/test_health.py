"""`costd health`, as probes run it: by the installed program, against real daemons."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from costd.cli import probe

POLICY = Path(__file__).parents[2] / "policies" / "quickstart.yaml"
SHORT_WAY = """\
import sys
from costd.cli.start import main
sys.argv = ["costd", "health", "--address", sys.argv[1]]
try:
    main()
except SystemExit as end:
    print(end.code)
print([name for name in ("grpc", "typer", "pydantic", "costd.daemon") if name in sys.modules])
"""
PROGRAM = str(Path(sys.executable).with_name("costd"))


def health(*arguments, **environment):
    """Run it and return how it ended."""
    known = {name: text for name, text in os.environ.items() if not name.startswith("COSTD_")}
    return subprocess.run(
        [PROGRAM, "health", *arguments],
        env=known | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def says(path, answer):
    """Serve one connection at a socket that says this and no more."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def serve():
        peer, _ = listening.accept()
        peer.recv(65_536)
        peer.sendall(answer)
        peer.close()

    threading.Thread(target=serve, daemon=True).start()
    return listening


@pytest.fixture
def waiting(fresh_daemon):
    """A daemon that waits for the policy of a coordinator that is not there."""
    daemon = fresh_daemon(None, "--coordinator", "127.0.0.1:1", "--coordinator-insecure")
    daemon.launch()
    daemon.wait_for("waiting_for_policy")
    return daemon


def test_a_daemon_that_serves_is_healthy_however_it_is_named(daemon):
    path = str(daemon.socket)
    for arguments, environment in (
        ((), {"COSTD_SOCKET": path}),
        ((), {"COSTD_ADDRESS": f"unix:{path}", "COSTD_SOCKET": "/nowhere"}),
        (("--address", path), {"COSTD_SOCKET": "/nowhere"}),
        (("--address", daemon.control_address), {}),
        (("--address", path, "--timeout-s", "5"), {}),
    ):
        found = health(*arguments, **environment)
        assert (found.returncode, found.stdout, found.stderr) == (0, "", ""), arguments


def test_the_short_way_loads_no_library_neither_to_say_yes_nor_that_nobody_is_there(daemon):
    nowhere = "/nowhere/costd.sock"
    absent = f"costd: nobody serves unix:{nowhere} (yet): No such file or directory"
    for path, said in ((str(daemon.socket), "0"), (nowhere, absent)):
        ran = subprocess.run(
            [sys.executable, "-c", SHORT_WAY, path], capture_output=True, text=True, check=True
        )
        assert ran.stdout.splitlines() == [said, "[]"]


def test_a_daemon_that_is_not_there_is_not_healthy_and_one_line_says_so(tmp_path):
    found = health("--address", str(tmp_path / "costd.sock"))
    assert found.returncode == 1
    assert found.stderr.startswith(f"costd: nobody serves unix:{tmp_path}/costd.sock")
    assert found.stderr.count("\n") == 1


def test_a_daemon_that_waits_for_its_policy_does_not_serve_yet(waiting):
    assert "nobody serves" in health("--address", str(waiting.socket)).stderr


def test_a_daemon_that_takes_no_more_calls_is_alive(fresh_daemon):
    daemon = fresh_daemon(POLICY, "--rpcs-count-max", "1").start()
    with grpc.insecure_channel(daemon.address) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        assert probe.problem_at(str(daemon.socket)) is None
        found = health("--address", str(daemon.socket))
        assert (found.returncode, found.stderr) == (0, "")
        watching.cancel()


def test_a_port_is_asked_as_well(fresh_daemon):
    daemon = fresh_daemon(POLICY, "--listen", "127.0.0.1:0").start()
    address = daemon.listen_address
    assert health("--address", address).returncode == 0
    daemon.kill()
    found = health("--address", address)
    assert found.returncode == 1
    assert f"{address} cannot be reached" in found.stderr


def test_a_coordinator_is_healthy_at_its_socket(fleet):
    processes = fleet("version: 1\nbudgets: []\n").start(coordinators=1, daemons=0)
    (coordinator,) = processes.coordinators
    assert health("--address", str(coordinator.control_socket)).returncode == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\4\0\0\0\0\0\0\0\7\0\0\0\0\0\1\x08\x02",
        b"\0\0\7\0\1\0\0\0\1\0\0\0\0\2\x08\x02",
        b"\0\0\7\0\1\0\0\0\3\0\0\0\0\2\x08\x01",
        b"\xff" * 4_000,
    ],
    ids=["nothing", "HTTP/1.1", "GOAWAY", "NOT_SERVING", "another stream", "noise"],
)
def test_the_short_way_takes_nothing_else_for_serving(tmp_path, answer):
    with says(tmp_path / "s", answer):
        assert probe.problem_at(str(tmp_path / "s")) is None


def test_whoever_listens_and_says_nothing_does_not_serve(tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        assert probe.problem_at(str(tmp_path / "s"), answer_s=0.1) is None
        found = health("--address", str(tmp_path / "s"), "--timeout-s", "0.2")
    assert "did not answer within 0.2 s" in found.stderr
