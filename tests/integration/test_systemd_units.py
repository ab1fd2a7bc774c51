"""The units of systemd: sound, hardened, and what they start does what they wait for."""

import ctypes
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

import pytest
from costd_client import Client

from costd.coordinator import settings as coordinator_settings
from costd.daemon import settings as daemon_settings
from costd.serving.supervisor import READY, STOPPING, tell_supervisor

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
PROGRAM = Path(sys.executable).with_name("costd")
QUICKSTART = ROOT / "policies" / "quickstart.yaml"
NAMES = ["costd", "costd-coordinator"]
EXPOSURE_MAX = 20
"""In tenths; below 2.0 is what systemd calls OK."""
LEAST_S = 10
"""What a stop needs beside draining, at least."""
ANSWER_S = 60
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
"""From <linux/prctl.h>; the kernel's own MemoryDenyWriteExecute, since Linux 6.3."""

needs_analyze = pytest.mark.skipif(
    not shutil.which("systemd-analyze"),
    reason="no systemd-analyze here; it is in Debian's package systemd",
)


def unit(name):
    """A unit's lines by section and key; a key may stand more than once."""
    found, section = {}, ""
    for line in (UNITS / f"{name}.service").read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault((section, key), []).append(value)
    return found


def lines(name, key):
    return unit(name)["Service", key]


def only(name, key):
    [value] = lines(name, key)
    return value


@pytest.fixture
def root():
    """A short directory that stands for the machine's."""
    folder = Path(mkdtemp(prefix="unit-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def moved(text, root):
    return re.sub(r"(?<![\w.])(/var/lib|/run|/etc)/", lambda found: f"{root}{found[1]}/", text)


def start(name, root, policy=None, **more):
    """What systemd would start, with its directories under a root of our own."""
    for key, parent in (
        ("StateDirectory", "var/lib"),
        ("RuntimeDirectory", "run"),
        ("ConfigurationDirectory", "etc"),
    ):
        folder = root / parent / only(name, key)
        folder.mkdir(parents=True)
        folder.chmod(int(only(name, f"{key}Mode"), 8))
    if policy is not None:
        shutil.copy(policy, root / "etc" / name / "policy.yaml")
    variables = dict(moved(each, root).split("=", 1) for each in lines(name, "Environment"))
    program, *words = only(name, "ExecStart").split()
    assert program == "/opt/costd/bin/costd"
    return subprocess.Popen(
        [PROGRAM, *words],
        env={**os.environ, **variables, "COSTD_METRICS_LISTEN": "off", **more},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_deny_writable_code,  # noqa: PLW1509  one system call
    )


def _deny_writable_code():
    ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)


@pytest.fixture
def supervisor(root, monkeypatch):
    """Hears what a program says of itself."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(root / "notify"))
        heard.settimeout(ANSWER_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(root / "notify"))
        yield heard


def stop(process, supervisor):
    process.send_signal(signal.SIGTERM)
    assert supervisor.recv(64).decode() == STOPPING
    log = process.communicate(timeout=ANSWER_S)[1]
    assert process.returncode == 0, log
    return log


def test_the_daemon_s_unit_starts_a_daemon_that_says_when_it_serves(root, supervisor):
    process = start("costd", root, QUICKSTART)
    try:
        assert supervisor.recv(64).decode() == READY
        with Client(f"unix:{root}/run/costd/costd.sock") as client:
            assert client.admit(
                task_class="chat", model="gpt-4o-mini", provider="openai", labels={"user": "u"},
                prompt_tokens=9, max_output_tokens=9,
            ).allowed  # fmt: skip
        assert only("costd", "ExecReload") == "/bin/kill -HUP $MAINPID"
        process.send_signal(signal.SIGHUP)
        log = stop(process, supervisor)
    finally:
        process.kill()
    assert '"event": "stopped"' in log
    assert stat.S_IMODE((root / "var/lib/costd").stat().st_mode) == 0o700


def test_a_daemon_without_a_policy_ends_so_that_systemd_does_not_try_again(root):
    process = start("costd", root)
    log = process.communicate(timeout=ANSWER_S)[1]
    assert process.returncode == int(only("costd", "RestartPreventExitStatus"))
    assert f"{root}/etc/costd/policy.yaml" in log


def test_the_coordinator_s_unit_starts_a_coordinator_with_a_database_of_its_own(root, supervisor):
    process = start("costd-coordinator", root, COSTD_LISTEN="127.0.0.1:0")
    try:
        assert supervisor.recv(64).decode() == READY
        log = stop(process, supervisor)
    finally:
        process.kill()
    assert '"event": "stopped"' in log
    assert (root / "var/lib/costd-coordinator/postgres/PG_VERSION").exists()


@pytest.mark.parametrize("name", NAMES)
@needs_analyze
def test_systemd_finds_no_fault_with_a_unit_and_calls_it_well_protected(name, root):
    path = root / f"{name}.service"
    path.write_text((UNITS / path.name).read_text().replace("/opt/costd/bin/costd", str(PROGRAM)))
    for words in (
        ["verify", "--man=no", path],
        ["security", "--offline=true", f"--threshold={EXPOSURE_MAX}", path],
    ):
        done = subprocess.run(
            ["systemd-analyze", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert not done.stderr
    path.write_text(path.read_text().replace("Type=notify", "Type=notified"))
    done = subprocess.run(
        ["systemd-analyze", "verify", path], capture_output=True, text=True, check=False
    )
    assert "notified" in done.stderr


@pytest.mark.parametrize(
    ("name", "settings"),
    [("costd", daemon_settings), ("costd-coordinator", coordinator_settings)],
)
def test_a_unit_sets_what_there_is_and_waits_for_the_end_of_draining(name, settings):
    fields = settings.Settings.model_fields
    named = {each.partition("=")[0] for each in lines(name, "Environment")}
    assert {each.removeprefix("COSTD_").lower() for each in named} <= fields.keys()
    drains_s = sum(fields[each].default for each in ("drain_s", "leave_s") if each in fields)
    assert int(only(name, "TimeoutStopSec")) >= drains_s + LEAST_S


def test_whoever_runs_a_unit_is_made_by_sysusers():
    text = (UNITS / "sysusers.conf").read_text()
    users = dict(re.findall(r"^u (\S+) .* (/\S+) /usr/sbin/nologin$", text, re.MULTILINE))
    assert users == {
        only(name, "User"): f"/var/lib/{only(name, 'StateDirectory')}" for name in NAMES
    }


def test_a_supervisor_that_is_not_there_is_no_fault(root, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(root / "nobody"))
    tell_supervisor(READY)
    monkeypatch.delenv("NOTIFY_SOCKET")
    tell_supervisor(READY)


def test_a_supervisor_may_have_an_abstract_name(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("")  # the kernel chooses one
        heard.settimeout(ANSWER_S)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + heard.getsockname()[1:].decode())
        tell_supervisor(READY)
        assert heard.recv(64).decode() == READY
