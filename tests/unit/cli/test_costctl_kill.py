"""kill, release, kills."""

import re
import socket

import grpc
import pytest

SECOND_NS = 1_000_000_000
MARCH_NS = 1_772_323_200 * SECOND_NS


@pytest.fixture
def switch(pb):
    return pb.KillSwitch(
        kill_id="kill-1",
        scope={"project": "api", "team": "a"},
        mode="deny_all",
        reason="runaway agent",
        actor="ann@host",
        engaged_ns=MARCH_NS,
        releases_ns=MARCH_NS + 600 * SECOND_NS,
        engaged=True,
    )


def test_kill_engages_a_scope_for_a_while(daemon, costctl, switch):
    daemon.answers["EngageKill"] = switch
    done = costctl(
        "kill", "--scope", "project=api", "--scope", "team=a", "--reason", "runaway agent",
        "--release-after", "10m", "--actor", "ann@host", "--id", "kill-1", "--utc",
    )  # fmt: skip
    assert done.code == 0
    request = daemon.last("EngageKill")
    assert dict(request.scope) == {"project": "api", "team": "a"}
    assert (request.kill_id, request.mode, request.max_tier) == ("kill-1", "deny_all", "")
    assert (request.reason, request.actor) == ("runaway agent", "ann@host")
    assert request.release_after.ToNanoseconds() == 600 * SECOND_NS
    assert re.search(
        r"kill-1 +ENGAGED +project=api, team=a +every call +runaway agent +ann@host +"
        r"2026-03-01 00:00:00Z +2026-03-01 00:10:00Z",
        done.out,
    )


def test_kill_names_the_switch_and_the_operator_itself(daemon, costctl, switch):
    daemon.answers["EngageKill"] = switch
    assert costctl("kill", "--reason", "x", "--mode", "critical_only").code == 0
    request = daemon.last("EngageKill")
    assert re.fullmatch(r"kill-[0-9a-f]{8}", request.kill_id)
    assert re.fullmatch(r"[^@]+@[^@]+", request.actor)
    assert request.mode == "critical_only"
    assert not request.HasField("release_after")


def test_a_tier_means_mode_max_tier(daemon, costctl, switch):
    daemon.answers["EngageKill"] = switch
    assert costctl("kill", "-r", "x", "--tier", "economy").code == 0
    request = daemon.last("EngageKill")
    assert (request.mode, request.max_tier) == ("max_tier", "economy")


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--reason", " "),
        ("--reason", "x", "--mode", "max_tier"),
        ("--reason", "x", "--mode", "deny_all", "--tier", "economy"),
        ("--reason", "x", "--mode", "softly"),
        ("--reason", "x", "--scope", "everything"),
        ("--reason", "x", "--release-after", "soon"),
    ],
)
def test_a_kill_that_is_not_clear_engages_nothing(daemon, costctl, options):
    assert costctl("kill", *options).code == 2
    assert not daemon.requests


def test_release_says_who_and_why(daemon, costctl, switch):
    switch.engaged, switch.released_by, switch.releases_ns = False, "bob@host", 0
    switch.released_ns = MARCH_NS + 60 * SECOND_NS
    daemon.answers["ReleaseKill"] = switch
    done = costctl("release", "kill-1", "-r", "fixed", "--actor", "bob@host", "--utc")
    assert done.code == 0
    request = daemon.last("ReleaseKill")
    assert (request.kill_id, request.reason, request.actor) == ("kill-1", "fixed", "bob@host")
    assert re.search(r"kill-1 +released by bob@host .* 2026-03-01 00:01:00Z\n", done.out)


def test_kills_lists_what_stops_calls(daemon, costctl, switch, pb):
    other = pb.KillSwitch(kill_id="kill-2", mode="max_tier", max_tier="economy", engaged=True)
    daemon.answers["ListKills"] = pb.ListKillsResponse(kills=[switch, other])
    out = costctl("kills").out
    assert re.search(r"kill-2 +ENGAGED +everything +tiers above economy .* by hand", out)
    assert costctl("kills", "--released", "--json").json()["kills"][0]["kill_id"] == "kill-1"
    assert daemon.last("ListKills").include_released is True


def left_behind(path):
    """A socket that nobody listens on any more."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    return f"unix:{path}"


def test_where_a_coordinator_is_gone_it_is_said_how_daemons_are_stopped_without(costctl, tmp_path):
    address = left_behind(tmp_path / "coordinator.sock")
    done = costctl("kill", "--reason", "runaway", "--control", address)
    assert done.code == 5
    assert f"no coordinator answers at {address}: nobody listens on" in done.err
    assert "Start one with `costd coordinator --policy FILE" in done.err
    assert "at its own control socket (--control), or by its kill file" in done.err
    assert "kill file" not in costctl("kills", "--control", address).err


def test_what_a_database_hinders_is_not_taken_for_a_coordinator_that_is_gone(daemon, costctl):
    """It told of a connection as well, but not of ours."""
    daemon.answers["ListKills"] = (grpc.StatusCode.UNAVAILABLE, "no connection to PostgreSQL")
    done = costctl("kills")
    assert done.code == 5
    assert done.err == (
        f"costctl: somebody is at {daemon.control}, but cannot answer this now: no connection to "
        "PostgreSQL\n"
    )
