"""`envoy` in a policy: what is left out, every field, the words of each mistake, and the example."""

from pathlib import Path

import pytest

from costd.errors import InvalidPolicy
from costd.model.policy import EnvoyRule, EnvoySource
from costd.policy import diff, load_policy, parse_policy, policy_warnings

EXAMPLE = Path(__file__).parents[3] / "policies" / "envoy" / "policy.yaml"
RULE = "envoy:\n  - id: ask\n    domain: llm\n"


def policy(text):
    return parse_policy("version: 1\ntask_classes: {draft: {}}\n" + text, "p.yaml")


def test_what_is_left_out_asks_for_everything_of_the_domain_and_charges_at_once():
    assert policy(RULE).envoy == (EnvoyRule(rule_id="ask", domain="llm"),)
    assert policy("").envoy == ()


def test_every_field_is_read():
    (rule,) = policy(
        RULE
        + """\
    match: {step: [ask, again], test: {not: "*"}}
    request_id: request
    hits_addend: cost_microusd
    labels: {user: {entry: who, value: nobody}, org: {value: acme}}
    caller: client
    task_class: {value: draft}
    provider: {value: openai}
    model: model
    tier: tier
    prompt_tokens: {value: "100"}
    max_output_tokens: longest
    estimated_cost: $0.01
    override_grant: grant
"""
    ).envoy
    assert str(rule.selector) == "step=again|ask, test!=*"
    assert (rule.settles, rule.hits_addend) == (False, "cost_microusd")
    assert rule.request_id == EnvoySource("request")
    assert rule.labels == {"user": EnvoySource("who", "nobody"), "org": EnvoySource("", "acme")}
    assert rule.fields == {
        "caller": EnvoySource("client"),
        "task_class": EnvoySource("", "draft"),
        "provider": EnvoySource("", "openai"),
        "model": EnvoySource("model"),
        "tier": EnvoySource("tier"),
        "prompt_tokens": EnvoySource("", "100"),
        "max_output_tokens": EnvoySource("longest"),
        "override_grant": EnvoySource("grant"),
    }
    assert rule.estimated_cost_nusd == 10_000_000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "task_class: {value: chat}",
            "task_class: there is no task_class 'chat'; use one of draft",
        ),
        ("tier: {value: best}", "tier: there is no tier 'best'; use one of none yet"),
        ("prompt_tokens: {value: 1k}", "prompt_tokens: '1k' is no count; write digits only"),
        ("labels: {model: m}", "labels.model: model has a field of its own; set that instead"),
        (
            "does: settle",
            "request_id: is needed to find the ask that has ended; name the entry both have",
        ),
        (
            "hits_addend: cached_tokens",
            "hits_addend: cached_tokens are known at the end only; use does: settle",
        ),
        ("model: {from: m}", "model.from: there is no such field; known here: entry, value"),
    ],
)
def test_a_mistake_is_refused_with_its_place(line, message):
    with pytest.raises(InvalidPolicy) as caught:
        policy(RULE + f"    {line}\n")
    assert str(caught.value).partition(": envoy[0].")[2] == message


def test_what_belongs_to_an_ask_is_refused_where_a_rule_settles():
    with pytest.raises(InvalidPolicy, match="belongs to an ask, and this rule settles; remove it"):
        policy(RULE + "    does: settle\n    request_id: r\n    estimated_cost: $1\n")


def test_two_rules_of_one_name_are_refused():
    with pytest.raises(InvalidPolicy, match=r"'ask' is also the id of envoy\[0\]"):
        policy(RULE + "  - id: ask\n    domain: web\n")


def test_changes_are_told():
    old = policy(RULE + "    labels: {user: who}\n")
    new = policy(RULE + "    labels: {user: {entry: who, value: nobody}}\n")
    assert [str(change) for change in diff(old, new)] == [
        "changed envoy.ask (labels: user: who → user: who or 'nobody')"
    ]
    assert [str(change) for change in diff(policy(""), new)] == ["added envoy.ask"]


def test_the_example_loads_without_warnings():
    assert policy_warnings(load_policy(EXAMPLE)) == []


@pytest.mark.parametrize(
    ("asks", "settles", "says"),
    [
        ("caller: user", "model: m", "envoy[0].caller: no rule of the domain that settles says"),
        ("model: m", "caller: user", "envoy[1].caller: no rule of the domain that asks says"),
        ("caller: user", "caller: who", ""),
        ("model: m", "model: m", ""),
    ],
)
def test_an_end_says_whose_it_is_where_its_ask_does(asks, settles, says):
    rules = (
        "version: 1\nenvoy:\n"
        f"  - {{id: ask, domain: llm, match: {{step: ask}}, request_id: request, {asks}}}\n"
        f"  - {{id: end, domain: llm, does: settle, request_id: request, {settles}}}\n"
    )
    if not says:
        parse_policy(rules, "p.yaml")
        return
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy(rules, "p.yaml")
    assert says in str(caught.value)
