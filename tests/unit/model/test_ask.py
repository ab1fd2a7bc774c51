import pytest

from costd.model.ask import Ask, ask_problem
from costd.model.money import AMOUNT_MAX, HOLD_MAX_NUSD

ID = "0190c2f4-7d1a-7c3e-9b1f-0a1b2c3d4e5f"


def test_a_sound_ask_has_no_problem():
    ask = Ask(
        ask_id=ID,
        labels={"team": "a", "agent": "é" * 256},
        estimated_cost_nusd=HOLD_MAX_NUSD,
        prompt_tokens=0,
        max_output_tokens=10**12,
        acceptable_models=("*",) * 64,
        units={"requests": 1},
        ttl_ns=1,
    )
    assert ask_problem(ask) is None


def test_each_name_may_be_long_by_itself():
    ask = Ask(ask_id=ID, provider="p" * 256, model="m" * 256, estimated_cost_nusd=1)
    assert ask_problem(ask) is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"ask_id": "x" * 15}, "15 characters"),
        ({"ask_id": "x" * 129}, "129 characters"),
        ({"ask_id": "x" * 15 + "\0"}, "ask_id has characters that cannot be printed"),
        ({"estimated_cost_nusd": -1}, "estimated_cost_nusd is -1"),
        ({"estimated_cost_nusd": HOLD_MAX_NUSD + 1}, "at most 1000000000000000 ($1,000,000.00)"),
        ({"estimated_cost_nusd": AMOUNT_MAX + 1}, "estimated_cost_nusd is 9223372036854775808"),
        ({"prompt_tokens": -1}, "prompt_tokens is -1"),
        ({"max_output_tokens": 10**12 + 1}, "max_output_tokens is 1000000000001"),
        ({"units": {"images": -1}}, "[images] is -1"),
        ({"units": {"x" * 257: 1}}, "units has more than 256"),
        ({"ttl_ns": -1}, "ttl is negative"),
        ({"acceptable_models": ("x",) * 65}, "acceptable_models has more than 64"),
        ({"acceptable_models": ("x\n",)}, "acceptable_models has characters"),
        ({"model": "x" * 257}, "model has more than 256 characters"),
        ({"provider": "a\x1fb"}, "provider has characters"),
        ({"tier": "\n"}, "tier has characters"),
        ({"task_class": "x" * 257}, "task_class has more than"),
        ({"cost_kind": "x" * 257}, "cost_kind has more than"),
        ({"labels": {f"k{n}": "" for n in range(65)}}, "labels has 65 entries"),
        ({"labels": {"": "x"}}, "must have 1 to 64 characters"),
        ({"labels": {"k" * 65: "x"}}, "must have 1 to 64 characters"),
        ({"labels": {"user": "x" * 257}}, "labels[user] has more than 256"),
        ({"labels": {"model": "x"}}, "model has a field of its own"),
        ({"labels": {"user": "a\x1fb"}}, "cannot be printed"),
        ({"labels": {"a\nb": "x"}}, "cannot be printed"),
    ],
)
def test_the_first_field_that_breaks_a_rule_is_named(fields: dict, says: str):
    problem = ask_problem(Ask(**({"ask_id": ID} | fields)))
    assert problem is not None
    assert says in problem
