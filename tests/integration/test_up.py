"""costd up: two real processes, one of which is killed, and a clean end."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from costd.testing.process import wait_until

POLICY = (
    "version: 1\ntask_classes: {draft: {}}\nbudgets:\n  - {id: day, window: total, limit: $5}\n"
)


def children(pid):
    """List what a process started, by the command after `costd`."""
    found = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
            if "costd.cli.costd" in words:
                found[words[words.index("costd.cli.costd") + 1]] = int(child)
    return found


def free_port():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return reserved.getsockname()[1]


@pytest.fixture
def folder():
    """A folder that root's PostgreSQL, which another user runs, may enter; pytest's are closed."""
    made = Path(tempfile.mkdtemp(prefix="costd-up-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def up(folder):
    """Run `costd up`; `until` reads its log."""
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    started = []

    def up(*options):
        command = [
            sys.executable, "-m", "costd.cli.costd", "up", "--policy", policy, "--no-metrics",
            "--data", folder / "data", "--socket", folder / "costd.sock",
            "--listen", f"127.0.0.1:{free_port()}", *options,
        ]  # fmt: skip
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield up
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate()


def until(process, pattern):
    """Read the log up to a line."""
    seen = []
    for line in process.stderr:
        seen.append(line)
        if re.search(pattern, line):
            return seen
    raise AssertionError("".join(seen))


def is_gone(pid):
    """Whether a process has ended, also where nobody asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def costctl(*arguments):
    run = subprocess.run(
        [sys.executable, "-m", "costd.cli.costctl", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr


@pytest.mark.slow
def test_one_command_runs_a_fleet_of_one_that_survives_the_death_of_either_process(up, folder):
    process = up()
    until(process, r"^up +\| operators: costctl fleet")
    parts = children(process.pid)
    assert set(parts) == {"coordinator", "serve"}
    agents, operators = folder / "costd.sock", folder / "coordinator.sock"
    code, said = costctl("record", "--cost", "2", "--address", agents, "--class", "draft")
    assert code == 0, said
    for name, again in (("coordinator", "coordinator_joined"), ("serve", " serving ")):
        Path(f"/proc/{parts[name]}").stat()
        subprocess.run(["kill", "-9", str(parts[name])], check=True)
        until(process, r"^up .* ended with signal 9; it is started again")
        until(process, again)
    code, said = costctl("budgets", "--control", folder / "control.sock")
    assert code == 0
    assert "$2.00" in said
    code, said = costctl("fleet", "--control", operators)
    assert code == 0
    assert "1 of 1 daemons attached" in said
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read().splitlines()
    assert process.wait() == 0
    ends = [line for line in rest if line.split()[-1] == "stopped"]
    assert [line.split()[0] for line in ends] == ["daemon", "coordinator"]
    assert not agents.exists()


@pytest.mark.slow
def test_who_is_killed_leaves_neither_process_nor_database_behind(up, folder):
    process = up()
    until(process, r"^up +\| operators: costctl fleet")
    parts = children(process.pid)
    assert len(parts) == 2
    process.kill()
    process.wait()
    for name, pid in parts.items():
        wait_until(lambda pid=pid: is_gone(pid), f"{name} ends")
    assert not [*(folder / "data" / "coordinator").rglob("postmaster.pid")]
    until(up(), r"^up +\| operators: costctl fleet")


def test_what_cannot_start_ends_both(up, folder):
    (folder / "policy.yaml").write_text("version: 1\nbudgets: none\n")
    process = up()
    log = process.stderr.read()
    assert process.wait() == 2
    assert f"coordinator | costd: {folder}/policy.yaml:2" in log
    assert "daemon " not in log


def test_a_directory_that_cannot_be_used_ends_both_without_a_traceback(up, folder):
    (folder / "data").write_text("a file")
    process = up()
    log = process.stderr.read()
    assert process.wait() == 1
    assert "coordinator | costd: data: " in log
    assert "Traceback" not in log
