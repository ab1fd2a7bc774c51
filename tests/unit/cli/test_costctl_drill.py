"""drill."""

import re
import threading

import grpc
import pytest

from costd.cli import connection, drill

MS = 1_000_000


@pytest.fixture
def report(pb):
    return pb.DrillReport(
        drill_id="drill-1",
        generation=8,
        written_ns=1_250_000,
        attached_count=2,
        confirmed_count=2,
        p50_ns=3 * MS,
        max_ns=1_204 * MS,
        processes=[
            pb.DrilledProcess(
                session_id="session-of-bob", caller="bob", confirmed_ns=1_204 * MS, attached=True
            ),
            pb.DrilledProcess(
                session_id="session-of-ann",
                caller="ann",
                confirmed_ns=3 * MS,
                attached=True,
                allowances_count=2,
            ),
        ],
        note="callers that ask one by one hear at their next ask",
    )


def test_a_drill_shows_who_heard_and_how_long_that_took(daemon, costctl, report):
    daemon.answers["Drill"] = report
    done = costctl("drill", "--scope", "team=a", "-r", "monthly", "--actor", "ann@host")
    assert done.code == 0
    request = daemon.last("Drill")
    assert dict(request.scope) == {"team": "a"}
    assert (request.reason, request.actor) == ("monthly", "ann@host")
    assert request.timeout.ToNanoseconds() == 2_000 * MS
    assert re.search(r"session-of-bob +bob +1,204.0 ms +yes +0\n", done.out)
    assert re.search(r"session-of-ann +ann +3.0 ms +yes +2\n", done.out)
    assert done.out.endswith(
        "drill-1: written after 1.2 ms; 2 confirmed\n"
        "client processes: p50 3.0 ms  p99 1,204.0 ms  max 1,204.0 ms\n"
        "everyone confirmed\ncallers that ask one by one hear at their next ask\n"
    )


def test_who_did_not_confirm_makes_the_command_fail(daemon, costctl, report, pb):
    report.processes.insert(0, pb.DrilledProcess(session_id="session-of-eve", caller="eve"))
    daemon.answers["Drill"] = report
    done = costctl("drill", "--timeout", "300ms")
    assert done.code == 7
    assert daemon.last("Drill").timeout.ToNanoseconds() == 300 * MS
    assert re.search(r"session-of-eve +eve +NOT CONFIRMED +no +0\n", done.out)
    assert "1 did not confirm in time\n" in done.out
    assert "everyone" not in done.out
    as_json = costctl("drill", "--json")
    assert as_json.code == 7
    assert as_json.json()["processes"][0]["confirmed_ns"] is None


def test_a_drill_is_waited_for_beyond_what_any_other_answer_may_take(
    daemon, costctl, report, monkeypatch
):
    monkeypatch.setattr(connection, "ANSWER_S", 0.2)

    def late(context):
        gone = threading.Event()
        context.add_callback(gone.set)
        assert not gone.wait(0.6), "the command has hung up"
        return report

    daemon.answers["Drill"] = late
    done = costctl("drill", "--timeout", "30s")
    assert (done.code, done.err) == (0, "")


def test_who_left_holding_nothing_is_no_failure(daemon, costctl, report, pb):
    report.processes.append(pb.DrilledProcess(session_id="s" * 16, caller="eve", left=True))
    daemon.answers["Drill"] = report
    done = costctl("drill")
    assert done.code == 0
    assert re.search(r"s{16} +eve +left +no", done.out)


def test_nobody_attached_is_said_in_words(daemon, costctl, pb):
    daemon.answers["Drill"] = pb.DrillReport(drill_id="drill-1", written_ns=MS, note="a note")
    done = costctl("drill")
    assert done.code == 0
    assert done.out == (
        "no client process is attached or holds an allowance\n"
        "drill-1: written after 1.0 ms; 0 confirmed\na note\n"
    )


def test_for_programs_the_document_is_the_daemons_answer(daemon, costctl, report):
    daemon.answers["Drill"] = report
    document = costctl("drill", "--json").json()
    assert (document["drill_id"], document["max_ns"]) == ("drill-1", 1_204 * MS)
    assert [row["caller"] for row in document["processes"]] == ["bob", "ann"]


def test_colour_marks_who_did_not_confirm(daemon, costctl, report, pb):
    report.processes.insert(0, pb.DrilledProcess(session_id="session-of-eve", caller="eve"))
    daemon.answers["Drill"] = report
    out = costctl("drill", env={"NO_COLOR": "", "FORCE_COLOR": "1", "TERM": "xterm"}).out
    assert re.search(r"\x1b\[[\d;]*41m *NOT CONFIRMED", out)


@pytest.mark.parametrize("options", [("--timeout", "soon"), ("--scope", "everything")])
def test_a_drill_that_is_not_clear_is_not_asked_for(daemon, costctl, options):
    assert costctl("drill", *options).code == 2
    assert not daemon.requests


def test_what_the_daemon_refuses_is_said(daemon, costctl):
    daemon.answers["Drill"] = (grpc.StatusCode.INVALID_ARGUMENT, "timeout must be at most 60 s")
    done = costctl("drill", "--timeout", "2m")
    assert done.code == 1
    assert "timeout must be at most 60 s" in done.err


def test_drill_is_a_kind_of_kill(daemon, costctl, report):
    daemon.answers["Drill"] = report
    done = costctl("kill", "drill", "--timeout", "1s", "-r", "monthly")
    assert done.code == 0
    assert daemon.last("Drill").reason == "monthly"
    assert "EngageKill" not in daemon.requests


def test_options_before_the_word_drill_would_be_lost(daemon, costctl):
    done = costctl("kill", "--reason", "monthly", "drill")
    assert done.code == 2
    assert "costctl kill drill --reason" in done.err
    assert not daemon.requests


def heard(pb, name, after_ms=None, **more):
    row = pb.DrilledDaemon(name=name, daemon_id=f"daemon-{name}", **more)
    if after_ms is not None:
        row.heard_ns = after_ms * MS
    return row


@pytest.fixture
def fleet_report(pb):
    daemons = [
        heard(pb, f"d{n}", n, clients_count=2, clients_max_ns=2 * n * MS) for n in range(1, 6)
    ]
    return pb.FleetDrillReport(
        drill_id="drill-2",
        daemons_count=5,
        confirmed_count=5,
        p50_ns=3 * MS,
        p99_ns=5 * MS,
        max_ns=5 * MS,
        clients_count=10,
        clients_max_ns=10 * MS,
        daemons=daemons,
        elsewhere_count=0,
    )


@pytest.mark.parametrize("command", [("drill",), ("kill", "drill")])
def test_at_a_coordinator_a_drill_reaches_every_daemon_and_client(
    coordinator, fleetctl, fleet_report, command
):
    coordinator.answers["DrillFleet"] = fleet_report
    done = fleetctl(*command, "--timeout", "3s", "-r", "monthly", "--actor", "ann@host")
    assert done.code == 0
    request = coordinator.last("DrillFleet")
    assert (request.reason, request.actor) == ("monthly", "ann@host")
    assert request.timeout.ToNanoseconds() == 3_000 * MS
    assert re.search(r"d5 +5.0 ms +2 +10.0 ms\n", done.out)
    assert "drill-2: 5 of 5 daemons heard, and 10 clients confirmed\n" in done.out
    assert "daemons: p50 3.0 ms  p99 5.0 ms  max 5.0 ms\n" in done.out
    assert re.search(r"≤ 2.0 ms +█+ +1\n", done.out)
    assert "the last client of each daemon: p50 6.0 ms  p99 10.0 ms  max 10.0 ms\n" in done.out
    assert done.out.endswith("everyone confirmed\n")
    assert fleetctl(*command, "--json").json()["confirmed_count"] == 5


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (3, f"3 {drill.ELSEWHERE}"),
        (None, drill.UNKNOWN),
    ],
)
def test_a_drill_claims_nothing_of_daemons_that_it_did_not_find(
    coordinator, fleetctl, fleet_report, count, said
):
    fleet_report.ClearField("elsewhere_count")
    if count is not None:
        fleet_report.elsewhere_count = count
    coordinator.answers["DrillFleet"] = fleet_report
    done = fleetctl("drill")
    assert done.code == 0
    assert " ".join(done.out.split()).endswith(f"{said} everyone who was asked confirmed")


@pytest.mark.parametrize(("count", "said"), [(3, f"3 {drill.ELSEWHERE}"), (None, drill.UNKNOWN)])
def test_a_drill_that_found_nobody_though_somebody_may_be_there_fails(
    coordinator, fleetctl, pb, count, said
):
    report = pb.FleetDrillReport(drill_id="drill-2")
    if count is not None:
        report.elsewhere_count = count
    coordinator.answers["DrillFleet"] = report
    done = fleetctl("drill")
    assert done.code == 7
    assert " ".join(done.out.split()).endswith(f"{said} nobody confirmed")
    assert "everyone" not in done.out
    assert fleetctl("drill", "--json").code == 7


def test_a_drill_of_a_fleet_that_has_nobody_is_no_failure(coordinator, fleetctl, pb):
    coordinator.answers["DrillFleet"] = pb.FleetDrillReport(drill_id="d", elsewhere_count=0)
    done = fleetctl("drill")
    assert done.code == 0
    assert done.out == "no daemon has a stream\nd: 0 of 0 daemons heard, and 0 clients confirmed\n"


def test_a_daemon_that_did_not_hear_makes_the_command_fail(coordinator, fleetctl, fleet_report, pb):
    fleet_report.daemons.insert(0, heard(pb, "d0"))
    fleet_report.daemons.insert(0, heard(pb, "d9", 9, unconfirmed_clients_count=2))
    fleet_report.unconfirmed_clients_count = 2
    coordinator.answers["DrillFleet"] = fleet_report
    done = fleetctl("kill", "drill")
    assert done.code == 7
    assert re.search(r"d0 +NOT CONFIRMED", done.out)
    assert re.search(r"d9 +9.0 ms +0 +2", done.out)
    assert done.out.endswith("3 did not confirm in time\n")


def test_a_coordinator_drills_the_whole_fleet_only(coordinator, fleetctl):
    done = fleetctl("drill", "--scope", "team=a")
    assert done.code == 2
    assert "a coordinator drills the whole fleet" in done.err


def test_a_large_fleet_is_cut_to_those_that_matter(coordinator, fleetctl, pb):
    rows = [heard(pb, f"d{n:03}", 200 - n) for n in range(100)]
    coordinator.answers["DrillFleet"] = pb.FleetDrillReport(
        drill_id="d", daemons_count=100, confirmed_count=100, daemons=rows
    )
    out = fleetctl("drill").out
    assert "d019" in out
    assert "d020" not in out
    assert "and 80 faster\n" in out
    assert "p50 150.0 ms  p99 199.0 ms  max 200.0 ms" in out
