"""Whatever stands in a policy file, it loads or is refused; and amounts are read exactly."""

import re
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from costd.errors import InvalidPolicy
from costd.model.money import AMOUNT_MAX, format_nusd
from costd.model.policy import PolicySet
from costd.policy import amounts, diff, load_policy, parse_policy, policy_warnings
from costd.policy.expectations import parse_expectations

POLICIES = Path(__file__).parents[2] / "policies"
UNHURRIED = settings(deadline=None)
"""Other work on the machine must not fail a test of what is read."""

READERS = [
    amounts.read_nusd,
    amounts.read_count,
    amounts.read_limit,
    amounts.read_reserve,
    amounts.read_rate,
    amounts.read_rate_amount,
    amounts.read_percent_bp,
    amounts.read_burn_bp,
    amounts.read_fraction,
    amounts.read_duration_ns,
    amounts.read_time_ns,
    amounts.read_bool,
]

# Pieces that get past the scanner more often than letters drawn at random.
YAML_PIECES = st.sampled_from(
    [
        *"[]{},:-?&*!|>'\"%#@`\\ \n\t~=<", "- ", ": ", "\n  ", "\n    ", "---\n", "...\n", "&a ",
        "*a", "<<: ", "!!int ", "!x ", "? ", "%YAML 1.2\n", "%TAG ! x\n", "|\n", ">-\n", '"\\x',
        '"\\UFFFFFFFF"', "\x00", "\x85", "\u2028", "\ufeff", "\ud800", "0", "$5", ".nan", ".inf",
        "9" * 50, "1e999999", "version: 1\n", "budgets:\n", "id: b\n", "window: day\n",
        "limit: $5\n", "null", "true",
    ]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.sampled_from(
        ["$5", "-$5", "$0.0000000001", ".nan", "80%", "1/5", "1/0", "10m", "2M tokens", "rolling",
         "month", "5 requests / minute", "openai/gpt-5", "*", "true", "2026-01-01", "deny", "1"]
    ),
)  # fmt: skip
FIELDS = st.sampled_from(
    ["version", "tiers", "task_classes", "budgets", "rates", "model_rules", "prices", "discounts",
     "expiry", "grant_keys", "id", "match", "per", "window", "kind", "limit", "reserve", "steps",
     "at", "burn_rate", "do", "models", "upgrade", "text", "units", "above", "not", "burst",
     "default_tier", "unknown_price", "assume", "public_key", "off", "from", "x",
     "scenarios", "ask", "expect", "spend", "settle", "void", "kill", "release", "as", "cost",
     "labels", "verdict", "reason", "directives", "scope", "mode", "prompt_tokens"]
)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(FIELDS | st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=30,
)


def quoted(tree):
    """Write a tree as flow YAML, every scalar in double quotes."""
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{quoted(key)}: {quoted(tree[key])}" for key in tree) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(quoted, tree)) + "]"
    if tree is None:
        return "~"
    return '"' + "".join(f"\\U{ord(each):08x}" for each in tree) + '"'


def check_refusal(refused, name):
    """Every line names file, line and path, and ends in an advice."""
    for line in str(refused).split("\n"):
        assert re.fullmatch(rf"{re.escape(name)}:[1-9]\d*: .+?: .+", line), line
        assert len(line) < 2000


def loads_or_is_refused(text):
    try:
        policy = parse_policy(text, "p.yaml")
    except InvalidPolicy as refused:
        check_refusal(refused, "p.yaml")
        return
    assert isinstance(policy, PolicySet)
    policy_warnings(policy)
    assert diff(policy, policy) == []


def is_scenarios_or_is_refused(text):
    try:
        scenarios = parse_expectations(text, "e.yaml")
    except InvalidPolicy as refused:
        check_refusal(refused, "e.yaml")
        return
    assert all(scenario.line > 0 for scenario in scenarios)


@given(st.text(max_size=300))
@UNHURRIED
@example("? a\n: ]")
def test_any_text_loads_or_is_refused(text):
    loads_or_is_refused(text)
    loads_or_is_refused("version: 1\n" + text)


@given(st.lists(YAML_PIECES, max_size=40).map("".join))
@UNHURRIED
def test_any_pieces_of_yaml_load_or_are_refused(text):
    loads_or_is_refused(text)


@given(TREES)
@UNHURRIED
def test_any_tree_loads_or_is_refused(tree):
    loads_or_is_refused(quoted(tree))


@given(st.dictionaries(FIELDS, TREES, max_size=6))
@UNHURRIED
def test_any_fields_load_or_are_refused(tree):
    loads_or_is_refused(quoted({**tree, "version": "1"}))


@given(TREES)
@UNHURRIED
def test_any_tree_is_a_scenario_or_is_refused(tree):
    is_scenarios_or_is_refused(quoted({"scenarios": {"s": [tree]}}))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "p.yaml"


@given(raw=st.binary(max_size=300))
@UNHURRIED
def test_any_bytes_load_or_are_refused(file, raw):
    file.write_bytes(raw)
    try:
        load_policy(file)
    except InvalidPolicy as refused:
        check_refusal(refused, str(file))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_policy_loads_or_is_refused(data):
    name = data.draw(st.sampled_from(sorted(path.name for path in POLICIES.glob("*.yaml"))))
    text = (POLICIES / name).read_text(encoding="utf-8")
    at = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 20))
    damage = data.draw(st.lists(YAML_PIECES, max_size=3).map("".join))
    damaged = text[:at] + damage + text[at + length :]
    if name.endswith(".expect.yaml"):
        is_scenarios_or_is_refused(damaged)
    else:
        loads_or_is_refused(damaged)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 500_000,
        "a: " * 200_000,
        "- " * 400_000,
        "? " * 400_000,
        "{a: " * 200_000,
        "a" * 1_000_000,
        "'" + "a\n" * 400_000,
        "\n".join(f"k{n}: v" for n in range(20_000)),
        f"{'k' * 900_000}: v",
        "&a [" * 100_000,
        "!t " * 300_000,
        "\\" * 1_000_000,
        "a: |\n" + " x\n" * 200_000,
        "# c\n" * 250_000,
        "%" * 1_000_000,
        "version: 1\nunmatched: " + "9" * 900_000,
        "version: 1\nbudgets:\n- {id: b, window: day, limit: " + "$ " * 400_000 + "}",
    ],
    ids=lambda text: text[:12].strip() or "spaces",
)
def test_a_long_hostile_text_is_refused(text):
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy(text, "p.yaml")
    check_refusal(caught.value, "p.yaml")


@given(SCALARS | st.text() | TREES)
@UNHURRIED
def test_a_reader_returns_or_says_what_is_wrong(value):
    for reader in READERS:
        with suppress(ValueError):
            assert reader(value) is not None


@given(st.integers(0, AMOUNT_MAX))
def test_money_is_read_back_as_it_is_written(nusd):
    assert amounts.read_nusd(format_nusd(nusd)) == nusd
    assert amounts.read_limit(format_nusd(nusd)) == (nusd, "nusd")


@given(st.decimals(0, 9_000_000_000, places=9))
def test_money_equals_decimal_arithmetic(dollars):
    assert amounts.read_nusd(f"${dollars:f}") == int(dollars * Decimal(10**9))


@given(st.integers(0, AMOUNT_MAX))
def test_counts_are_read_back_with_and_without_commas(count):
    assert amounts.read_count(str(count)) == count
    assert amounts.read_count(f"{count:,}") == count


@given(st.integers(0, 10**9), st.sampled_from([("k", 3), ("M", 6), ("G", 9)]))
def test_a_suffix_multiplies_exactly(thousandths, suffix):
    letter, power = suffix
    text = f"{thousandths // 1000}.{thousandths % 1000:03d}{letter}"
    assert amounts.read_count(text) == thousandths * 10 ** (power - 3)


@given(st.integers(0, 10_000_000))
def test_shares_are_read_back_in_basis_points(bp):
    text = f"{bp // 100}.{bp % 100:02d}%"
    assert amounts.read_percent_bp(text) == bp
    assert amounts.read_fraction(text) == Fraction(bp, 10_000)


@given(st.integers(0, 10**9), st.integers(1, 10**9))
def test_a_ratio_is_that_fraction(numerator, denominator):
    assert amounts.read_fraction(f"{numerator}/{denominator}") == Fraction(numerator, denominator)


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from([("d", 86_400), ("h", 3_600), ("s", 1)])),
        min_size=1,
        max_size=5,
    )
)
def test_parts_of_a_duration_add_up(parts):
    text = "".join(f"{count}{unit}" for count, (unit, _) in parts)
    seconds = sum(count * length for count, (_, length) in parts)
    assert amounts.read_duration_ns(text) == seconds * 10**9
