"""costctl at a real coordinator with real daemons."""

import json
import re

import pytest
from desk import Desk
from typer.testing import CliRunner

from costd.cli.costctl import app
from costd.testing.fleet import wait_until
from costd.wire.pb import admission_pb2 as pb

POLICY = """\
version: 1
task_classes: {draft: {}}
default_task_class: draft
budgets:
  - {id: shared, window: total, limit: $2}
  - {id: both, match: {user: "*"}, per: [user, project], window: day, limit: $1}
  - {id: here, window: total, limit: $100, share: host}
fleet: {lease_wait_ms: 5000}
"""


@pytest.fixture
def running(fleet):
    return fleet(POLICY, "--tenure-s", "1", "--skew-max-s", "0.1").start(daemons=2)


@pytest.fixture
def costctl(running):
    def run(*arguments, control=running.coordinators[0].control_socket):
        result = CliRunner().invoke(
            app,
            [str(each) for each in arguments],
            env={"COSTD_CONTROL_ADDRESS": f"unix:{control}", "COLUMNS": "160", "NO_COLOR": "1"},
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout + result.stderr

    return run


def test_an_operator_looks_after_a_fleet(running, costctl, tmp_path):
    code, said = costctl("fleet")
    assert code == 0
    assert re.search(r"d1 .* current ", said)
    assert re.search(
        r"\ncoordinator c1-\w{12} at 127\.0\.0\.1:0; version \S+; heard \S+ ago\n", said
    )
    assert said.endswith("at worst the fleet overspends its budgets by $0.00\n")
    code, said = costctl("kill", "drill", "--timeout", "10s")
    assert code == 0, said
    assert "2 of 2 daemons heard" in said
    assert "d1" in costctl("top", "--once")[1]

    desk = Desk(running.daemons[0])
    labels = {"user": "ann", "project": "api"}
    desk.settle(desk.hold(1.00, labels=labels), 1.00)
    assert not desk.admit(0.50, labels=labels).reservation_id

    def settled():
        leases = json.loads(costctl("leases", "--daemon", "d1", "--budget", "both", "--json")[1])
        return [row["settled"] for row in leases["leases"]] == [1_000_000_000]

    wait_until(settled, "the daemon has reported what was settled")
    code, said = costctl(
        "budget", "top-up", "both", "0.50", "--key", "project=api", "--key", "user=ann", "-r", "x"
    )
    assert (code, said.startswith("both may spend $1.50 now, $0.50 of it")) == (0, True), said
    wait_until(lambda: desk.admit(0.50, labels=labels).reservation_id, "the top-up is spent")
    assert costctl("budget", "top-up", "here", "5", "-r", "x")[0] == 4
    key = ("--key", "project=api", "--key", "user=ann", "-r", "a slip")
    code, said = costctl("budget", "top-up", "both", "9223372036", *key)
    assert code == 1, said
    assert "it must stay between 0 and" in said
    assert desk.admit(0.50, labels=labels).reason == pb.REASON_BUDGET_EXHAUSTED

    policy = tmp_path / "next.yaml"
    policy.write_text(POLICY.replace("limit: $2", "limit: $9"))
    assert costctl("policy", "apply", policy, "--after", "7")[0] == 4
    code, said = costctl("policy", "apply", policy, "--after", "1", "--note", "more")
    assert code == 0, said

    def everybody_has_it():
        newest = json.loads(costctl("policy", "history", "--json")[1])["policies"][0]
        return (newest["number"], newest["note"], newest["daemons_count"]) == (2, "more", 2)

    wait_until(everybody_has_it, "both daemons have the new policy")
    assert "$9.00" in costctl("budgets", "shared")[1]
    assert costctl("policy", "rollback", "1")[1].startswith("policy 3 ")
    policy.write_text("version: 1\nbudgets: none\n")
    assert costctl("policy", "apply", policy)[0] == 6


def test_what_a_dead_daemon_may_have_spent_is_reclaimed_once_it_may_spend_no_more(running, costctl):
    Desk(running.daemons[1]).hold(0.25, labels={})
    wait_until(lambda: "d2" in costctl("leases", "--budget", "shared")[1], "it holds a lease")
    code, said = costctl("lease", "reclaim", "d2", "-r", "too early")
    assert code == 4, said
    assert "may still spend" in said
    running.daemons[1].kill()

    def reclaimed():
        code, said = costctl("lease", "reclaim", "d2", "-r", "gone")
        assert code in {0, 4}, said
        return said if code == 0 else ""

    said = wait_until(reclaimed, "its tenure is over")
    assert re.search(r"shared +d2 ", said)
    assert "reclaimed $" in said
    assert "leases_reclaimed" in costctl("audit")[1]
    code, said = costctl("drill")
    assert code == 0, said


def test_a_daemon_says_that_it_is_no_coordinator_and_the_other_way_round(running, costctl):
    daemon = running.daemons[0].control_socket
    code, said = costctl("fleet", control=daemon)
    assert (code, "is a daemon's address" in said) == (1, True), said
    code, said = costctl("allowances")
    assert (code, "is a coordinator, and this is asked of each daemon" in said) == (1, True), said
    assert costctl("drill", control=daemon)[0] == 0
