"""The `allowance` of a policy: defaults, every field, and the place and words of each mistake."""

from fractions import Fraction

import pytest

from costd.errors import InvalidPolicy
from costd.model.labels import Match, Selector
from costd.model.policy import AllowanceTerms
from costd.policy import diff, parse_policy

MS = 1_000_000
S = 1000 * MS
TIERS = "tiers: {gold: {}}\ntask_classes: {draft: {}}\n"


def policy(text):
    return parse_policy("version: 1\n" + text, "p.yaml")


def terms(fields):
    return policy(f"allowance: {{{fields}}}").allowance


def refusal(text):
    with pytest.raises(InvalidPolicy) as caught:
        policy(text)
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "allowance: {}"])
def test_what_is_left_out_has_its_default(text):
    assert policy(text).allowance == AllowanceTerms(
        active=True,
        selector=Selector(),
        share=Fraction(5, 100),
        single_below=Fraction(2, 100),
        calls_count_max=1_000_000,
        lifetime_ns=5 * S,
    )


def test_the_files_defaults_are_those_of_the_engine():
    assert policy("").allowance == AllowanceTerms()


def test_every_field_is_read():
    full = policy(
        "allowance:\n"
        "  active: false\n"
        "  match: {team: research, user: {not: [ann, bob]}}\n"
        "  share: 12.5%\n"
        "  single_below: 10%\n"
        "  calls_max: 2k\n"
        "  for: 1s500ms\n"
    ).allowance
    assert full == AllowanceTerms(
        active=False,
        selector=Selector(
            (
                Match("team", frozenset({"research"})),
                Match("user", frozenset({"ann", "bob"}), negated=True),
            )
        ),
        share=Fraction(1, 8),
        single_below=Fraction(1, 10),
        calls_count_max=2000,
        lifetime_ns=1500 * MS,
    )


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ("share: 0.01%", "share", Fraction(1, 10_000)),
        ("share: 50%", "share", Fraction(1, 2)),
        ("share: 1/3", "share", Fraction(1, 3)),
        ("single_below: 0%", "single_below", Fraction(0)),
        ("single_below: 100%", "single_below", Fraction(1)),
        ("calls_max: 1", "calls_count_max", 1),
        ("for: 100ms", "lifetime_ns", 100 * MS),
        ("for: 60s", "lifetime_ns", 60 * S),
        ("for: 1m", "lifetime_ns", 60 * S),
    ],
)
def test_the_ends_of_each_range_belong_to_it(written, field, value):
    assert getattr(terms(written), field) == value


SHARE = "must be more than 0% and at most 50%; change it, or write active: false for none"
SINGLE = "must be at least 0% and at most 100%; change it"
FOR = "must be at least 100ms and at most 60s; change it"
FRACTION = "write a fraction like 1/5, 0.2 or 20%"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("active", "maybe", "'maybe' is neither true nor false; write one of them"),
        ("share", "0%", SHARE),
        ("share", "50.01%", SHARE),
        ("share", "-5%", f"'-5%' is negative; {FRACTION}"),
        ("share", "$5", f"'$5' cannot be read; {FRACTION}"),
        ("share", "", f"has no value; {FRACTION}, or leave the line out"),
        ("single_below", "100.01%", SINGLE),
        ("single_below", "-1%", f"'-1%' is negative; {FRACTION}"),
        ("calls_max", "0", "is 0; it must be at least 1"),
        ("calls_max", "1.5", f"'1.5' is not a whole number up to {2**63 - 1}; round it"),
        ("for", "99ms", FOR),
        ("for", "60001ms", FOR),
        ("for", "5", "'5' is not a duration; write it like 90s, 10m, 24h or 7d"),
        ("for", "0s", "'0s' must be more than nothing and at most 10 years; change it"),
        ("match", "research", "is 'research'; it must be a mapping (`key: value` lines)"),
    ],
)
def test_a_mistake_is_refused_with_its_line(field, value, message):
    said = refusal(f"allowance:\n  # why\n  {field}: {value}\n")
    assert said == f"p.yaml:4: allowance.{field}: {message}"


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ("{tier: silver}", "match.tier: there is no tier 'silver'; use one of gold"),
        (
            "{task_class: {not: x}}",
            "match.task_class: there is no task_class 'x'; use one of draft",
        ),
        (
            "{team: 'r*'}",
            (
                "match.team: 'r*': a condition has no patterns; list the values, "
                'or write "*" alone for any value'
            ),
        ),
    ],
)
def test_a_match_that_nothing_can_meet_is_refused_as_in_budgets(match, message):
    said = refusal(f"{TIERS}allowance:\n  match: {match}\n")
    assert said == f"p.yaml:5: allowance.{message}"


def test_a_field_that_is_misspelled_is_advised_on():
    said = refusal("allowance:\n  fro: 5s\n")
    assert said == "p.yaml:3: allowance.fro: there is no such field; did you mean for?"


def test_an_allowance_is_a_mapping():
    said = refusal("allowance: true\n")
    assert said == "p.yaml:2: allowance: is 'true'; it must be a mapping (`key: value` lines)"


def test_all_mistakes_are_told_at_once():
    said = refusal("allowance: {share: 90%, single_below: 101%, for: 2m}").split("\n")
    assert sorted(line.split(": ")[1] for line in said) == [
        "allowance.for",
        "allowance.share",
        "allowance.single_below",
    ]


def test_a_change_is_told_field_by_field():
    old = policy("")
    new = policy("allowance: {active: false, match: {team: research}, share: 10%, for: 1s}")
    (change,) = diff(old, new)
    assert str(change) == (
        "changed settings.allowance (active: true → false; "
        "selector: everything → team=research; share: 1/20 → 1/10; "
        "lifetime_ns: 5s → 1s)"
    )


def test_defaults_that_are_written_out_are_no_change():
    written = "{active: true, match: {}, share: 5%, single_below: 2%, calls_max: 1M, for: 5s}"
    assert diff(policy(""), policy(f"allowance: {written}")) == []
