"""top: frames from snapshots, one frame printed, and a live screen that is left cleanly."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import grpc
import pytest
from rich.console import Console

from costd.cli.top import Snapshot, fitted, frame

SECOND_NS = 1_000_000_000
MARCH_NS = 1_772_323_200 * SECOND_NS


@pytest.fixture
def status(pb):
    def status(elapsed_s=0, **changes):
        fields = {
            "version": "0.1.0",
            "policy_revision": "r1",
            "started_ns": MARCH_NS,
            "now_ns": MARCH_NS + (60 + elapsed_s) * SECOND_NS,
            "decisions": {"allow/draft": 100},
            "reserved_nusd": 1_000_000_000,
            "open_reservations_count": 3,
        }
        return pb.Status(**(fields | changes))

    return status


@pytest.fixture
def answering(daemon, status, pb):
    """A daemon with something to see."""
    daemon.answers |= {
        "GetStatus": status(),
        "ListBudgets": pb.ListBudgetsResponse(
            budgets=[
                pb.BudgetStatus(
                    budget=f"b{number:02}",
                    unit="nusd",
                    limit=100,
                    settled=number,
                    utilisation_bp=number * 100,
                    active=True,
                    in_policy=True,
                )
                for number in range(20)
            ]
        ),
        "ListKills": pb.ListKillsResponse(
            kills=[pb.KillSwitch(kill_id="k1", mode="deny_all", engaged=True)]
        ),
        "ListAlerts": pb.ListAlertsResponse(alerts=[pb.Alert(kind="overrun", message="dear call")]),
    }
    return daemon


def draw(before, now):
    screen = Console(file=io.StringIO(), width=160, color_system=None)
    screen.print(frame(before, now, utc=True))
    return screen.file.getvalue()


def snapshot(status):
    return Snapshot(status=status, budgets=(), kills=(), alerts=())


def test_rates_are_differences_by_the_daemons_clock(status):
    before = snapshot(status())
    now = snapshot(status(2, decisions={"allow/draft": 125, "deny/draft": 3, "degrade/x": 1}))
    out = draw(before, now)
    assert re.search(r"draft +125 +12\.5 +0 +0\.0 +3 +1\.5", out)
    assert re.search(r"x +0 +0\.0 +1 +0\.5 +0 +0\.0", out)


@pytest.mark.parametrize("elapsed_s", [0, -5])
def test_no_rate_is_shown_without_time_in_between(status, elapsed_s):
    out = draw(snapshot(status()), snapshot(status(elapsed_s, decisions={"allow/draft": 125})))
    assert re.search(r"draft +125 +0 +0 *\n", out)


def test_a_restarted_daemon_has_no_rates_yet(status):
    before = snapshot(status(decisions={"allow/draft": 10_000}))
    now = snapshot(status(5, started_ns=MARCH_NS + 1, decisions={"allow/draft": 2}))
    assert re.search(r"draft +2 +0 +0 *\n", draw(before, now))


def test_a_refused_policy_is_on_screen(status):
    assert "policy refused: line 3 [x]" in draw(None, snapshot(status(policy_error="line 3 [x]")))


@pytest.mark.parametrize(("height", "budgets_count"), [(20, 1), (24, 4), (30, 6), (60, 12)])
def test_a_frame_is_no_longer_than_the_screen(status, pb, height, budgets_count):
    kill = pb.KillSwitch(kill_id="kill-1", mode="deny_all", engaged=True, reason="a loop")
    now = Snapshot(
        status=status(),
        budgets=tuple(
            pb.BudgetStatus(
                budget=f"user-day-{number:02}", unit="nusd", limit=10**9, settled=number,
                window="day", window_end_ns=MARCH_NS, overrun=5, active=True, in_policy=True,
            )
            for number in range(20)
        ),
        kills=(kill,),
        alerts=tuple(pb.Alert(raised_ns=MARCH_NS, message="dear call " * 20) for _ in range(5)),
    )  # fmt: skip
    screen = Console(file=io.StringIO(), width=80, height=height, color_system=None)
    screen.print(fitted(screen, None, now, utc=True))
    drawn = screen.file.getvalue().splitlines()
    assert len(drawn) <= height
    assert sum("user-day-" in line for line in drawn) == budgets_count
    assert any("kill-1" in line for line in drawn)
    assert sum("dear call" in line for line in drawn) >= 1


def test_once_prints_one_frame_fullest_budgets_first(answering, costctl):
    shown = costctl("top", "--once", "--utc")
    assert shown.code == 0
    assert re.search(r"costd 0\.1\.0  2026-03-01 00:01:00Z  up 1m", shown.out)
    assert re.findall(r"\bb\d\d\b", shown.out) == [f"b{number:02}" for number in range(19, 7, -1)]
    assert "and 8 less full" in shown.out
    assert re.search(r"k1 +ENGAGED", shown.out)
    assert "dear call" in shown.out


def test_once_without_a_daemon_ends_with_5(costctl):
    assert costctl("top", "--once").code == 5


def test_an_interval_must_be_sensible(answering, costctl):
    assert costctl("top", "--interval", "0").code == 2


class Screen:
    """costctl top in a terminal of its own."""

    def __init__(self, environ):
        self.leader, follower = pty.openpty()
        command = [sys.executable, "-m", "costd.cli.costctl", "top", "--interval", "0.1", "--utc"]
        env = os.environ | environ | {"TERM": "xterm", "LINES": "50"}
        self.process = subprocess.Popen(  # a session of its own, as a terminal's job has
            command,
            env=env,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
        )
        os.close(follower)
        self.seen = b""

    def wait_for(self, text, within_s=20):
        """Read until the text is on the screen; only text that came after the last one counts."""
        deadline = time.monotonic() + within_s
        start = len(self.seen)
        while text.encode() not in self.seen[start:]:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"{text!r} never came; saw {self.seen[-2000:]!r}"
            if select.select([self.leader], [], [], left_s)[0]:
                self.seen += os.read(self.leader, 65_536)

    def end(self):
        """Let it finish, taking in what it still prints."""
        while select.select([self.leader], [], [], 20)[0]:
            try:
                chunk = os.read(self.leader, 65_536)
            except OSError:
                break
            if not chunk:
                break
            self.seen += chunk
        os.close(self.leader)
        return self.process.wait(timeout=20)


@pytest.fixture
def screen(answering, environ):
    made = Screen(environ)
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.wait()


@pytest.mark.parametrize("leave", ["q", "ctrl-c"])
def test_the_live_screen_follows_and_is_left_cleanly(screen, answering, status, pb, leave):
    screen.wait_for("draft")
    answering.answers["GetStatus"] = status(1, decisions={"allow/draft": 142})
    screen.wait_for("142")
    answering.answers["GetStatus"] = (grpc.StatusCode.UNAVAILABLE, "restarting")
    screen.wait_for("cannot answer this now: restarting")
    answering.answers["GetStatus"] = status(2, decisions={"allow/draft": 777})
    screen.wait_for("777")
    if leave == "q":
        os.write(screen.leader, b"q")
    else:
        screen.process.send_signal(signal.SIGINT)
    assert screen.end() == 0
    assert b"Traceback" not in screen.seen
    assert screen.seen.rstrip().endswith(b"\x1b[?1049l\x1b[?25h") or b"\x1b[?1049l" in screen.seen
