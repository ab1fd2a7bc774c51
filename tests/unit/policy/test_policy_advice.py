"""What loads but is probably not meant."""

import pytest

from costd.policy import parse_policy, policy_warnings

SOUND = """
version: 1
tiers: {premium: {models: [a/x, b/x]}, standard: {models: [a/y]}}
task_classes: {draft: {}, gate: {critical: true, min_tier: premium}}
default_task_class: draft
default_tier: standard
budgets:
  - id: day
    window: day
    limit: $5
    reserve: 10%
    steps: [{at: 50%, do: [switch_provider]}, {at: 80%, do: [tier_down]}]
  - {id: run, window: run, missing: deny}
  - {id: named-run, window: run, match: {run: "*"}}
model_rules: [{id: m, allow: ["a/*"], forbid: ["*/z"]}]
"""


def test_a_sound_policy_has_no_warnings():
    assert policy_warnings(parse_policy(SOUND, "p.yaml")) == []


@pytest.mark.parametrize(
    ("written", "instead", "warning"),
    [
        ("gate: {critical: true, min_tier: premium}", "gate: {critical: true}", "without min_tier"),
        ("gate: {critical: true, min_tier: premium}", "gate: {}", "nobody can draw it"),
        ("default_task_class: draft", "", "asks must name their class"),
        ("default_tier: standard", "", "begin at the first tier, premium"),
        ("window: run, missing: deny", "window: run", "asks without a run label share one"),
        ('run: "*"', 'run: {not: "*"}', "asks without a run label share one"),
        (", b/x", "", "no tier has models of two providers"),
        (", standard: {models: [a/y]}}", "}\n#", "fewer than two tiers"),
        ('forbid: ["*/z"]', 'forbid: ["a/*"]', "both allowed and forbidden"),
        ("version: 1", "version: 1\nshadow: true", "nothing is ever refused"),
    ],
)
def test_what_is_probably_not_meant_is_warned_of(written, instead, warning):
    text = SOUND.replace(written, instead)
    if "#" in instead:
        text = text.replace("default_tier: standard", "default_tier: premium")
    found = policy_warnings(parse_policy(text, "p.yaml"))
    assert any(warning in each for each in found)


def test_a_policy_without_budgets_or_classes_is_warned_of():
    found = policy_warnings(parse_policy("version: 1", "p.yaml"))
    assert any(each.startswith("budgets: there are none") for each in found)
    assert any(each.startswith("task_classes: there are none") for each in found)
