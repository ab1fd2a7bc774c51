"""Rules in shadow: decided and recorded, but answered with allow."""

from fractions import Fraction

from policy_parts import budget, klass, model_rule, policy, rate, step
from scenario import play

from costd.model.policy import ModelRef, Tier

ASK = "in=100 out=100"


def test_a_budget_in_shadow_records_what_it_would_have_refused():
    play(
        """
        admit r1 8 -> allow
        admit r2 5 -> allow:SHADOW shadow=deny:BUDGET_EXHAUSTED at=130
        show b -> reserved=13 shadow=5
        settle r2 4 -> ok
        show b -> settled=4 reserved=8 shadow=4
        admit r3 1 -> allow:SHADOW
        void r3 -> ok
        show b -> shadow=4
        """,
        policy(budget("b", "10", shadow=True)),
    )


def test_within_its_limit_a_budget_in_shadow_is_like_any_other():
    play(
        """
        admit r1 8 -> allow
        settle r1 11 -> ok
        show b -> overrun=3 shadow=0
        """,
        policy(budget("b", "10", shadow=True)),
    )


def test_expiry_and_late_settle_of_a_shadowed_hold_stay_in_its_column():
    play(
        """
        admit r1 8 -> allow
        admit r2 5 ttl=60 -> allow:SHADOW
        t=60 sweep -> 1
        show b -> settled=5 shadow=5
        settle r2 7 -> late
        show b -> settled=7 shadow=7 late=0
        """,
        policy(budget("b", "10", shadow=True)),
    )


def test_an_extension_that_a_budget_in_shadow_would_have_refused():
    play(
        """
        admit r1 8 -> allow
        extend r1 1 -> ok
        show b -> reserved=9 shadow=0
        extend r1 4 -> ok
        show b -> reserved=13 shadow=13
        extend r1 1 -> ok
        show b -> reserved=14 shadow=14
        settle r1 3 -> ok
        show b -> settled=3 shadow=3
        """,
        policy(budget("b", "10", shadow=True)),
    )


def test_an_extension_is_refused_once_the_budget_has_left_the_shadow():
    play(
        """
        admit r1 8 -> allow
        admit r2 5 -> allow:SHADOW
        policy real -> ok
        extend r2 1 -> stop:BUDGET_EXHAUSTED
        show b -> reserved=13 shadow=5
        admit r3 1 -> deny:BUDGET_EXHAUSTED
        void r1 -> ok
        extend r2 1 -> ok
        settle r2 6 -> ok
        show b -> settled=6 shadow=6
        """,
        policy(budget("b", "10", shadow=True)),
        policies={"real": policy(budget("b", "10"), revision="p2")},
    )


def test_a_budget_in_shadow_does_not_soften_the_others():
    play(
        """
        admit r1 8 -> allow
        admit r2 5 -> deny:BUDGET_EXHAUSTED by=real
        show soft -> reserved=8 shadow=0
        """,
        policy(budget("soft", "10", shadow=True), budget("real", "10")),
    )


def test_an_answer_that_the_shadow_does_not_change_says_nothing_of_it():
    world = play(
        f"""
        admit r1 8 -> allow
        admit r2 {ASK} -> degrade:STEP retries=0
        """,
        policy(
            budget("real", "10", steps=[step(50, max_retries=0)]),
            budget("soft", "100", shadow=True, steps=[step(50, max_retries=0)]),
        ),
    )
    assert world.decision.shadow_verdict == 0


def test_a_degraded_answer_says_where_the_shadow_would_have_gone_further():
    play(
        f"""
        admit r1 8 -> allow
        admit r2 {ASK} -> degrade:STEP model=big retries=0 shadow=degrade:STEP
        admit r3 3 -> degrade:STEP shadow=deny:BUDGET_EXHAUSTED
        """,
        policy(
            budget("real", "16", steps=[step(50, max_retries=0)]),
            budget("soft", "10", shadow=True, steps=[step(50, tiers_down=1)]),
        ),
    )


def test_steps_in_shadow_ask_for_nothing_but_are_told_of():
    play(
        f"""
        admit r1 8 -> allow
        admit r2 {ASK} -> allow:SHADOW model=big shadow=degrade:STEP
        alerts -> b@50
        """,
        policy(budget("b", "16", shadow=True, steps=[step(50, tiers_down=1)])),
    )


def test_a_halt_in_shadow_engages_nothing():
    play(
        "admit r1 8 -> allow / kills -> none / alerts -> b@50",
        policy(budget("b", "10", shadow=True, steps=[step(50, halt=True)])),
    )


def test_kill_switches_are_never_shadowed():
    play(
        "kill k1 -> ok / admit r1 8 -> deny:KILL_SWITCH",
        policy(budget("b", "10"), shadow=True),
    )


def test_a_rate_in_shadow_lets_pass_and_is_not_drawn_into_debt():
    play(
        """
        admit r1 1 -> allow
        admit r2 1 -> allow:SHADOW shadow=deny:RATE_LIMITED
        t=60 admit r3 1 -> allow
        """,
        policy(budget("b"), rate("r", 1, shadow=True)),
    )


def test_a_rate_in_shadow_lets_those_pass_who_lack_labels_or_tokens():
    play(
        """
        admit r1 1 -> allow:SHADOW shadow=deny:LABEL_MISSING
        admit r2 user=ann 1 -> allow:SHADOW shadow=deny:ESTIMATE_MISSING
        """,
        policy(
            budget("b"),
            rate("r", 1, shadow=True, per=("user",), missing_deny=True),
            rate("t", 1, "tokens", shadow=True),
        ),
    )


def test_a_budget_in_shadow_lets_those_pass_who_lack_labels_or_tokens():
    play(
        """
        admit r1 1 -> allow:SHADOW shadow=deny:LABEL_MISSING
        admit r2 user=ann 1 -> allow:SHADOW shadow=deny:ESTIMATE_MISSING
        show t -> reserved=0
        """,
        policy(
            budget("b", "10", shadow=True, per=("user",), missing_deny=True),
            budget("t", 10, unit="tokens", shadow=True),
        ),
    )


def test_a_model_rule_in_shadow_lets_the_model_pass():
    play(
        f"admit r1 {ASK} -> allow:SHADOW model=big shadow=degrade:MODEL_FORBIDDEN",
        policy(budget("b"), model_rule("m", forbid=("acme/big",), shadow=True)),
    )


def test_a_reserve_in_shadow_is_counted_under_its_cause():
    play(
        """
        admit r1 80 -> allow
        admit r2 10 -> allow:SHADOW shadow=deny:BUDGET_EXHAUSTED
        show b -> reserved=90 shadow=10 reserve_used=0
        admit c1 class=review 15 -> allow:SHADOW
        show b -> reserved=105 shadow=25 reserve_used=0
        extend c1 1 -> ok
        show b -> shadow=26 reserve_used=0
        """,
        policy(budget("b", "100", reserve="20", shadow=True)),
    )


def test_a_whole_policy_in_shadow_refuses_nothing_but_says_what_it_would_have():
    tiers = (
        Tier(name="premium", models=(ModelRef("acme", "big"), ModelRef("acme", "narrow"))),
        Tier(name="economy", models=(ModelRef("acme", "tiny"),), relative_cost=Fraction(1, 5)),
    )
    play(
        f"""
        admit r1 team=z 5 model=acme/tiny -> allow:SHADOW shadow=deny:NO_BUDGET
        admit r2 team=a 15 model=acme/tiny -> allow:SHADOW shadow=deny:BUDGET_EXHAUSTED
        admit r3 team=a {ASK} model=acme/nobody -> allow:SHADOW shadow=deny:PRICE_UNKNOWN
        admit r4 team=a 0 model=acme/big -> allow:SHADOW shadow=deny:MODEL_FORBIDDEN
        admit r5 in=900 out=900 team=a model=acme/narrow -> allow:SHADOW
        admit r6 in=5 out=5 team=a accept=none -> allow:SHADOW shadow=deny:NO_CANDIDATE
        settle r3 4 -> ok
        show a -> settled=4 overrun=0
        """,
        policy(
            budget("a", "10", match={"team": "a"}),
            model_rule("m", forbid=("acme/big",)),
            tiers=tiers,
            classes=(klass("draft"),),
            shadow=True,
        ),
    )
