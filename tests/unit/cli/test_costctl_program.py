"""costctl as a program: exit codes, unreachable daemons, help and completion."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from costd.cli.address import grpc_target, socket_path
from costd.cli.exits import ExitCode

COMMANDS = (
    "status admit explain settle void record budgets reservations allowances usage alerts audit kill "
    "release kills allowance override policy prices price top ca token drill fleet leases lease budget"
)
POLICY_COMMANDS = "check show diff test reload apply history rollback"


@pytest.fixture
def run(environ):
    def run(*arguments, env=None):
        return subprocess.run(
            [sys.executable, "-m", "costd.cli.costctl", *map(str, arguments)],
            env=os.environ | environ | (env or {}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_the_exit_code_tells_a_denial_from_an_allowance(daemon, run, pb):
    daemon.answers["Admit"] = pb.Decision(verdict=pb.VERDICT_ALLOW, reason=pb.REASON_OK)
    assert run("admit", "--cost", "1").returncode == 0
    daemon.answers["Admit"] = pb.Decision(verdict=pb.VERDICT_DENY, reason=pb.REASON_RATE_LIMITED)
    denied = run("admit", "--cost", "1")
    assert (denied.returncode, denied.stderr) == (3, "")
    assert denied.stdout.startswith("DENY  RATE_LIMITED")


def test_no_daemon_is_one_clear_line(run, tmp_path):
    for arguments, path, option in (
        (("admit", "--cost", "1"), tmp_path / "costd.sock", "--address or COSTD_ADDRESS"),
        (("status",), tmp_path / "control.sock", "--control or COSTD_CONTROL_ADDRESS"),
    ):
        ended = run(*arguments)
        assert (ended.returncode, ended.stdout) == (5, "")
        assert ended.stderr == (
            f"costctl: no daemon answers at unix:{path}: there is no socket {path}. Start one with "
            f"`costd serve --policy FILE --data DIR`, or name another address with {option}\n"
        )


def test_a_socket_that_a_daemon_left_behind_is_told_apart(run, tmp_path):
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "control.sock"))
    left.close()
    ended = run("status")
    assert ended.returncode == 5
    assert f"nobody listens on {tmp_path}/control.sock any more" in ended.stderr


def test_a_tcp_address_that_nobody_serves_is_named(run):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        ended = run("status", "--control", address)
    assert ended.returncode == 5
    assert f"no daemon or coordinator answers at {address}: " in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", [("status",), ("drill",)])
def test_the_agents_socket_is_told_from_the_operators(daemon, costctl, command):
    done = costctl(*command, "--control", daemon.address)
    assert done.code == 1
    assert "admission and control have addresses of their own" in done.err


@pytest.mark.parametrize(
    "command",
    [("fleet",), ("leases",), ("policy", "history"), ("lease", "reclaim", "d1", "-r", "gone")],
)
def test_only_a_coordinator_knows_the_fleet(daemon, costctl, command):
    done = costctl(*command, "--control", daemon.control)
    assert (done.code, done.out) == (1, "")
    assert f"{daemon.control} is a daemon's address, and only a coordinator knows" in done.err


@pytest.mark.parametrize(
    "command", [("reservations",), ("allowances",), ("policy", "reload"), ("admit", "--cost", "1")]
)
def test_what_is_asked_of_each_daemon_is_not_asked_of_a_coordinator(coordinator, costctl, command):
    option = "--address" if command[0] == "admit" else "--control"
    done = costctl(*command, option, coordinator.control)
    assert (done.code, done.out) == (1, "")
    assert f"{coordinator.control} is a coordinator, and this is asked of each daemon" in done.err


def test_a_coordinator_that_lacks_something_is_older(coordinator, costctl):
    done = costctl("fleet", "--control", coordinator.control)
    assert "is of an earlier version" in done.err


def test_no_coordinator_is_one_clear_line(costctl, tmp_path):
    done = costctl("fleet", "--control", tmp_path / "none.sock")
    assert done.code == 5
    assert f"no coordinator answers at unix:{tmp_path}/none.sock: there is no socket" in done.err
    assert "`costd coordinator --policy FILE --data DIR`" in done.err


def test_a_path_is_an_address(daemon, run, pb, tmp_path):
    daemon.answers["ListKills"] = pb.ListKillsResponse()
    bare = daemon.control.removeprefix("unix:")
    assert run("kills", "--control", bare, env={"COSTD_CONTROL_ADDRESS": ""}).returncode == 0
    assert run("kills", env={"COSTD_CONTROL_ADDRESS": bare}).returncode == 0


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("unix:/a/b.sock", "unix:/a/b.sock"),
        ("unix:///a/b.sock", "unix:///a/b.sock"),
        ("/a/b.sock", "unix:/a/b.sock"),
        ("./b.sock", f"unix:{Path.cwd()}/b.sock"),
        ("localhost:50051", "localhost:50051"),
        ("dns:///host:1", "dns:///host:1"),
        ("[::1]:50051", "[::1]:50051"),
    ],
)
def test_people_write_addresses_in_several_ways(text, target):
    assert grpc_target(text) == target


def test_only_a_unix_address_has_a_file():
    assert socket_path("unix:/a/b.sock") == Path("/a/b.sock")
    assert socket_path("unix:///a/b.sock") == Path("/a/b.sock")
    assert socket_path("localhost:1") is None


def test_completion_prints_a_script_for_the_shell(run):
    for shell in ("bash", "zsh", "fish"):
        # typer takes the shell's name as a value where it may not look at its parent process
        named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        shown = run("--show-completion", shell, env=named)
        assert shown.returncode == 0
        assert "_COSTCTL_COMPLETE" in shown.stdout


def test_completion_offers_commands_and_options(run):
    asked = {"_COSTCTL_COMPLETE": "complete_bash", "COMP_WORDS": "costctl re", "COMP_CWORD": "1"}
    assert run(env=asked).stdout.split() == ["record", "reservations", "release"]
    asked |= {"COMP_WORDS": "costctl allowance ", "COMP_CWORD": "2"}
    assert run(env=asked).stdout.split() == ["revoke"]
    asked |= {"COMP_WORDS": "costctl kill --re", "COMP_CWORD": "2"}
    assert set(run(env=asked).stdout.split()) == {"--reason", "--release-after"}


def test_help_lists_every_command_and_exit_code(run):
    shown = " ".join(run("--help").stdout.split())
    for command in COMMANDS.split():
        assert f" {command} " in shown
    for code in ExitCode:
        assert f"{code.value} " in shown.split("Exit codes:")[1]


def test_help_says_what_to_write_and_shows_no_value_beside_a_flag(costctl):
    for arguments in ((), ("admit",), ("policy", "check"), ("override", "issue")):
        shown = costctl(*arguments, "--help").out
        assert "--help" in shown
        assert "<bool>" not in shown
        assert "list[str]" not in shown
    assert re.search(r"--accept +MODEL +This would do", costctl("admit", "--help").out)


def test_unknown_commands_are_wrong_usage(run):
    ended = run("spend")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "No such command 'spend'" in ended.stderr


def test_a_reader_that_goes_away_is_no_traceback(daemon, environ, pb):
    many = [pb.BudgetStatus(budget=f"b{number}", unit="nusd") for number in range(5_000)]
    daemon.answers["ListBudgets"] = pb.ListBudgetsResponse(budgets=many)
    with subprocess.Popen(
        [sys.executable, "-m", "costd.cli.costctl", "budgets", "--json"],
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_every_exit_code_is_documented():
    reference = Path(__file__).parents[3] / "docs/reference/costctl.md"
    text = reference.read_text()
    for code in ExitCode:
        assert f"| {code.value} |" in text


def test_every_command_is_documented():
    text = (Path(__file__).parents[3] / "docs/reference/costctl.md").read_text()
    groups = {
        "allowance": ("revoke",),
        "budget": ("top-up",),
        "ca": ("init", "issue", "show"),
        "kill": ("", "drill"),
        "lease": ("reclaim",),
        "override": ("keygen", "issue", "inspect"),
        "token": ("keygen", "issue", "inspect"),
        "policy": tuple(POLICY_COMMANDS.split()),
    }
    for command in COMMANDS.split():
        for name in groups.get(command, ("",)):
            assert f"{command} {name}".strip() in text
