"""A daemon as the sidecar of a pod: another user than its clients, on a read-only file system."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from desk import Desk, poll
from in_a_pod import APP_UID, SIDECAR_UID, as_container, empty_dir, lacking

from costd.testing import DaemonProcess

HOLD_NUSD = 1_000_000
POLICY = """\
version: 1
tiers: {premium: {models: [openai/gpt-4o]}}
task_classes: {draft: {}}
default_task_class: draft
budgets: [{id: all, window: total, limit: $100}]
expiry: {ttl: 1s}
allowance: {for: 1s}
"""
APP = f"""
import json, os, signal
from costd_client import Client

client = Client(caller="app", allowances=True, timeout_s=10)
drawn = 0
while drawn < 5:
    decision = client.admit(model="gpt-4o", estimated_cost_nusd={HOLD_NUSD})
    drawn += decision.source == "allowance"
    if decision.source != "allowance":
        client.void(decision)
says = {{"uid": os.getuid(), "address": client.address, "mapped": client.attached.session._pages is not None}}
os.write(1, json.dumps(says).encode())
os.kill(os.getpid(), signal.SIGKILL)
"""
CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as peer:
    try:
        peer.connect(sys.argv[1])
    except OSError as error:
        print(type(error).__name__)
    else:
        print("connected")
"""


@pytest.fixture(scope="module")
def pod():
    """A pod's files, where any user may get at them."""
    folder = Path(tempfile.mkdtemp(prefix="costd-pod-", dir="/tmp"))
    folder.chmod(0o755)
    problem = lacking(folder)
    if not problem:
        (folder / "policy.yaml").write_text(POLICY)
        empty_dir(folder, "run")
        empty_dir(folder, "data")
        yield folder
    shutil.rmtree(folder, ignore_errors=True)
    if problem:
        pytest.skip(problem)


class Sidecar(DaemonProcess):
    """A daemon with the environment of an injected container, and no flag."""

    def __init__(self, pod):
        super().__init__(pod / "policy.yaml", directory=pod)
        self.socket = pod / "run" / "agent" / "costd.sock"
        self.control_socket = pod / "data" / "run" / "control.sock"
        self.prefix = as_container(pod, SIDECAR_UID)
        self.environment = {
            "HOME": "/nonexistent",
            "TMPDIR": "/nonexistent",
            "COSTD_POLICY": str(self.policy),
            "COSTD_DATA": str(pod / "data" / "data"),
            "COSTD_SOCKET": str(self.socket),
            "COSTD_SOCKET_MODE": "0666",
            "COSTD_CONTROL_SOCKET": str(self.control_socket),
            "COSTD_METRICS_LISTEN": "127.0.0.1:0",
        }

    def command(self):
        return ["serve"]


@pytest.fixture(scope="module")
def sidecar(pod):
    running = Sidecar(pod)
    try:
        yield running.start()
    finally:
        if running.runs:
            running.kill()


@pytest.fixture(scope="module")
def desk(sidecar):
    desk = Desk(sidecar)
    yield desk
    desk.close()


def in_app(pod, code, *arguments, **environment):
    """Run Python in a container of the same pod, as another user."""
    return subprocess.run(
        [*as_container(pod, APP_UID), sys.executable, "-c", code, *arguments],
        env=os.environ | {"COSTD_SOCKET": f"{pod}/run/agent/costd.sock"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_daemon_needs_nothing_to_write_to_but_its_two_volumes(sidecar, pod, desk):
    assert not [line for line in sidecar.lines if line.get("level") in {"warning", "error", None}]
    status = Path(f"/proc/{sidecar.pid}/status").read_text()
    assert f"Uid:\t{SIDECAR_UID}" in status
    tried = [*as_container(pod, SIDECAR_UID), "touch", "/tmp/x", str(pod / "data" / "x")]
    assert (
        "Read-only file system"
        in subprocess.run(tried, capture_output=True, text=True, check=False).stderr
    )
    assert (pod / "data" / "x").exists()
    desk.settle(desk.hold(0.01), 0.01)


def test_an_app_of_another_user_draws_from_allowances_by_its_page(sidecar, pod, desk):
    before = desk.budget("all").settled
    app = in_app(pod, APP)
    assert app.returncode == -9, app.stderr
    assert json.loads(app.stdout) == {
        "uid": APP_UID,
        "address": f"unix:{sidecar.socket}",
        "mapped": True,
    }
    # It said nothing of the last calls, and was killed: its page says how many they were.
    poll(lambda: desk.budget("all").settled >= before + 5 * HOLD_NUSD)
    poll(lambda: not desk.budget("all").reserved)
    assert desk.budget("all").settled - before == 5 * HOLD_NUSD


def test_where_nothing_is_set_and_nothing_can_be_written_there_is_no_traceback(pod):
    asked = in_app(pod, "from costd_client import Client; print(Client().address)", COSTD_SOCKET="")
    assert (asked.stdout, asked.stderr) == ("unix:/run/costd/costd.sock\n", "")
    bare = [*as_container(pod, SIDECAR_UID), sys.executable, "-m", "costd.cli.costd", "serve"]
    for flags, says in (
        ((), "costd: /tmp/costd-65532 cannot hold a socket: Read-only file system"),
        (
            ("--socket", f"{pod}/run/agent/x.sock", "--data", "/nowhere"),
            "cannot use /nowhere/store",
        ),
    ):
        given = [
            "--policy",
            str(pod / "policy.yaml"),
            "--data",
            str(pod / "data" / "other"),
            *flags,
        ]
        ran = subprocess.run([*bare, *given], capture_output=True, text=True, check=False)
        assert ran.returncode == 1
        assert says in ran.stderr
        assert "Traceback" not in ran.stderr


def test_apps_reach_the_agents_socket_and_not_the_operators(sidecar, pod):
    assert in_app(pod, CONNECT, str(sidecar.socket)).stdout == "connected\n"
    assert in_app(pod, CONNECT, str(sidecar.control_socket)).stdout == "PermissionError\n"


def test_apps_cannot_put_anything_in_place_of_the_socket(sidecar, pod):
    tried = in_app(pod, "import os, sys; os.unlink(sys.argv[1])", str(sidecar.socket))
    assert "PermissionError" in tried.stderr
    assert sidecar.socket.is_socket()


def test_a_container_that_is_started_again_serves_on_in_the_same_volumes(sidecar, pod, desk):
    before = desk.budget("all").settled
    desk.close()
    sidecar.kill()
    sidecar.start()
    desk.open()
    assert desk.budget("all").settled == before
    assert in_app(pod, CONNECT, str(sidecar.socket)).stdout == "connected\n"
