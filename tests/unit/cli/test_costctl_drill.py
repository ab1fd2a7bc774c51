"""drill."""

import re
import threading

import grpc
import pytest

from costd.cli import connection

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
        "drill-1: written after 1.2 ms; 2 confirmed, half of them within 3.0 ms, the last after "
        "1,204.0 ms\neveryone confirmed\ncallers that ask one by one hear at their next ask\n"
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
        "drill-1: written after 1.0 ms\na note\n"
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
