"""What an ask could run on: prices, tiers, context windows, and what the caller accepts."""

import msgspec
import pytest
from policy_parts import PRICES, TIERS, budget, klass, model_rule, policy, price, relative, step
from scenario import World, ask_id, play

from costd.errors import InvalidAsk
from costd.model.ask import Ask
from costd.model.policy import ModelRef, PolicyPrice, Tier
from costd.model.price import UnitPrice

ANY = budget("any", "100")
ASK = "in=100 out=100"


def test_an_ask_may_name_a_model_a_tier_or_nothing():
    play(
        f"""
        admit r1 {ASK} -> allow model=big tier=premium
        admit r2 {ASK} tier=standard -> allow model=mid
        admit r3 {ASK} model=acme/tiny -> allow tier=economy
        admit r4 {ASK} model=tiny -> allow tier=economy
        admit r5 {ASK} class=cheap -> allow tier=economy
        admit r6 {ASK} provider=globex -> allow model=titan
        admit r7 {ASK} tier=gold -> error:InvalidAsk says=gold
        """,
        policy(ANY, classes=(klass("draft"), klass("cheap", tier="economy"))),
    )


def test_a_caller_cannot_say_that_a_listed_model_is_of_another_tier():
    play(f"admit r1 {ASK} model=acme/big tier=economy -> allow tier=premium", policy(ANY))


def test_a_model_that_no_tier_lists_is_of_the_tier_the_caller_says_or_the_default():
    play(
        f"""
        admit r1 {ASK} model=acme/gratis tier=economy -> allow tier=economy
        admit r2 {ASK} model=acme/gratis -> allow tier=premium
        """,
        policy(ANY),
    )


def test_a_model_under_a_dated_name_is_of_the_tier_that_lists_it():
    tiers = (Tier(name="premium"), Tier(name="standard", models=(ModelRef("openai", "gpt-4o"),)))
    play(
        f"""
        admit r1 {ASK} model=openai/gpt-4o-2024-08-06 -> allow tier=standard
        admit r2 {ASK} model=gpt-4o-2024-08-06 -> allow tier=standard
        """,
        policy(ANY, tiers=tiers),
    )


def test_without_a_default_class_an_ask_must_name_one():
    play(
        f"""
        admit r1 {ASK} -> error:InvalidAsk says=set_one_of:_draft
        admit r2 {ASK} class=draft -> allow
        admit r3 {ASK} class=gone -> error:InvalidAsk says=it_knows:_draft
        """,
        policy(ANY, classes=(klass("draft"),), default_task_class=""),
    )


def test_an_unknown_model_is_denied_and_never_free():
    play(
        f"""
        admit r1 {ASK} model=acme/nobody -> deny:PRICE_UNKNOWN says=acme/nobody
        admit r2 5 model=acme/nobody -> deny:PRICE_UNKNOWN
        """,
        policy(ANY),
    )


def test_an_unknown_model_can_be_charged_at_an_assumed_price():
    play(
        f"""
        admit r1 {ASK} model=acme/nobody -> allow hold=0.2 assumed=yes
        settle r1 in=50 out=50 -> ok cost=0.1
        admit r2 {ASK} -> allow assumed=no
        """,
        policy(ANY, unknown_price_assume=ModelRef("acme", "mid")),
    )


def test_an_assumed_price_that_nobody_knows_either_denies():
    play(
        f"admit r1 {ASK} model=acme/nobody -> deny:PRICE_UNKNOWN",
        policy(ANY, unknown_price_assume=ModelRef("acme", "nobody2")),
    )


def test_an_ask_that_does_not_fit_the_context_window_is_refused_or_goes_elsewhere():
    narrow = Tier(name="premium", models=(ModelRef("acme", "narrow"),))
    play(
        """
        admit r1 in=500 out=500 -> allow model=narrow
        admit r2 in=501 out=500 -> degrade:CONTEXT_TOO_LONG model=tiny
        admit r3 in=501 out=500 accept=narrow -> deny:CONTEXT_TOO_LONG says=context_window
        """,
        policy(ANY, tiers=(narrow, *TIERS[1:])),
    )


def test_a_cheaper_model_with_too_small_a_window_is_not_offered():
    kill = "kill k1 model=big -> ok"
    tiers = (TIERS[0], Tier(name="standard", models=(ModelRef("acme", "narrow"),)), TIERS[2])
    play(
        f"{kill} / admit r1 in=600 out=600 accept=acme/* -> degrade:KILL_SWITCH model=tiny",
        policy(ANY, tiers=tiers),
    )


def test_an_explicit_zero_output_needs_no_room():
    narrow = Tier(name="premium", models=(ModelRef("acme", "narrow"),))
    classes = (klass("draft", max_output_tokens=600),)
    play(
        """
        admit r1 in=1000 out=0 -> allow
        admit r2 in=500 accept=narrow -> deny:CONTEXT_TOO_LONG
        """,
        policy(ANY, tiers=(narrow, *TIERS[1:]), classes=classes),
    )


@pytest.mark.parametrize(
    ("accept", "word"),
    [
        ("mid", "degrade:KILL_SWITCH model=mid"),
        ("acme/mid", "degrade:KILL_SWITCH model=mid"),
        ("acme/*", "degrade:KILL_SWITCH model=mid"),
        ("t*", "degrade:KILL_SWITCH model=titan"),
        ("tiny,nobody", "degrade:KILL_SWITCH model=tiny"),
        ("acme/titan", "deny:KILL_SWITCH"),
    ],
)
def test_only_what_the_caller_accepts_is_offered(accept: str, word: str):
    play(
        f"kill k1 model=big -> ok / admit r1 {ASK} model=acme/big accept={accept} -> {word}",
        policy(ANY),
    )


def test_the_first_acceptable_model_of_the_tier_is_asked():
    play(
        f"""
        admit r1 {ASK} accept=titan -> allow model=titan
        admit r2 {ASK} accept=mid -> deny:NO_CANDIDATE says=premium
        admit r3 5 accept=mid -> deny:NO_CANDIDATE
        """,
        policy(ANY),
    )


def test_the_same_provider_is_offered_first_in_each_tier():
    tiers = (
        Tier(name="premium", models=(ModelRef("globex", "titan"),)),
        Tier(name="standard", models=(ModelRef("acme", "mid"), ModelRef("globex", "moon"))),
    )
    play(
        f"kill k1 model=titan -> ok / admit r1 {ASK} -> degrade:KILL_SWITCH model=moon",
        policy(ANY, tiers=tiers, prices=(price("globex/moon", 1_000_000),)),
    )


def test_a_model_rule_allows_or_forbids_for_whom_it_says():
    rules = (
        model_rule("juniors", match={"role": "junior"}, forbid=("acme/big", "globex/*")),
        model_rule("bots", match={"role": "bot"}, allow=("acme/tiny",), upgrade_text="ask"),
    )
    play(
        f"""
        admit r1 {ASK} role=junior -> degrade:MODEL_FORBIDDEN model=mid by=juniors
        admit r2 {ASK} role=bot -> degrade:MODEL_FORBIDDEN model=tiny
        admit r3 {ASK} role=bot accept=mid,big -> deny:MODEL_FORBIDDEN upgrade=ask
        admit r4 {ASK} -> allow model=big
        admit r5 {ASK} role=junior model=acme/mid -> allow
        """,
        policy(ANY, *rules),
    )


def test_an_ask_with_only_an_amount_holds_the_full_amount_at_every_tier():
    play("kill k1 model=big -> ok / admit r1 5 -> degrade:KILL_SWITCH hold=5", policy(ANY))


def test_tiers_with_stated_relative_costs_scale_an_amount_rounding_up():
    play(
        """
        admit r1 5 -> allow tier=premium hold=5 model=
        kill k1 mode=max_tier:standard -> ok
        admit r2 5 -> degrade:KILL_SWITCH tier=standard hold=1
        admit r3 0.000000001 -> degrade:KILL_SWITCH hold=0.000000001
        """,
        policy(ANY, tiers=relative("1", "1/5", "1/50")),
    )


def test_tiers_without_a_relative_cost_hold_the_full_amount():
    play(
        "kill k1 mode=max_tier:standard -> ok / admit r2 5 -> degrade:KILL_SWITCH hold=5",
        policy(ANY, tiers=relative("-", "1/5")),
    )


def test_a_tier_that_is_stated_to_be_dearer_is_not_offered():
    play(
        "kill k1 mode=max_tier:standard -> ok / admit r2 5 -> degrade:KILL_SWITCH tier=economy",
        policy(ANY, tiers=relative("1", "3/2", "1/50")),
    )


def test_a_policy_without_tiers_decides_on_amounts_and_prices_alone():
    play(
        f"""
        admit r1 5 -> allow tier= model=
        admit r2 {ASK} model=acme/big -> allow hold=2
        admit r3 {ASK} -> deny:NO_CANDIDATE
        admit r4 200 -> deny:BUDGET_EXHAUSTED most=93
        """,
        policy(ANY, tiers=(), default_tier=""),
    )


def test_an_ask_must_state_an_amount_or_tokens():
    play(
        """
        admit r1 -> error:InvalidAsk says=state_estimated_cost_nusd
        admit r2 in=5 -> error:InvalidAsk says=max_output_tokens_is_missing
        admit r3 out=5 -> allow hold=0.05
        admit r4 in=5 class=long -> allow hold=0.15 ceiling=-
        admit r5 units=3 -> allow hold=0
        admit r6 units=3 in=5 class=long -> allow hold=0.15
        """,
        policy(ANY, classes=(klass("draft"), klass("long", max_output_tokens=10))),
    )


def test_where_most_tokens_are_stated_the_ceiling_is_known():
    play("admit r1 in=5 out=5 -> allow ceiling=0.1 / admit r2 5 -> allow ceiling=-", policy(ANY))


def test_units_that_contradict_each_other_are_refused():
    units = (UnitPrice("input_tokens", 10, 1), UnitPrice("cache_read_tokens", 1, 1))
    own = PolicyPrice(models="acme/big", units=units)
    world = World(policy(ANY, prices=(own,)))
    ask, _, _ = world.ask("r1", "in=5", "out=5")
    with pytest.raises(InvalidAsk, match="units: input_tokens is 5, less than its parts"):
        world.ledger.admit(msgspec.structs.replace(ask, units={"cache_read_tokens": 9}))


def test_a_batch_ask_is_priced_as_one():
    play(
        f"admit r1 {ASK} batch=1 -> allow hold=1 / settle r1 in=100 out=100 -> ok cost=1",
        policy(ANY, prices=(price("acme/big", 5_000_000, batch=True),)),
    )


def test_every_model_of_these_tests_has_a_price():
    assert {str(ref) for tier in TIERS for ref in tier.models} <= {p.models for p in PRICES}


def test_a_model_that_cannot_price_what_the_ask_states_is_not_offered():
    apart = PolicyPrice(
        models="acme/mid",
        units=(
            UnitPrice("input_tokens", 1, 1, minus=("input_audio_tokens",)),
            UnitPrice("input_audio_tokens", 1, 1),
            UnitPrice("output_tokens", 1, 1),
        ),
    )
    steps = [step(50, tiers_down=1)]
    world = World(policy(budget("b", "10", steps=steps), prices=(apart,)))
    world.play("admit r1 5 -> allow")
    audio = {"input_audio_tokens": 5}
    for number, (prompt_tokens, model) in enumerate([(4, "tiny"), (5, "mid")]):
        asked = Ask(
            ask_id=ask_id(f"a{number}"),
            prompt_tokens=prompt_tokens,
            max_output_tokens=1,
            units=audio,
        )
        assert world.ledger.admit(asked).decision.model == model
    world.check()
