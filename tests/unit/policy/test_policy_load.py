"""Policies: what loads, into which values, and what is refused with file, line and path."""

from fractions import Fraction

import pytest

from costd.errors import InvalidPolicy
from costd.model.labels import Match, Selector
from costd.model.policy import (
    ModelRef,
    RateUnit,
    Step,
    Unit,
    Window,
    WindowKind,
)
from costd.model.price import PriceTier, UnitPrice
from costd.model.time import NEVER_NS
from costd.policy import load_policy, parse_policy

S = 1_000_000_000
TIERS = """
tiers:
  premium: {models: [anthropic/claude-opus-4-5]}
  standard: {models: [openai/gpt-5-mini], relative_cost: 1/5}
"""


def policy(text):
    return parse_policy("version: 1\n" + text, "p.yaml")


def refusal(text):
    with pytest.raises(InvalidPolicy) as caught:
        policy(text)
    return str(caught.value)


def budget(text):
    return policy(f"budgets:\n  - {{id: b, {text}}}\n").budgets[0]


def test_the_smallest_policy_denies_everything():
    smallest = policy("")
    assert smallest.budgets == ()
    assert not smallest.unmatched_allow
    assert smallest.unknown_price_assume is None


def test_the_revision_names_the_text():
    first, again, other = policy("shadow: true"), policy("shadow: true"), policy("shadow: true ")
    assert first.revision == again.revision
    assert first.revision != other.revision
    assert len(first.revision) == 12
    assert int(first.revision, 16) >= 0


def test_tiers_keep_their_order_and_models_their_provider():
    tiers = policy(TIERS).tiers
    assert [tier.name for tier in tiers] == ["premium", "standard"]
    assert tiers[0].models == (ModelRef("anthropic", "claude-opus-4-5"),)
    assert tiers[1].relative_cost == Fraction(1, 5)


def test_a_model_may_have_slashes_of_its_own():
    tiers = policy("tiers: {t: {models: [groq/openai/gpt-oss-20b]}}").tiers
    assert tiers[0].models == (ModelRef("groq", "openai/gpt-oss-20b"),)


def test_a_class_begins_no_lower_than_it_may_be_taken():
    classes = policy(
        TIERS + "default_tier: standard\n"
        "task_classes:\n"
        "  gate: {critical: true, min_tier: premium, ttl: 5m}\n"
        "  low: {min_tier: standard}\n"
        "  plain: {tier: standard, max_output_tokens: 1k}\n"
    ).task_classes
    assert classes["gate"].tier == "premium"
    assert classes["gate"].ttl_ns == 300 * S
    assert classes["low"].tier == "standard"
    assert classes["plain"].max_output_tokens == 1000


def test_without_a_default_tier_a_class_begins_at_the_first():
    classes = policy(TIERS + "task_classes: {low: {min_tier: standard}}").task_classes
    assert classes["low"].tier == ""


def test_selectors_say_one_of_any_none_of_and_absent():
    selector = budget(
        'window: day, match: {project: api, team: [a, b], user: "*", role: {not: [x]}, '
        'run: {not: "*"}}'
    ).selector
    assert selector == Selector(
        (
            Match("project", frozenset({"api"})),
            Match("team", frozenset({"a", "b"})),
            Match("user"),
            Match("role", frozenset({"x"}), negated=True),
            Match("run", negated=True),
        )
    )
    facts = {"project": "api", "team": "b", "user": "ann"}
    assert selector.holds(facts)
    assert not selector.holds({**facts, "role": "x"})
    assert not selector.holds({**facts, "run": "r1"})
    assert not selector.holds({"project": "api", "team": "b"})


def test_label_values_are_the_text_that_was_written():
    assert budget("window: day, match: {version: 1.10}").selector.matches[0].values == {"1.10"}


def test_a_budget_reads_every_field():
    full = budget(
        "was: old, match: {}, per: [user, model], limit: $500, reserve: 20%, active: false,"
        "window: {kind: week, time_zone: Europe/Berlin, starts: sunday}, missing: deny,"
        "shadow: true, upgrade: {text: Buy more, url: 'https://example.com'}"
    )
    assert full.window == Window(WindowKind.WEEK, "Europe/Berlin", 6)
    assert (full.limit, full.reserve, full.unit) == (500 * S, 100 * S, Unit.NUSD)
    assert full.per == ("user", "model")
    assert (full.active, full.missing_deny, full.shadow, full.was) == (False, True, True, "old")
    assert (full.upgrade_text, full.upgrade_url) == ("Buy more", "https://example.com")


def test_a_share_in_reserve_rounds_down():
    assert budget("window: day, limit: 99 calls, reserve: 50%").reserve == 49


def test_a_reserve_may_be_an_amount():
    assert budget("window: day, limit: $500, reserve: $50").reserve == 50 * S


@pytest.mark.parametrize("limit", ["", ", limit: unlimited"])
def test_a_budget_without_a_limit_only_tracks(limit):
    assert budget(f"window: day{limit}").limit is None


def test_a_run_budget_counts_per_run():
    assert budget("window: run").per == ("run",)
    assert budget("window: run, per: stage").per == ("run", "stage")
    assert budget("window: run, per: [stage, run]").per == ("stage", "run")


def test_the_policys_time_zone_is_that_of_its_calendar_windows():
    windows = [
        each.window
        for each in policy(
            "time_zone: Asia/Tokyo\nbudgets:\n"
            "- {id: a, window: day}\n- {id: b, window: {kind: day, time_zone: UTC}}\n"
            "- {id: c, window: total}\n"
        ).budgets
    ]
    assert [window.time_zone for window in windows] == ["Asia/Tokyo", "UTC", "UTC"]


def test_steps_say_what_to_do():
    steps = budget(
        "window: day, limit: $1, steps: [{at: 50%, do: [alert]},"
        "{at: 70%, do: [{max_output_tokens: 512}, {max_retries: 0}, compression, cache, batch]},"
        "{at: 80%, do: [tier_down, quiet]}, {at: 85%, do: [{tiers_down: 2}, switch_provider]},"
        "{burn_rate: 1.5, do: [economy]}, {at: 95%, do: [deny]}, {at: 100%, do: [halt]}]"
    ).steps
    assert steps == (
        Step(at_bp=5000),
        Step(
            at_bp=7000,
            max_output_tokens=512,
            max_retries=0,
            compression=True,
            cache=True,
            batch=True,
        ),
        Step(at_bp=8000, tiers_down=1, alert=False),
        Step(at_bp=8500, tiers_down=2, switch_provider=True),
        Step(burn_bp=15_000, economy=True),
        Step(at_bp=9500, deny=True),
        Step(at_bp=10_000, halt=True),
    )


def test_a_rate_bursts_by_its_amount_unless_it_says_otherwise():
    rates = policy(
        "rates:\n"
        "- {id: a, per: user, limit: 60 requests / minute, burst: 20}\n"
        "- {id: b, limit: $5 / hour}\n"
        "- {id: c, limit: 10k output tokens / minute, burst: 5k output tokens, missing: deny}\n"
    ).rates
    assert [(rate.unit, rate.amount, rate.burst) for rate in rates] == [
        (RateUnit.REQUESTS, 60, 20),
        (RateUnit.NUSD, 5 * S, 5 * S),
        (RateUnit.OUTPUT_TOKENS, 10_000, 5000),
    ]
    assert rates[0].per == ("user",)
    assert rates[2].missing_deny


def test_model_rules_read_their_patterns():
    rule = policy(
        "model_rules:\n- {id: r, match: {plan: free}, allow: [openai/*], forbid: ['*/gpt-5*']}\n"
    ).model_rules[0]
    assert rule.allow == ("openai/*",)
    assert rule.forbid == ("*/gpt-5*",)


def test_own_prices_are_integers_for_so_many_units():
    price = policy(
        "prices:\n"
        "- models: self/*\n"
        "  input: $0.20\n  cached_input: $0.02\n  output: $0.60\n  reasoning: $0.30\n"
        "  request: $0.0001\n"
        "  units: {web_searches: $0.01, audio_seconds: {price: $0.36, per: 3600}}\n"
        "  tiers: [{above: 200k, input: $0.40}]\n"
        "  batch: true\n  context_window: 128k\n  from: 2026-01-01\n"
    ).prices[0]
    assert price.units == (
        UnitPrice(
            "input_tokens",
            200_000_000,
            1_000_000,
            (PriceTier(200_000, 400_000_000),),
            ("cache_read_tokens",),
        ),
        UnitPrice("cache_read_tokens", 20_000_000, 1_000_000),
        UnitPrice("output_tokens", 600_000_000, 1_000_000, (), ("output_reasoning_tokens",)),
        UnitPrice("output_reasoning_tokens", 300_000_000, 1_000_000),
        UnitPrice("requests", 100_000, 1),
        UnitPrice("web_searches", 10_000_000, 1),
        UnitPrice("audio_seconds", 360_000_000, 3600),
    )
    assert (price.batch, price.context_window, price.until_ns) == (True, 128_000, NEVER_NS)
    assert price.from_ns == 1_767_225_600 * S


def test_a_discount_is_the_share_taken_off():
    discount = policy("discounts: [{models: 'openai/*', off: 12.5%, until: 2027-01-01}]").discounts
    assert discount[0].share == Fraction(1, 8)
    assert discount[0].from_ns == 0


def test_unknown_prices_expiry_keys_and_shadow_are_settings():
    key = "A" * 43
    settings = policy(
        "unmatched: allow\nunknown_price: {assume: openai/gpt-5}\nshadow: true\n"
        "expiry: {ttl: 1m, ttl_max: 2m, late_settle: 1d}\n"
        f"grant_keys: [{{id: ops, public_key: {key}=, admin: true}}]\n"
    )
    assert settings.unmatched_allow
    assert settings.unknown_price_assume == ModelRef("openai", "gpt-5")
    assert settings.shadow
    assert (settings.ttl_ns, settings.ttl_ns_max) == (60 * S, 120 * S)
    assert settings.late_settle_ns == 86_400 * S
    assert settings.grant_keys[0].public_key == key
    assert settings.grant_keys[0].admin


def test_load_reads_a_file(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("version: 1\n")
    assert load_policy(path) == load_policy(str(path)) == parse_policy("version: 1\n", "x")


def test_every_problem_is_listed_in_the_order_of_the_lines():
    lines = refusal(
        "budgets:\n"
        "  - id: a\n    limit: .nan\n    window: day\n    colour: red\n"
        "  - id: b\n    window: month\n    limit: -$5\n"
    ).split("\n")
    assert [line.split(": ")[:2] for line in lines] == [
        ["p.yaml:4", "budgets[0].limit"],
        ["p.yaml:6", "budgets[0].colour"],
        ["p.yaml:9", "budgets[1].limit"],
    ]


def test_a_very_bad_file_lists_its_first_fifty_problems():
    lines = refusal("budgets:\n" + "  - {}\n" * 100).split("\n")
    assert len(lines) == 51
    assert "and 150 more; mend these first" in lines[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # The shape of the file.
        ("budgets: {a: 1}", "p.yaml:2: budgets: is a mapping; it must be a list"),
        ("tiers: [a]", "p.yaml:2: tiers: is a list; it must be a mapping"),
        ("budgets:", "p.yaml:2: budgets: has no value; it must be a list"),
        ("budgets: [x]", "p.yaml:2: budgets[0]: is 'x'; it must be a mapping"),
        ("budgts: []", "p.yaml:2: budgts: there is no such field; did you mean budgets?"),
        ("colour: red", "known here: version"),
        ("budgets: [{id: b}]", "budgets[0].window: is missing"),
        ("budgets: [{id: b, window: day, limit: $2,500}]", 'quote it, like "$2,500"'),
        ("rates: [{id: r, limit: 5 requests / hour, limits: 1}]", "did you mean limit?"),
        ("prices: [{models: a/b, input: $1, form: 2026-01-01}]", "did you mean from?"),
        ("tiers: {t: {model: []}}", "tiers.t.model: there is no such field; did you mean models?"),
        ("expiry: {tll: 5m}", "did you mean ttl"),
        ("budgets: [{id: b, window: {knd: day}}]", "budgets[0].window.knd"),
        ("unmatched: maybe", "'maybe' is not known here; write 'deny' or 'allow'"),
        ("unmatched:", "has no value; write 'deny' or 'allow'"),
        ("shadow: yes", "neither true nor false"),
        ("unknown_price: free", "write deny or {assume: openai/gpt-5}"),
        ("unknown_price: {assume: gpt-5}", "'gpt-5' does not name one model"),
        # Names and patterns.
        ("budgets: [{id: 'a b', window: day}]", "'a b' is not a name"),
        ("tiers: {'a/b': {}}", "'a/b' is not a name"),
        ("tiers: {t: {models: [gpt-5]}}", "write provider/model"),
        ("tiers: {t: {models: ['openai/*']}}", "does not name one model"),
        ("model_rules: [{id: r, allow: [gpt-5*]}]", "is not a pattern of models"),
        ("model_rules: [{id: r, allow: ['openai/gpt-?']}]", "is not a pattern of models"),
        ("budgets: [{id: b, window: day, match: {user: 'a*'}}]", "a condition has no patterns"),
        ("budgets: [{id: b, window: day, match: {user: []}}]", "is an empty list"),
        ("budgets: [{id: b, window: day, match: {user: {is: a}}}]", "write {not: api}"),
        ("budgets: [{id: b, window: day, match: {user: }}]", "has no value"),
        ("budgets: [{id: b, window: day, match: {'a b': x}}]", "is not a label's key"),
        ("budgets: [{id: b, window: day, per: [user, user]}]", "must name each label once"),
        ("budgets: [{id: b, window: day, per: []}]", "must name each label once"),
        ("budgets: [{id: b, window: day, upgrade: {text: a, url: ftp://x}}]", "is not a link"),
        ("budgets: [{id: b, window: day, upgrade: {text: ''}}]", "has no text"),
        ('budgets: [{id: b, window: day, upgrade: {text: "a\\0b"}}]', "must be printable"),
        ("budgets: [{id: b, window: day, match: {user: ''}}]", "is not a label's value"),
        ("grant_keys: [{id: k, public_key: abcde}]", "not a raw Ed25519 public key"),
        ("grant_keys: [{id: k, public_key: abc}]", "not a raw Ed25519 public key"),
        ("grant_keys: [{id: k, public_key: 'a b'}]", "not a raw Ed25519 public key"),
        # Tiers and classes.
        ("default_tier: gold", "default_tier: there is no tier 'gold'"),
        ("tiers: {a: {models: [x/y]}, b: {models: [x/y]}}", "already in tier a"),
        ("tiers: {a: {models: [x/y, x/y]}}", "a model belongs to one tier, once"),
        ("tiers: {a: {relative_cost: 1/2}}", "the first tier is what the others"),
        ("tiers: {a: {}, b: {relative_cost: 0}}", "must be more than 0"),
        ("task_classes: {c: {tier: gold}}", "task_classes.c.tier: there is no tier 'gold'"),
        (TIERS + "task_classes: {c: {tier: standard, min_tier: premium}}", "above the class's own"),
        ("task_classes: {c: {takes_steps: true}}", "only a critical class opts in"),
        ("task_classes: {c: {ttl: 48h}}", "longer than expiry.ttl_max"),
        ("default_task_class: c", "there is no task class 'c'"),
        (TIERS + "budgets: [{id: b, window: day, match: {tier: gold}}]", "there is no tier 'gold'"),
        (
            "task_classes: {a: {}}\nbudgets: [{id: b, window: day, match: {task_class: {not: b}}}]",
            "there is no task_class 'b'",
        ),
        # Budgets.
        ("budgets: [{id: b, window: day}, {id: b, window: day}]", "also the id of budgets[0]"),
        ("budgets: [{id: b, window: rolling}]", "rolling windows are not supported yet"),
        ("budgets: [{id: b, window: fortnight}]", "'fortnight' is not known here"),
        ("budgets: [{id: b, window: {kind: day, time_zone: Mars/X}}]", "no time zone 'Mars/X'"),
        ("budgets: [{id: b, window: {kind: day, time_zone: Europe}}]", "no time zone 'Europe'"),
        ("time_zone: ../../etc/passwd", "time_zone: there is no time zone"),
        ("budgets: [{id: b, window: {kind: total, time_zone: UTC}}]", "has no calendar"),
        ("budgets: [{id: b, window: {kind: day, starts: monday}}]", "only a week starts"),
        ("budgets: [{id: b, window: day, reserve: 20%}]", "has no reserve; state a limit"),
        ("budgets: [{id: b, window: day, limit: $5, reserve: $5}]", "leaves nothing to other"),
        ("budgets: [{id: b, window: day, limit: $5, reserve: 5 calls}]", "and the limit in nusd"),
        ("budgets: [{id: b, window: day, was: b}]", "is still the id of a budget"),
        (
            "budgets: [{id: a, window: day, was: x}, {id: b, window: day, was: x}]",
            "budgets[0] already takes over 'x'",
        ),
        # Rates, model rules, prices.
        ("rates: [{id: r, limit: $5 / hour, burst: 2}]", "is a number and the limit is money"),
        (
            "rates: [{id: r, limit: 5 requests / hour, burst: 2 tokens}]",
            "is in tokens and the limit in requests",
        ),
        ("rates: [{id: r, limit: $1 / day, burst: $1000000}]", "more than ten years to refill"),
        ("model_rules: [{id: r}]", "allows and forbids nothing"),
        ("prices: [{models: a/b}]", "states no price"),
        ("prices: [{models: a/b, units: {x: {price: $1, pre: 2}}}]", "there is no such field"),
        ("prices: [{models: a/b, input: 5}]", "write money like"),
        ("prices: [{models: a/b, units: {output_tokens: $1}}]", "has a field of its own"),
        ("prices: [{models: a/b, input: $1, tiers: [{input: $1}]}]", "tiers[0].above: is missing"),
        (
            "prices: [{models: a/b, input: $1, tiers: [{above: 5}, {above: 5}]}]",
            "tiers must rise",
        ),
        (
            "prices: [{models: a/b, input: $1, tiers: [{above: 5, output: $1}]}]",
            "the price has no output to start from",
        ),
        (
            "prices: [{models: a/b, input: $1, from: 2026-02-01, until: 2026-01-01}]",
            "is not after `from`",
        ),
        ("discounts: [{models: a/b, off: 101%}]", "at most 100%"),
        ("discounts: [{models: a/b, off: 0}]", "must be more than 0%"),
        ("expiry: {ttl: 48h}", "is longer than ttl_max"),
    ],
)
def test_a_mistake_is_refused_with_its_place_and_advice(text, message):
    said = refusal(text)
    assert message in said
    assert said.startswith("p.yaml:")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("{do: [alert]}", "say either at: 80% or burn_rate: 1.5"),
        ("{at: 5%, burn_rate: 2, do: [alert]}", "say either at: 80% or burn_rate: 1.5"),
        ("{at: 0%, do: [alert]}", "must be more than 0%"),
        ("{at: 1001%, do: [alert]}", "at most 1000%"),
        ("{at: 0.8, do: [alert]}", "write a percentage like 80%"),
        ("{at: 80%, do: [alert]}, {at: 70%, do: [deny]}", "steps must rise"),
        ("{at: 80%, do: [alert]}, {at: 80%, do: [deny]}", "steps must rise"),
        ("{at: 80%, do: []}", "does nothing"),
        ("{at: 80%, do: [quiet]}", "quiet alone does nothing"),
        ("{at: 80%, do: [alert, quiet]}", "says alert twice"),
        ("{at: 80%, do: [tier_down, {tiers_down: 2}]}", "says tiers_down twice"),
        ("{at: 80%, do: [explode]}", "'explode' is not an action"),
        ("{at: 80%, do: [{explode: 5}]}", "'explode' is not an action with an amount"),
        ("{at: 80%, do: [{max_output_tokens: 0}]}", "must be at least 1"),
        ("{at: 80%, do: [{max_output_tokens: lots}]}", "write a whole number"),
        ("{at: 80%, do: [{tiers_down: 99}]}", "write economy instead"),
        ("{at: 80%}", "steps[0].do: is missing"),
    ],
)
def test_a_step_that_cannot_work_is_refused(steps, message):
    said = refusal(f"budgets:\n  - id: b\n    window: day\n    limit: $5\n    steps: [{steps}]\n")
    assert message in said
    assert said.startswith("p.yaml:6: budgets[0].steps[")


@pytest.mark.parametrize("window", ["run", "total"])
def test_a_window_without_an_end_has_no_pace(window):
    text = f"window: {window}, limit: $5, steps: [{{burn_rate: 2, do: [alert]}}]"
    assert "no end to pace toward" in refusal(f"budgets: [{{id: b, {text}}}]")


def test_a_budget_without_a_limit_reaches_no_step():
    text = "budgets: [{id: b, window: day, steps: [{at: 5%, do: [alert]}]}]"
    assert "reaches no step; state a limit" in refusal(text)


def test_the_version_is_asked_for():
    with pytest.raises(InvalidPolicy, match="version: is missing"):
        parse_policy("tiers: {}", "p.yaml")
    with pytest.raises(InvalidPolicy, match="'2' is not known here; write '1'"):
        parse_policy("version: 2", "p.yaml")


def test_text_that_is_not_unicode_is_refused():
    with pytest.raises(InvalidPolicy):
        parse_policy("version: 1\n# \ud800", "p.yaml")


def test_a_thousand_budgets_load():
    ladder = "[{at: 50%, do: [alert]}, {at: 80%, do: [tier_down]}, {at: 95%, do: [deny]}]"
    rows = [
        f"  - {{id: b{n}, match: {{project: p{n}}}, per: user, window: day, limit: $5, "
        f"steps: {ladder}}}"
        for n in range(1000)
    ]
    assert len(policy("budgets:\n" + "\n".join(rows)).budgets) == 1000
