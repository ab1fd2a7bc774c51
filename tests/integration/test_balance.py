"""`costctl balance` on a real daemon: its figures are those of the calls, over a restart too."""

import json

import pytest
from desk import USD, Desk
from typer.testing import CliRunner

from costd.cli.costctl import app
from costd.testing import DaemonProcess
from costd.wire.pb import admission_pb2 as pb

POLICY = """\
version: 1
unmatched: deny
tiers:
  premium: {models: [openai/gpt-4o]}
  economy: {models: [openai/gpt-4o-mini]}
task_classes:
  review: {critical: true, min_tier: premium, tier: premium}
  draft: {tier: premium}
budgets:
  - id: org
    window: total
    limit: $10
    reserve: 20%
    steps: [{at: 50%, do: [tier_down]}]
"""


@pytest.fixture
def desk(tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    with DaemonProcess(policy, "--claims", "*") as daemon:
        desk = Desk(daemon)
        yield desk
        desk.close()


def balance(desk, *options):
    arguments = ["balance", "--control", desk.daemon.control_address, *options]
    ran = CliRunner().invoke(app, arguments, env={"COLUMNS": "80", "NO_COLOR": "1"})
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def test_the_balance_is_that_of_the_calls_also_after_a_restart(desk):
    held = desk.hold(4.5, task_class="draft")
    desk.settle(held, 5, outcome=pb.OUTCOME_OK, retry_count=2)  # half is gone
    degraded = desk.admit(1, task_class="draft")
    assert (degraded.verdict, degraded.tier) == (pb.VERDICT_DEGRADE, "economy")
    desk.settle(degraded.reservation_id, 3, outcome=pb.OUTCOME_ERROR)
    assert desk.admit(0.5, task_class="draft").verdict == pb.VERDICT_DENY  # the rest is reserved
    review = desk.admit(1, task_class="review")
    assert (review.verdict, review.tier) == (pb.VERDICT_ALLOW, "premium")
    desk.settle(review.reservation_id, 1, outcome=pb.OUTCOME_OK)
    desk.engage("stop", scope={"task_class": "review"})
    for _ in range(2):
        assert desk.admit(0.1, task_class="review").reason == pb.REASON_KILL_SWITCH
    desk.restart()

    said = json.loads(balance(desk, "--json"))
    assert [row["task_class"] for row in said["classes"]] == ["review", "draft"]
    gates, others = said["gates"], said["others"]
    assert (gates["calls_count"], gates["cost_nusd"], gates["share_bp"]) == (1, USD, 1_111)
    assert (gates["allowed_count"], gates["degraded_count"]) == (1, 0)
    assert gates["denied_by"] == {"KILL_SWITCH": 2}
    assert gates["tiers"] == {"premium": 1}
    assert (others["calls_count"], others["cost_nusd"]) == (2, 8 * USD)
    assert (others["allowed_count"], others["degraded_count"]) == (1, 1)
    assert others["denied_by"] == {"BUDGET_EXHAUSTED": 1}
    assert others["tiers"] == {"premium": 1, "economy": 1}
    assert others["outcomes"] == {"ERROR": 1, "OK": 1}
    assert (others["retries_count"], gates["retries_count"]) == (2, 0)
    assert said["total"]["cost_nusd"] == desk.budget("org").settled
    (reserve,) = said["reserves"]
    assert (reserve["reserve"], reserve["reserve_used"]) == (2 * USD, USD)

    shown = balance(desk, "--since", "1h")
    assert max(map(len, shown.splitlines())) <= 80
    assert " ".join(shown.split()).endswith(
        "Quality gates took 11.11 % of the spend; none of 1 was degraded; "
        "2 were denied: KILL_SWITCH 2."
    )
    later = json.loads(balance(desk, "--since", "2100-01-01", "--json"))
    assert later["classes"] == []
