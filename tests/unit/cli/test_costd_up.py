"""costd up: what it starts, with which settings."""

import os
from pathlib import Path

import pytest

from costd.cli.up import Plan, _environment
from costd.coordinator import settings as coordinator_settings
from costd.daemon import settings as daemon_settings

PLAN = Plan(
    policy=Path("/etc/p.yaml"),
    data=Path("/srv/data"),
    socket=Path("/srv/run/costd.sock"),
    listen="127.0.0.1:9466",
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for variable in [name for name in os.environ if name.startswith("COSTD_")]:
        monkeypatch.delenv(variable)


def settings_of(arguments):
    flags = [argument.removeprefix("--").partition("=") for argument in arguments]
    return {name.replace("-", "_"): value or "true" for name, _, value in flags}


def test_the_daemon_joins_the_coordinator_that_is_started_with_it():
    coordinator, daemon = PLAN.parts()
    theirs = coordinator_settings.load_settings(settings_of(coordinator.command[4:]))
    ours = daemon_settings.load_settings(settings_of(daemon.command[4:]))
    assert ours.coordinator == (theirs.listen,) == ("127.0.0.1:9466",)
    assert (str(ours.data), str(theirs.data)) == ("/srv/data", "/srv/data/coordinator")
    sockets = {path.name for path in (ours.socket, ours.control_socket, theirs.control_socket)}
    assert sockets == {"costd.sock", "control.sock", "coordinator.sock"}
    assert ours.policy is None


def test_a_policy_is_published_at_the_first_start_only():
    coordinator, daemon = PLAN.parts()
    assert coordinator.first_only == ("--policy=/etc/p.yaml",)
    assert not [each for each in (*coordinator.command, *daemon.command) if "policy" in each]


def test_of_the_environment_only_the_database_is_for_both(monkeypatch):
    monkeypatch.setenv("COSTD_POLICY", "/etc/other.yaml")
    monkeypatch.setenv("COSTD_DATABASE_URL", "postgresql://db/costd")
    kept = {name for name in _environment() if name.startswith("COSTD_")}
    assert kept == {"COSTD_DATABASE_URL"}
    assert "PATH" in _environment()
