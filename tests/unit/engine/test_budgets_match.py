"""Which budgets count an ask, where, and in what."""

import pytest
from policy_parts import budget, policy, step
from scenario import play


def test_an_ask_counts_in_every_budget_that_matches_and_all_must_have_room():
    play(
        """
        admit r1 org=o team=a 6 -> allow tightest=team
        admit r2 org=o team=b 6 -> deny:BUDGET_EXHAUSTED by=org most=4
        admit r3 org=o team=a 5 -> deny:BUDGET_EXHAUSTED by=org
        admit r4 org=o team=a 4 -> allow at=100
        show org -> reserved=10
        show team -> reserved=10
        """,
        policy(budget("org", "10", match={"org": "o"}), budget("team", "10", match={"team": "a"})),
    )


def test_one_counter_for_each_value_of_a_label():
    play(
        """
        admit r1 user=ann 10 -> allow
        admit r2 user=ann 1 -> deny:BUDGET_EXHAUSTED key=user=ann
        admit r3 user=bob 10 -> allow
        show b/user=ann -> reserved=10
        """,
        policy(budget("b", "10", per=("user",))),
    )


def test_counters_per_two_labels_are_per_pair():
    play(
        """
        admit r1 user=ann team=a 10 -> allow
        admit r2 user=ann team=b 10 -> allow
        admit r3 user=ann team=a 1 -> deny:BUDGET_EXHAUSTED
        show b/team=a,user=ann -> reserved=10
        """,
        policy(budget("b", "10", per=("team", "user"))),
    )


def test_a_missing_label_counts_under_one_shared_key():
    play(
        """
        admit r1 6 -> allow
        admit r2 team=x 5 -> deny:BUDGET_EXHAUSTED key=user=(none)
        show b/user=(none) -> reserved=6
        """,
        policy(budget("b", "10", per=("user",))),
    )


def test_a_missing_label_is_refused_where_the_budget_says_so():
    play(
        """
        admit r1 6 -> deny:LABEL_MISSING by=b
        admit r2 user=ann 6 -> allow
        """,
        policy(budget("b", "10", per=("user",), missing_deny=True), budget("all")),
    )


def test_a_budget_without_a_limit_only_tracks():
    play(
        """
        admit r1 500000 -> allow tightest=
        settle r1 6000000 -> ok
        show b -> settled=6000000 limit=-0.000000001 overrun=5500000
        """,
        policy(budget("b")),
    )


def test_a_suspended_budget_refuses_nothing_and_keeps_its_counter():
    active, suspended = budget("b", "10"), budget("b", "10", active=False)
    play(
        """
        admit r1 9 -> allow
        policy off -> ok
        admit r2 9 -> allow
        show b -> reserved=9
        extend r1 9 -> ok
        settle r1 3 -> ok
        show b -> settled=3 reserved=0
        policy on -> ok
        admit r3 8 -> deny:BUDGET_EXHAUSTED used=3
        """,
        policy(active, budget("all")),
        policies={
            "on": policy(active, budget("all")),
            "off": policy(suspended, budget("all"), revision="p2"),
        },
    )


def test_what_a_suspended_budget_let_pass_counts_as_lowered_once_it_is_back():
    active, suspended = budget("b", "10"), budget("b", "10", active=False)
    play(
        """
        admit r1 9 -> allow
        policy off -> ok
        extend r1 9 -> ok
        show b -> reserved=18 lowered=0
        policy on -> ok
        settle r1 18 -> ok
        show b -> settled=18 lowered=8
        """,
        policy(active),
        policies={"on": policy(active), "off": policy(suspended, revision="p2")},
    )


@pytest.mark.parametrize(("allow", "word"), [(True, "allow"), (False, "deny:NO_BUDGET")])
def test_an_ask_that_no_budget_matches_follows_the_policy(allow: bool, word: str):
    world = play(
        f"admit r1 team=z 5 -> {word}",
        policy(budget("b", "10", match={"team": "a"}), unmatched_allow=allow),
    )
    if allow:
        world.play("settle r1 4 -> ok")


def test_selectors_take_lists_anything_and_negations():
    rules = policy(
        budget("two", "1", match={"team": "a|b"}),
        budget("any", "2", match={"team": "*"}),
        budget("not", "3", match={"team": "!a"}),
    )
    play(
        """
        admit r1 team=b 2 -> deny:BUDGET_EXHAUSTED by=two
        admit r2 team=c 3 -> deny:BUDGET_EXHAUSTED by=any
        admit r3 4 -> deny:BUDGET_EXHAUSTED by=not
        admit r4 team=a 1 -> allow tightest=two
        """,
        rules,
    )


def test_free_models_pass_when_every_money_budget_is_empty():
    play(
        """
        admit r1 10 -> allow
        admit r2 model=acme/gratis in=1000 out=1000 -> allow hold=0
        admit r3 0 model=acme/gratis -> allow
        settle r2 in=900 out=900 -> ok cost=0
        admit r4 model=acme/gratis in=9 out=9 user=x -> deny:BUDGET_EXHAUSTED by=calls
        """,
        policy(budget("b", "10"), budget("calls", 3, unit="calls")),
    )


def test_a_free_call_that_cost_something_after_all_is_charged():
    play(
        "admit r1 0 model=acme/gratis -> allow / settle r1 3 -> ok / show b -> settled=3 overrun=3",
        policy(budget("b", "10")),
    )


def test_a_free_call_does_not_reach_the_steps_of_money_budgets():
    play(
        "admit r1 10 -> allow / admit r2 0 model=acme/gratis -> allow retries=None",
        policy(budget("b", "10", steps=[step(50, deny=True)])),
    )


def test_budgets_count_tokens_and_calls():
    play(
        """
        admit r1 in=500 out=400 -> allow tightest=tokens at=90
        admit r2 in=90 out=11 -> deny:BUDGET_EXHAUSTED by=tokens used=900 unit=tokens
        settle r1 in=100 out=100 -> ok
        admit r3 in=90 out=11 -> allow
        admit r4 in=1 out=1 -> deny:BUDGET_EXHAUSTED by=calls limit=2
        """,
        policy(budget("tokens", 1000, unit="tokens"), budget("calls", 2, unit="calls")),
    )


def test_a_budget_in_tokens_needs_to_be_told_the_tokens():
    play(
        """
        admit r1 5 -> deny:ESTIMATE_MISSING by=tokens
        admit r2 5 in=10 -> deny:ESTIMATE_MISSING
        admit r3 5 in=10 out=10 -> allow
        """,
        policy(budget("tokens", 1000, unit="tokens")),
    )


def test_a_budget_that_only_tracks_tokens_is_not_told_them_by_everybody():
    play(
        "admit r1 5 -> allow / settle r1 in=3 out=4 -> ok / show t -> settled=7",
        policy(budget("t", unit="tokens")),
    )


def test_a_budget_on_a_model_refuses_that_model_and_lets_a_cheaper_one_pass():
    play(
        """
        admit r1 in=100 out=100 -> allow model=big
        admit r2 in=100 out=100 -> degrade:BUDGET_EXHAUSTED model=titan by=big
        admit r3 in=100 out=100 accept=mid,big -> degrade:BUDGET_EXHAUSTED model=mid
        """,
        policy(budget("big", "2", match={"model": "big"}), budget("all")),
    )


def test_a_rule_that_names_no_candidate_ends_the_search():
    play(
        """
        admit r1 in=100 out=100 -> deny:BUDGET_EXHAUSTED by=team offers=big,titan,mid
        """,
        policy(budget("team", "1.7")),
    )


def test_the_search_ends_at_a_cheaper_candidate_that_a_general_rule_refuses():
    play(
        "admit r1 in=100 out=100 -> deny:BUDGET_EXHAUSTED by=big offers=big,mid,tiny",
        policy(budget("big", "1", match={"model": "big"}), budget("all", "1.5")),
    )


def test_the_tightest_budget_is_told_of_on_every_answer():
    play(
        """
        admit r1 4 -> allow tightest=b at=40
        admit r2 7 -> deny:BUDGET_EXHAUSTED tightest=b at=40
        kill k1 -> ok
        admit r3 1 -> deny:KILL_SWITCH tightest=b at=40
        """,
        policy(budget("a", "100"), budget("b", "10"), budget("c")),
    )


def test_a_refusal_says_what_to_buy_where_the_policy_does():
    play(
        """
        admit r1 1 -> allow
        admit r2 1 -> deny:BUDGET_EXHAUSTED upgrade=pro resets=86400
        admit r3 2 -> deny:BUDGET_EXHAUSTED resets=never   # more than a whole window's money
        """,
        policy(budget("b", "1", upgrade_text="pro")),
    )
