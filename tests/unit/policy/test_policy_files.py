"""The policies that come with costd, and the page that explains their fields."""

import re
from pathlib import Path
from types import NoneType
from typing import get_args

import pytest
from pydantic import BaseModel

from costd.model.decision import Verdict
from costd.policy import load_expectations, load_policy, policy_warnings
from costd.policy.expectations import AskStep, expectations_path
from costd.policy.scenario_schema import ScenariosSpec
from costd.policy.schema import PolicySpec
from costd.pricing.book import PriceBook

ROOT = Path(__file__).parents[3]
FILES = sorted(
    path for path in (ROOT / "policies").glob("*.yaml") if not path.name.endswith(".expect.yaml")
)
GATES = {"security_review", "testing", "code_review"}
MARCH_2026_NS = 1_772_323_200_000_000_000


def names(paths):
    return [path.stem for path in paths]


def test_there_is_a_quickstart_and_five_to_start_from():
    assert set(names(FILES)) == {
        "quickstart", "solo-developer", "team-projects", "per-user-product", "autonomous-agents",
        "strict-run-caps",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_a_policy_loads_without_warnings(path):
    assert policy_warnings(load_policy(path)) == []


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_the_quality_gates_are_critical_in_every_policy(path):
    classes = load_policy(path).task_classes
    assert {name for name in classes if classes[name].critical} == GATES


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_every_model_has_a_price_and_a_lower_tier_is_cheaper(path):
    policy = load_policy(path)
    book = PriceBook(policy)
    counts = {"input_tokens": 3000, "output_tokens": 1000}
    cheapest_above = None
    for tier in policy.tiers:
        prices = [book.find(ref.provider, ref.model, wall_ns=MARCH_2026_NS) for ref in tier.models]
        assert all(prices), f"{tier.name} has a model nobody knows"
        costs = [price.cost_nusd(counts) for price in prices]
        assert cheapest_above is None or max(costs) < cheapest_above
        cheapest_above = min(costs)


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_a_policy_says_what_it_expects(path):
    scenarios = load_expectations(expectations_path(path))
    asks = [step for scenario in scenarios for step in scenario.steps if isinstance(step, AskStep)]
    assert len(asks) >= 5
    assert {ask.expected.verdict for ask in asks} == set(Verdict)


def test_every_directive_and_every_kind_of_step_appears_somewhere():
    steps = [
        step for path in FILES for budget in load_policy(path).budgets for step in budget.steps
    ]
    for field in steps[0].__struct_fields__:
        assert any(getattr(step, field) for step in steps), f"no policy shows {field}"


def fields_of(model):
    """Every field name of a schema, as it is spelled in a file."""
    for name, field in model.model_fields.items():
        yield field.alias or name
        pending = [field.annotation]
        while pending:
            kind = pending.pop()
            pending.extend(each for each in get_args(kind) if each is not NoneType)
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from fields_of(kind)


@pytest.mark.parametrize("schema", [PolicySpec, ScenariosSpec])
def test_the_reference_explains_every_field(schema):
    page = (ROOT / "docs/reference/policy.md").read_text()
    explained = set(re.findall(r"`([a-z_]+)`", page))
    missing = set(fields_of(schema)) - explained
    assert not missing, f"docs/reference/policy.md does not explain {sorted(missing)}"


def test_the_example_on_the_reference_page_loads(tmp_path):
    page = (ROOT / "docs/reference/policy.md").read_text()
    examples = re.findall(r"```yaml\n(version: 1\n.*?)```", page, re.DOTALL)
    assert examples
    for example in examples:
        path = tmp_path / "example.yaml"
        path.write_text(example)
        assert load_policy(path).budgets
