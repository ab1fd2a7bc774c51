"""policy check, show, diff, test, reload."""

import re
from pathlib import Path

import grpc
import pytest

GOOD = """\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
  economy: {models: [openai/gpt-4o-mini]}
task_classes:
  draft: {}
  review: {critical: true, min_tier: premium}
default_task_class: draft
default_tier: premium
budgets:
  - id: month
    window: month
    limit: $10
    steps:
      - {at: 80%, do: [economy]}
"""
EXPECTED = """\
scenarios:
  the month is full:
    - at: 2026-03-01T10:00:00Z
      ask: {estimated_cost: $1, tier: premium}
      as: first
      expect: {verdict: allow, reason: OK, tier: premium, hold: $1, tightest: month}
    - settle: {ask: first, cost: $9.50}
    - ask: {task_class: review, estimated_cost: $1, tier: premium}
      expect: {verdict: deny, reason: BUDGET_EXHAUSTED, rule: month}
    - kill: {id: drill, mode: deny_all}
    - ask: {estimated_cost: $0.01, tier: premium}
      expect: {verdict: deny, reason: KILL_SWITCH}
    - release: drill
    - spend: {cost: $3}
    - ask: {estimated_cost: $0.01, tier: premium}
      expect: {verdict: deny}
    - at: 2026-04-01T00:00:00Z
      ask: {estimated_cost: $0.01, tier: premium}
      as: second
      expect: {verdict: allow, directives: {}}
    - void: second
"""
REFUSED = """\
scenarios:
  refused:
    - at: 2026-03-01
      ask: {estimated_cost: $11, tier: premium}
      as: big
      expect: {verdict: deny}
    - void: big
"""
EXPIRY = """\
scenarios:
  expiry:
    - at: 2026-03-01T00:00:00Z
      ask: {estimated_cost: $10, tier: premium, ttl: 10m}
      as: all
      expect: {verdict: allow}
    - at: 2026-03-01T01:00:00Z
      settle: {ask: all, cost: $1}
    - ask: {estimated_cost: $6, tier: premium}
      expect: {verdict: allow}
"""


@pytest.fixture
def policy(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text(GOOD)
    return file


def test_check_accepts_a_sound_policy(costctl, policy):
    checked = costctl("policy", "check", policy)
    assert checked.code == 0
    assert re.search(r"policy\.yaml: valid, revision [0-9a-f]+", checked.out)
    assert "2 tiers, 2 task classes, 1 budgets" in checked.out
    assert "warning" not in checked.out


def test_check_names_file_line_and_path_of_each_fault(costctl, policy):
    policy.write_text(GOOD.replace("$10", "-10").replace("month\n    limit", "moon\n    limit"))
    checked = costctl("policy", "check", policy)
    assert (checked.code, checked.out) == (6, "")
    faults = checked.err.splitlines()
    assert len(faults) == 2
    assert re.match(r"costctl: .*policy\.yaml:12: budgets\[0\]\.window", faults[0])
    assert re.match(r"costctl: .*policy\.yaml:13: budgets\[0\]\.limit: .*negative", faults[1])
    document = costctl("policy", "check", policy, "--json")
    assert document.code == 6
    assert document.json()["valid"] is False
    assert len(document.json()["problems"]) == 2


def test_check_of_a_file_that_is_not_there_says_so(costctl, tmp_path):
    checked = costctl("policy", "check", tmp_path / "none.yaml")
    assert checked.code == 6
    assert "none.yaml" in checked.err


def test_check_warns_where_a_lower_tier_is_dearer(costctl, policy):
    swapped = GOOD.replace("gpt-4o]", "gpt-4o-swap]").replace("gpt-4o-mini]", "gpt-4o]")
    policy.write_text(swapped.replace("gpt-4o-swap]", "gpt-4o-mini]"))
    checked = costctl("policy", "check", policy)
    assert checked.code == 0
    assert "warning: tier economy: openai/gpt-4o is dearer" in checked.out
    warnings = costctl("policy", "check", policy, "--json").json()["warnings"]
    assert any("is dearer" in warning for warning in warnings)


def test_diff_says_which_counters_start_anew(costctl, policy, tmp_path):
    new = tmp_path / "new.yaml"
    new.write_text(
        GOOD.replace("$10", "$20").replace("window: month", "window: week")
        + "  - {id: day, window: day, limit: $1}\n"
    )
    compared = costctl("policy", "diff", policy, new)
    assert compared.code == 0
    assert "changed budgets month  counters new" in compared.out
    assert "limit: $10.00 → $20.00" in compared.out
    assert "added budgets day  counters new" in compared.out
    changes = costctl("policy", "diff", policy, new, "--json").json()["changes"]
    assert {change["rule_id"]: change["counters"] for change in changes} == {
        "month": "new",
        "day": "new",
    }
    assert costctl("policy", "diff", policy, policy).out == "the two policies say the same\n"


def test_test_plays_expected_decisions_through_the_real_engine(costctl, policy, tmp_path):
    (tmp_path / "policy.expect.yaml").write_text(EXPECTED)
    played = costctl("policy", "test", policy)
    assert played.code == 0, played.out
    assert "5 decisions, 0 not as expected" in played.out
    document = costctl("policy", "test", policy, "--json").json()
    assert document["passed"] is True
    assert document["decisions_count"] == 5


def test_test_says_what_was_expected_and_what_came(costctl, policy, tmp_path):
    wrong = EXPECTED.replace("verdict: allow, reason: OK, tier: premium, hold: $1", (
        "verdict: degrade, reason: STEP, tier: economy, hold: $2, model: openai/gpt-4o-mini, "
        "threshold: 80%, shadow: deny, directives: {max_retries: 1, cache: true}"
    ))  # fmt: skip
    expectations = tmp_path / "other.yaml"
    expectations.write_text(wrong)
    played = costctl("policy", "test", policy, "--expect", expectations)
    assert played.code == 6
    for line in (
        "verdict: expected degrade, got allow",
        "reason: expected STEP, got OK",
        "tier: expected economy, got premium",
        "model: expected openai/gpt-4o-mini, got openai/gpt-4o",
        "directives: expected max_retries=1, cache, got none",
        "hold: expected $2.00, got $1.00",
        "threshold: expected 80.00 %, got 0.00 %",
        "shadow_verdict: expected deny, got none",
    ):
        assert line in played.out
    assert "5 decisions, 1 not as expected" in played.out
    document = costctl("policy", "test", policy, "--expect", expectations, "--json")
    assert (document.code, document.json()["passed"]) == (6, False)


def test_a_step_that_cannot_be_taken_is_a_failure(costctl, policy, tmp_path):
    (tmp_path / "policy.expect.yaml").write_text(
        EXPECTED.replace("release: drill", "release: another")
    )
    played = costctl("policy", "test", policy)
    assert played.code == 6
    assert "no kill switch 'another' is engaged here" in played.out
    (tmp_path / "policy.expect.yaml").write_text(REFUSED)
    assert "the ask 'big' was refused" in costctl("policy", "test", policy).out


def test_money_that_nobody_settles_expires_in_a_scenario_too(costctl, policy, tmp_path):
    (tmp_path / "policy.expect.yaml").write_text(EXPIRY)
    played = costctl("policy", "test", policy)
    assert played.code == 0, played.out


def test_the_example_for_envoy_answers_what_it_expects(costctl):
    played = costctl("policy", "test", Path(__file__).parents[3] / "policies/envoy/policy.yaml")
    assert (played.code, played.out.splitlines()[-1]) == (0, "5 decisions, 0 not as expected")


def test_expectations_that_expect_nothing_or_are_not_there_fail(costctl, policy, tmp_path):
    missing = costctl("policy", "test", policy)
    assert missing.code == 6
    assert "policy.expect.yaml" in missing.err
    (tmp_path / "policy.expect.yaml").write_text("scenarios: {}\n")
    empty = costctl("policy", "test", policy)
    assert empty.code == 6
    assert "expects no decision at all" in empty.err
    (tmp_path / "policy.expect.yaml").write_text("scenarios: [\n")
    assert costctl("policy", "test", policy).code == 6


def test_show_prints_the_policy_in_force_and_no_control_characters(daemon, costctl, pb):
    daemon.answers["GetPolicy"] = pb.Policy(
        revision="r1", path="/p.yaml", yaml="version: 1\n# [bold]\x1b[2J\n\tx: 1\n", loaded_ns=1
    )
    out = costctl("policy", "show", "--utc").out
    assert out == (
        "# /p.yaml revision r1, loaded 1970-01-01 00:00:00Z\n"
        "version: 1\n# [bold]\\x1b[2J\n    x: 1\n"
    )
    assert costctl("policy", "show", "--json").json()["yaml"].startswith("version: 1\n")


def test_reload_says_what_is_in_force_or_why_not(daemon, costctl, pb):
    daemon.answers["ReloadPolicy"] = pb.Policy(revision="r2", path="/p.yaml", loaded_ns=1)
    assert "/p.yaml revision r2" in costctl("policy", "reload", "--actor", "ann").out
    assert daemon.last("ReloadPolicy").actor == "ann"
    daemon.answers["ReloadPolicy"] = (grpc.StatusCode.INVALID_ARGUMENT, "/p.yaml:3: limit: bad")
    refused = costctl("policy", "reload")
    assert refused.code == 1
    assert refused.err == "costctl: INVALID_ARGUMENT: /p.yaml:3: limit: bad\n"
