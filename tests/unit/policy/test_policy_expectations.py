"""Expected decisions: what a scenario file says, and what is refused in one."""

from pathlib import Path

import pytest

from costd.errors import InvalidPolicy
from costd.model.ask import ask_problem
from costd.model.decision import Directives, Reason, Verdict
from costd.model.kill import KillMode
from costd.model.labels import Match, Selector
from costd.model.policy import ModelRef
from costd.model.usage import Usage
from costd.policy.expectations import (
    AskStep,
    KillStep,
    ReleaseStep,
    SettleStep,
    SpendStep,
    VoidStep,
    expectations_path,
    load_expectations,
    parse_expectations,
)

T0 = 1_772_359_200_000_000_000  # 2026-03-01T10:00:00Z

WHOLE = """
scenarios:
  a day:
    - at: 2026-03-01T10:00:00Z
      as: first
      ask:
        task_class: draft
        labels: {user: ann}
        model: openai/gpt-5
        tier: premium
        prompt_tokens: 1k
        max_output_tokens: 500
        acceptable_models: [openai/gpt-5-mini]
        ttl: 5m
        batch: true
        units: {web_searches: 2}
      expect:
        verdict: degrade
        reason: STEP
        tier: standard
        model: openai/gpt-5-mini
        directives: {max_output_tokens: 256, cache: true}
        hold: $0.01
        rule: day
        tightest: month
        threshold: 80%
        upgrade: https://example.com/
        shadow: deny
    - settle: {ask: first, prompt_tokens: 900, output_tokens: 400, units: {web_searches: 1}}
    - at: 2026-03-01T10:00:01Z
      as: second
      ask: {estimated_cost: $0.25}
      expect: {verdict: allow}
    - void: second
    - spend: {task_class: draft, labels: {user: ann}, cost: $9}
    - spend: {model: openai/gpt-5, prompt_tokens: 1M, output_tokens: 0}
    - kill: {id: stop, scope: {project: [api, web]}, mode: max_tier, max_tier: economy}
    - release: stop
    - release: "*"
  another day:
    - {at: 2026-03-01, ask: {prompt_tokens: 0}, expect: {verdict: deny}}
"""


def refusal(entries):
    with pytest.raises(InvalidPolicy) as caught:
        parse_expectations(f"scenarios:\n  s:\n{entries}", "e.yaml")
    return str(caught.value)


def test_a_file_holds_scenarios_and_each_its_steps():
    day, other = parse_expectations(WHOLE, "e.yaml")
    assert (day.name, day.line, other.name) == ("a day", 3, "another day")
    assert [type(step) for step in day.steps] == [
        AskStep, SettleStep, AskStep, VoidStep, SpendStep, SpendStep, KillStep, ReleaseStep,
        ReleaseStep,
    ]  # fmt: skip


def test_an_ask_carries_its_fields_and_its_line():
    step = parse_expectations(WHOLE, "e.yaml")[0].steps[0]
    assert (step.line, step.at_ns, step.name) == (4, T0, "first")
    assert ask_problem(step.ask) is None
    ask = step.ask
    assert (ask.task_class, ask.labels, ask.tier) == ("draft", {"user": "ann"}, "premium")
    assert (ask.provider, ask.model) == ("openai", "gpt-5")
    assert (ask.prompt_tokens, ask.max_output_tokens) == (1000, 500)
    assert ask.acceptable_models == ("openai/gpt-5-mini",)
    assert (ask.ttl_ns, ask.batch, ask.units) == (300_000_000_000, True, {"web_searches": 2})


def test_an_expectation_says_what_it_compares():
    expected = parse_expectations(WHOLE, "e.yaml")[0].steps[0].expected
    assert (expected.verdict, expected.reason) == (Verdict.DEGRADE, Reason.STEP)
    assert (expected.tier, expected.model) == ("standard", ModelRef("openai", "gpt-5-mini"))
    assert expected.directives == Directives(max_output_tokens=256, cache=True)
    assert (expected.hold_nusd, expected.rule) == (10_000_000, "day")
    assert (expected.tightest_budget, expected.threshold_bp) == ("month", 8000)
    assert expected.upgrade_url == "https://example.com/"
    assert expected.shadow_verdict is Verdict.DENY


def test_what_an_expectation_leaves_out_may_be_anything():
    expected = parse_expectations(WHOLE, "e.yaml")[0].steps[2].expected
    assert expected.verdict is Verdict.ALLOW
    assert expected.reason is expected.directives is expected.hold_nusd is None


def test_no_directives_is_an_expectation_of_its_own():
    entry = "    - {at: 2026-03-01, ask: {tier: t}, expect: {directives: {}}}"
    step = parse_expectations(f"scenarios:\n  s:\n{entry}", "e.yaml")[0].steps[0]
    assert step.expected.directives == Directives()


def test_the_time_goes_on_until_a_step_says_another():
    steps = parse_expectations(WHOLE, "e.yaml")[0].steps
    assert [step.at_ns - T0 for step in steps] == [0, 0] + [1_000_000_000] * 7


def test_the_other_steps_carry_what_is_done():
    _, settle, _, void, cost, usage, kill, release, release_all = parse_expectations(
        WHOLE, "e.yaml"
    )[0].steps
    assert settle.name == "first"
    assert settle.usage == Usage(prompt_tokens=900, output_tokens=400, units={"web_searches": 1})
    assert settle.cost_nusd is None
    assert void.name == "second"
    assert (cost.cost_nusd, cost.usage, cost.labels) == (9_000_000_000, None, {"user": "ann"})
    assert (usage.model, usage.usage) == (
        ModelRef("openai", "gpt-5"),
        Usage(prompt_tokens=1_000_000, output_tokens=0),
    )
    assert kill.scope == Selector((Match("project", frozenset({"api", "web"})),))
    assert (kill.mode, kill.max_tier) == (KillMode.MAX_TIER, "economy")
    assert (release.kill_id, release_all.kill_id) == ("stop", "*")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("    - {ask: {tier: t}, expect: {verdict: deny}}", "says no time"),
        ("    - {at: 2026-03-01}", "must say exactly one of ask, spend"),
        ("    - {at: 2026-03-01, void: a, release: b}", "must say exactly one of"),
        ("    - {at: 2026-03-01, ask: {tier: t}}", "expects nothing"),
        ("    - {at: 2026-03-01, release: a, expect: {tier: x}}", "[0].expect: belongs to an ask"),
        ("    - {at: 2026-03-01, release: a, as: x}", "s[0].as: belongs to an ask"),
        ("    - {at: 2026-03-01, void: x}", "no ask above is named 'x'"),
        ("    - {at: 2026-03-01, settle: {ask: x, cost: $1}}", "no ask above is named 'x'"),
        ("    - {at: 2026-03-01, settle: {cost: $1}}", "settle.ask: is missing"),
        ("    - {at: 2026-03-01, spend: {labels: {a: b}}}", "either a cost or what was used"),
        (
            "    - {at: 2026-03-01, spend: {cost: $1, prompt_tokens: 5, model: a/b}}",
            "either a cost or what was used",
        ),
        ("    - {at: 2026-03-01, spend: {prompt_tokens: 5}}", "no model to price them"),
        (
            "    - {at: 2026-03-01, spend: {model: a/b, prompt_tokens: 5, cached_tokens: 6}}",
            "exceed prompt_tokens",
        ),
        ("    - {at: 2026-03-01, kill: {id: k, mode: max_tier}}", "go together"),
        ("    - {at: 2026-03-01, kill: {id: k, max_tier: t}}", "go together"),
        ("    - {at: 2026-03-01, kill: {mode: deny_all}}", "kill.id: is missing"),
        (
            "    - {at: 2026-03-01, ask: {tier: t}, expect: {reason: BECAUSE}}",
            "there is no 'BECAUSE'; use OK, STEP",
        ),
        (
            "    - {at: 2026-03-01, ask: {labels: {model: x}}, expect: {verdict: deny}}",
            "model has a field of its own",
        ),
        ("    - {at: 2026-03-01, ask: {}, expect: {verdict: maybe}}", "'maybe' is not known here"),
        ("    - {at: 2026-03-01, asks: {}}", "did you mean ask"),
    ],
)
def test_a_mistake_is_refused_with_its_line(entries, message):
    said = refusal(entries)
    assert message in said
    assert said.startswith("e.yaml:3: scenarios.s[0]")


def test_time_does_not_run_backwards():
    entries = "    - {at: 2026-03-02, release: a}\n    - {at: 2026-03-01, release: a}"
    assert "e.yaml:4: scenarios.s[1].at: is before the step above it" in refusal(entries)


def test_two_asks_do_not_share_a_name():
    entry = "    - {at: 2026-03-01, as: x, ask: {tier: t}, expect: {verdict: deny}}\n"
    assert "names an ask above" in refusal(entry * 2)


def test_expectations_stand_beside_their_policy(tmp_path):
    path = expectations_path(Path(tmp_path / "team.yaml"))
    assert path.name == "team.expect.yaml"
    path.write_text(WHOLE)
    assert load_expectations(path) == load_expectations(str(path))
