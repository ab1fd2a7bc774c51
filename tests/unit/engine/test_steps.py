import pytest
from policy_parts import budget, klass, model_rule, policy, price, rate, step
from scenario import play

ASK = "in=100 out=100"  # $2 at premium, $0.2 at standard, $0.02 at economy


def laddered(*steps, **fields):
    return policy(budget("b", "10", steps=steps, **fields))


def test_steps_are_reached_by_what_is_used_before_the_ask():
    play(
        """
        admit r1 5 -> allow crossed=50
        admit r2 1 -> degrade:STEP by=b retries=1
        void r1 -> ok
        admit r3 1 -> allow retries=None
        """,
        laddered(step(50, max_retries=1)),
    )


def test_every_directive_reaches_the_caller():
    play(
        """
        admit r1 5 -> allow
        admit r2 in=100 out=90 -> degrade:STEP retries=0 output=40 do=compression,cache,batch
        """,
        laddered(
            step(10, max_retries=0),
            step(20, max_output_tokens=40),
            step(30, compression=True),
            step(40, cache=True),
            step(50, batch=True),
        ),
    )


def test_of_every_directive_the_strictest_holds_whichever_budget_asks():
    play(
        """
        admit r1 team=a 5 -> allow
        admit r2 team=a in=100 out=90 -> degrade:STEP retries=1 output=20
        """,
        policy(
            budget("all", "10", steps=[step(50, max_retries=1, max_output_tokens=50)]),
            budget(
                "team",
                "10",
                match={"team": "a"},
                steps=[step(20, max_retries=3, max_output_tokens=20)],
            ),
        ),
    )


def test_a_shorter_output_makes_the_hold_smaller():
    play(
        """
        admit r1 5 -> allow
        admit r2 in=100 out=100 -> degrade:STEP output=40 hold=1.4 ceiling=1.4
        """,
        laddered(step(50, max_output_tokens=40)),
    )


def test_a_bound_on_the_output_that_the_ask_keeps_already_degrades_nothing():
    play(
        """
        admit r1 5 -> allow
        admit r2 in=100 out=30 -> allow output=None
        admit r3 in=100 out=40 -> allow
        """,
        laddered(step(50, max_output_tokens=40)),
    )


def test_a_kept_bound_leaves_the_other_directives():
    play(
        "admit r1 5 -> allow / admit r2 in=100 out=30 -> degrade:STEP output=None retries=2",
        laddered(step(50, max_output_tokens=40, max_retries=2)),
    )


def test_a_bound_is_stated_to_callers_who_stated_none():
    play(
        """
        admit r1 class=short 5 -> allow
        admit r2 class=short in=100 -> degrade:STEP output=40 hold=1.1
        admit r3 class=short 0.5 -> degrade:STEP output=40 hold=0.5
        """,
        policy(
            budget("b", "10", steps=[step(50, max_output_tokens=40)]),
            classes=(klass("short", max_output_tokens=10),),
        ),
    )


def test_one_tier_down_offers_the_model_below():
    play(
        f"""
        admit r1 5 -> allow model=big
        admit r2 {ASK} -> degrade:STEP model=mid tier=standard hold=0.2
        """,
        laddered(step(50, tiers_down=1)),
    )


def test_two_tiers_down_skip_the_one_between():
    play(
        f"admit r1 5 -> allow / admit r2 {ASK} -> degrade:STEP model=tiny asked=premium",
        laddered(step(50, tiers_down=2)),
    )


def test_economy_is_the_last_tier_of_all():
    play(
        f"admit r1 5 -> allow / admit r2 {ASK} -> degrade:STEP model=tiny",
        laddered(step(50, economy=True)),
    )


def test_another_provider_of_the_same_tier_is_offered_where_it_is_cheaper():
    play(
        f"admit r1 5 -> allow / admit r2 {ASK} -> degrade:STEP model=titan tier=premium hold=1.6",
        laddered(step(50, switch_provider=True)),
    )


def test_tiers_stop_at_the_class_min_tier():
    steps = laddered(step(50, economy=True))
    play(
        f"admit r1 5 -> allow / admit r2 {ASK} -> degrade:STEP model=mid",
        policy(*steps.budgets, classes=(klass("draft", min_tier="standard"),)),
    )


def test_a_class_that_is_at_its_min_tier_is_not_called_degraded():
    steps = laddered(step(50, economy=True))
    play(
        f"admit r1 5 -> allow / admit r2 {ASK} -> allow model=big",
        policy(*steps.budgets, classes=(klass("draft", min_tier="premium"),)),
    )


def test_where_nothing_cheaper_is_on_offer_the_asked_model_stands():
    play(
        f"""
        admit r1 5 -> allow
        admit r2 {ASK} accept=big -> allow model=big
        admit r3 in=1 out=1 accept=big retry=x -> allow
        """,
        laddered(step(50, tiers_down=1)),
    )


def test_a_lower_tier_is_not_offered_when_this_ask_becomes_dearer_by_it():
    dear_mid = price("acme/mid", 100_000_000)
    play(
        f"admit r1 5 -> allow / admit r2 {ASK} -> degrade:STEP model=tiny",
        policy(*laddered(step(50, tiers_down=1)).budgets, prices=(dear_mid,)),
    )


def test_steps_of_the_tier_below_are_obeyed_too():
    play(
        f"""
        admit r1 model=acme/mid 1 -> allow
        admit r2 5 -> allow
        admit r3 {ASK} -> degrade:STEP model=tiny by=all
        """,
        policy(
            budget("all", "10", steps=[step(50, tiers_down=1)]),
            budget("mid", "2", match={"tier": "standard"}, steps=[step(50, tiers_down=2)]),
        ),
    )


def test_where_a_step_asks_for_less_a_model_that_no_longer_fits_does_not_end_the_search():
    play(
        f"""
        admit r1 9 -> allow
        admit r2 {ASK} -> degrade:BUDGET_EXHAUSTED model=mid hold=0.2 by=b
        """,
        laddered(step(80, tiers_down=1)),
    )


def test_without_such_a_step_a_model_that_does_not_fit_is_refused_with_what_would():
    play(
        f"""
        admit r1 9 -> allow
        admit r2 {ASK} -> deny:BUDGET_EXHAUSTED by=b
        """,
        laddered(step(80, max_retries=1)),
    )


def test_a_cheaper_tier_whose_budget_only_alerts_is_given_for_the_step_that_asked():
    play(
        f"""
        admit r1 5 -> allow
        admit r2 model=acme/mid 1 -> allow
        admit r3 {ASK} -> degrade:STEP model=mid by=premium
        """,
        policy(
            budget("premium", "10", match={"tier": "premium"}, steps=[step(50, tiers_down=1)]),
            budget("mid", "2", match={"tier": "standard"}, steps=[step(10)]),
        ),
    )


def test_a_deny_step_refuses_and_says_when_it_resets():
    play(
        """
        admit r1 5 -> allow
        admit r2 1 -> deny:STEP_DENY by=b resets=86400
        show b -> reserved=5
        """,
        laddered(step(50, deny=True)),
    )


def test_a_deny_step_of_a_budget_on_a_tier_leaves_the_tiers_below():
    play(
        f"""
        admit r1 5 -> allow
        admit r2 {ASK} -> degrade:STEP_DENY model=mid by=b
        """,
        policy(
            budget("b", "10", match={"tier": "premium"}, steps=[step(50, deny=True)]), budget("all")
        ),
    )


def test_a_step_at_a_burn_rate_is_reached_ahead_of_the_pace_that_would_last():
    play(
        """
        t=7200 admit r1 2 -> allow        # a twelfth of the day: a fifth used is 2.4 times as fast
        admit r2 0.1 -> degrade:STEP by=b retries=0
        t=12h admit r3 0.1 -> allow       # half of the day, a fifth used
        """,
        laddered(step(burn=2, max_retries=0)),
    )


def test_no_burn_rate_counts_in_the_first_twentieth_of_the_window_or_under_a_tenth_used():
    play(
        """
        t=4319 admit r1 5 -> allow
        admit r2 0.1 -> allow
        t=4320 admit r3 0.1 -> degrade:STEP
        """,
        laddered(step(burn=2, max_retries=0)),
    )
    play(
        "t=2h admit r1 0.99 -> allow / admit r2 0.01 -> allow / admit r3 0.1 -> degrade:STEP",
        laddered(step(burn=1, max_retries=0)),
    )


def test_a_total_budget_has_no_pace():
    play(
        "t=2h admit r1 9 -> allow / admit r2 0.1 -> allow",
        laddered(step(burn=1, max_retries=0), window="total"),
    )


def test_a_limit_of_zero_has_reached_every_step():
    play(
        "admit r1 1 -> deny:STEP_DENY at=100 / admit r2 0 model=acme/gratis -> allow",
        policy(budget("b", 0, steps=[step(50, deny=True)])),
    )


def test_halt_engages_the_kill_switch_for_the_budget_and_its_value():
    play(
        """
        admit r1 team=a user=ann 8 -> allow
        kills -> halt/b/user=ann
        alerts -> b@80,kill:b
        audit -> kill_engaged
        admit r2 team=a user=ann 1 -> deny:KILL_SWITCH resets=never
        admit r3 team=a user=bob 1 -> allow
        admit r4 team=z user=ann 1 -> allow tightest=other
        """,
        policy(
            budget("b", "10", match={"team": "a"}, per=("user",), steps=[step(80, halt=True)]),
            budget("other", "100"),
        ),
    )


def test_halt_covers_those_who_lack_the_label_by_themselves():
    play(
        """
        admit r1 8 -> allow
        kills -> halt/b/user=(none)
        admit r2 1 -> deny:KILL_SWITCH
        admit r3 user=ann 1 -> allow
        """,
        policy(budget("b", "10", per=("user",), steps=[step(80, halt=True)])),
    )


def test_a_released_halt_stays_released_in_the_same_window():
    play(
        """
        admit r1 8 -> allow
        release halt/b -> 1
        admit r2 1 -> allow
        settle r1 8 -> ok
        kills -> none
        t=1d admit r3 9 -> allow
        kills -> halt/b/-
        """,
        laddered(step(80, halt=True)),
    )


def test_a_settle_can_reach_a_halt_too():
    play(
        "admit r1 5 -> allow / settle r1 9 -> ok / kills -> halt/b/-",
        laddered(step(80, halt=True)),
    )


def test_what_is_charged_to_a_window_that_has_ended_alerts_but_halts_nobody_today():
    play(
        """
        t=86390 admit r1 5 -> allow
        t=86410 settle r1 9 -> ok
        alerts -> b@80,overrun:4
        kills -> none
        record x1 9 at=5 -> ok
        kills -> none
        """,
        laddered(step(80, halt=True)),
    )


def test_two_halts_reached_at_once_engage_one_switch():
    play(
        "admit r1 9 -> allow / audit -> kill_engaged / kills -> halt/b/-",
        laddered(step(80, halt=True), step(90, halt=True)),
    )


def test_a_halt_of_a_budget_on_a_model_stops_that_model_only():
    play(
        f"admit r1 8 -> allow / admit r2 {ASK} -> degrade:KILL_SWITCH model=titan",
        policy(
            budget("b", "10", match={"model": "big"}, steps=[step(80, halt=True)]), budget("all")
        ),
    )


def test_a_refused_ask_takes_nothing_from_a_rate():
    play(
        """
        admit r1 9 -> allow
        admit r2 5 -> deny:BUDGET_EXHAUSTED
        admit r3 1 -> allow
        admit r4 0 -> deny:RATE_LIMITED
        """,
        policy(budget("b", "10"), rate("r", 2)),
    )


TWO_DOWN = (step(50, tiers_down=2),)
ONLY_MID = model_rule("no-tiny", forbid=("tiny",))


@pytest.mark.parametrize("asks", [{"tiers_down": 2}, {"economy": True}])
def test_where_the_lowest_tier_is_forbidden_the_one_above_it_is_given(asks):
    play(
        f"""
        admit r1 5 -> allow
        explain r2 {ASK} -> degrade:STEP tried=big:fits,titan:fits,mid:chosen,tiny:rejected
        admit r2 {ASK} -> degrade:STEP model=mid by=b
        """,
        policy(budget("b", "10", steps=[step(50, **asks)]), ONLY_MID),
    )


def test_where_the_lowest_tier_has_too_small_a_context_the_one_above_it_is_given():
    small = price("acme/tiny", 100_000, context_window=199)
    play(
        f"admit r1 5 -> allow / admit r2 {ASK} -> degrade:STEP model=mid",
        policy(budget("b", "10", steps=TWO_DOWN), prices=(small,)),
    )


def test_where_the_lowest_tier_has_no_room_the_one_above_it_is_given():
    play(
        f"admit r1 5 -> allow / admit r2 {ASK} -> degrade:STEP model=mid",
        policy(budget("b", "10", steps=TWO_DOWN), budget("low", "0.01", match={"tier": "economy"})),
    )


def test_the_asked_model_stands_where_nothing_below_it_fits_and_not_another_of_its_tier():
    play(
        f"admit r1 5 -> allow / admit r2 {ASK} -> allow model=big",
        policy(budget("b", "10", steps=TWO_DOWN), model_rule("no", forbid=("tiny", "mid"))),
    )


def test_a_tier_below_whose_own_steps_ask_for_more_is_given_before_the_asked_one():
    play(
        f"""
        admit r1 model=acme/mid 1 -> allow
        admit r2 5 -> allow
        admit r3 {ASK} -> degrade:STEP model=mid by=all
        """,
        policy(
            budget("all", "10", steps=[step(50, tiers_down=1)]),
            budget("mid", "2", match={"tier": "standard"}, steps=TWO_DOWN),
            ONLY_MID,
        ),
    )


def test_where_no_other_provider_is_on_offer_the_asked_model_stands():
    play(
        f"admit r1 5 -> allow / admit r2 {ASK} -> allow model=big",
        policy(
            budget("b", "10", steps=[step(50, switch_provider=True)]),
            model_rule("no", forbid=("titan",)),
        ),
    )


def test_the_lowest_tier_counts_before_the_provider_where_both_cannot_be_had():
    asks = step(50, switch_provider=True, tiers_down=1)
    play(
        f"admit r1 5 -> allow / admit r2 {ASK} -> degrade:STEP model=tiny",
        policy(budget("b", "10", steps=[asks])),
    )
    play(
        f"admit r1 5 -> allow / admit r2 {ASK} -> degrade:STEP model=titan",
        policy(budget("b", "10", steps=[asks]), model_rule("no", forbid=("mid", "tiny"))),
    )


def test_where_the_asked_model_is_refused_the_lowest_tier_of_its_provider_is_given():
    play(
        f"admit r1 9 -> allow / admit r2 {ASK} -> degrade:BUDGET_EXHAUSTED model=tiny",
        policy(
            budget("b", "10", match={"tier": "premium"}, steps=[step(50, switch_provider=True)]),
            budget("all"),
        ),
    )


def test_a_refusal_that_names_no_model_ends_the_search_before_what_was_passed_over():
    play(
        f"""
        record x1 10 team=z model=acme/tiny -> ok
        admit r1 5 -> allow
        explain r2 {ASK} -> allow tried=big:chosen,titan:not_reached,mid:not_reached,tiny:ends_search
        admit r2 {ASK} -> allow model=big
        """,
        policy(
            budget("b", "10", match={"team": "!z"}, steps=TWO_DOWN),
            budget("each", "10", per=("model",)),
        ),
    )


def test_a_refusal_that_names_no_model_ends_the_search_among_what_was_passed_over_too():
    table = f"""
        admit r1 9 -> allow
        record x1 {{}} model=acme/mid -> ok
        explain r2 {ASK} -> {{}}
        """
    rules = policy(
        budget("b", "10", match={"model": "big"}, steps=[step(50, economy=True)]),
        budget("each", "10", per=("model",)),
        ONLY_MID,
    )
    refused = "deny:BUDGET_EXHAUSTED tried=big:rejected,titan:not_reached,mid:ends_search"
    play(table.format("10", f"{refused},tiny:rejected"), rules)
    given = "degrade:BUDGET_EXHAUSTED tried=big:rejected,titan:fits,mid:chosen,tiny:rejected"
    play(table.format("9", given), rules)
