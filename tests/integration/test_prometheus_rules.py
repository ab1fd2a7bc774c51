"""The rules for Prometheus, checked by its own tool; what their runbooks say can be done."""

import re
import subprocess
from pathlib import Path

import pytest
import typer.main
from ruamel.yaml import YAML
from scraping import DEPLOY, program

from costd.cli.costctl import app

RULES = DEPLOY / "prometheus"
METRICS = (Path(__file__).parents[2] / "docs" / "operating" / "metrics.md").read_text()
FILES = ("recording.yaml", "alerts.yaml")


def loaded(name):
    return YAML(typ="safe").load((RULES / name).read_text())


ALERTS = [rule for group in loaded("alerts.yaml")["groups"] for rule in group["rules"]]
COMMANDS = typer.main.get_command(app)


def checked(*arguments):
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=RULES, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", *FILES),
        ("check", "config", "prometheus.yaml"),
        ("test", "rules", "rules.test.yaml"),
    ],
    ids=["rules", "configuration", "unit tests"],
)
def test_promtool_finds_nothing_wrong_with(arguments):
    checked(*arguments)


def test_every_alert_fires_in_a_test_and_is_quiet_in_another():
    tests = loaded("rules.test.yaml")["tests"]
    expected = [test["exp_samples"] for part in tests for test in part["promql_expr_test"]]
    firing = {
        name
        for samples in expected
        for sample in samples
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }
    assert firing == {rule["alert"] for rule in ALERTS}
    quiet = tests[0]
    asked = [each for each in quiet["promql_expr_test"] if each["expr"] == "ALERTS"]
    assert asked
    assert not any(each["exp_samples"] for each in asked)
    series = " ".join(each["series"] for each in quiet["input_series"])
    for rule in ALERTS:
        named = re.findall(r"\b(?:costd_\w+|up)(?=\b)", rule["expr"])
        assert any(name in series for name in named if not name.startswith("costd_budget:")), rule


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule):
    assert rule["labels"]["severity"] in {"page", "ticket", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    for command in re.findall(r"`costctl ([^`]+)`", rule["annotations"]["runbook"]):
        found, words = COMMANDS, command.split()
        while words and words[0] in getattr(found, "commands", {}):
            found = found.commands[words.pop(0)]
        assert found is not COMMANDS, command
        assert not getattr(found, "commands", {}) or found.invoke_without_command, command
        options = {option for each in found.params for option in each.opts}
        assert {word for word in words if word.startswith("--")} <= options, command


def test_rules_read_metrics_that_are_documented():
    documented = set(re.findall(r"`(costd_\w+)`", METRICS))
    rules = [rule for name in FILES for group in loaded(name)["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    for rule in rules:
        for name in re.findall(r"[a-z_:]*costd_[\w:]+", rule["expr"]):
            known = recorded if ":" in name else documented
            assert re.sub("_bucket$", "", name) in known, rule
