"""Critical classes: what they may draw, and what they are spared."""

from policy_parts import budget, policy, step
from scenario import GRANT_KEYS, play, token

HUNDRED = policy(budget("b", "100", reserve="20"))


def test_only_critical_classes_draw_the_reserve_and_only_after_the_general_part():
    play(
        """
        admit r1 80 -> allow at=100
        admit r2 1 -> deny:BUDGET_EXHAUSTED limit=80 used=80
        admit c1 class=review 15 -> allow at=95
        show b -> reserved=95 reserve_used=15
        admit c2 class=review 6 -> deny:BUDGET_EXHAUSTED limit=100 used=95 most=5
        """,
        HUNDRED,
    )


def test_a_critical_class_draws_the_general_part_first():
    play(
        """
        admit c1 class=review 70 -> allow
        show b -> reserved=70 reserve_reserved=0
        admit c2 class=review 15 -> allow
        show b -> reserved=85 reserve_reserved=5
        admit r1 1 -> deny:BUDGET_EXHAUSTED used=80 limit=80
        """,
        HUNDRED,
    )


def test_a_settle_below_the_hold_gives_the_reserve_back_first():
    play(
        """
        admit r1 75 -> allow
        admit c1 class=review 15 -> allow
        show b -> reserve_reserved=10
        settle c1 12 -> ok
        show b -> settled=12 reserve_settled=7 reserve_reserved=0
        admit c2 class=review 13 -> allow
        show b -> reserve_used=20
        """,
        HUNDRED,
    )


def test_a_settle_below_the_general_part_gives_all_of_the_reserve_back():
    play(
        """
        admit r1 75 -> allow
        admit c1 class=review 15 -> allow
        settle c1 3 -> ok
        show b -> settled=3 reserve_used=0
        admit r2 2 -> allow
        admit r3 1 -> deny:BUDGET_EXHAUSTED
        """,
        HUNDRED,
    )


def test_an_overrun_of_a_critical_call_does_not_eat_the_reserve_of_the_others():
    play(
        """
        admit r1 80 -> allow
        admit c1 class=review 5 -> allow
        settle c1 30 -> ok
        show b -> settled=30 reserve_settled=5 overrun=25
        admit c2 class=review 1 -> deny:BUDGET_EXHAUSTED used=110
        """,
        HUNDRED,
    )


def test_void_and_expiry_keep_the_reserve_part_apart():
    play(
        """
        admit r1 80 -> allow
        admit c1 class=review 5 ttl=60 -> allow
        admit c2 class=review 5 -> allow
        void c2 -> ok
        show b -> reserve_reserved=5 reserve_settled=0
        t=60 sweep -> 1
        show b -> reserve_reserved=0 reserve_settled=5
        settle c1 2 -> late
        show b -> reserve_settled=2 settled=2
        """,
        HUNDRED,
    )


def test_an_extension_of_a_critical_call_draws_the_reserve_when_the_general_part_is_gone():
    play(
        """
        admit r1 75 -> allow
        admit c1 class=review 3 -> allow
        extend c1 10 -> ok
        show b -> reserve_reserved=8 reserved=88
        extend c1 13 -> stop:BUDGET_EXHAUSTED
        extend r1 1 -> stop:BUDGET_EXHAUSTED
        settle c1 13 -> ok
        show b -> settled=13 reserve_settled=8
        """,
        HUNDRED,
    )


def test_steps_are_percentages_of_what_the_class_at_hand_can_draw():
    play(
        """
        admit r1 60 -> allow at=75 crossed=75
        admit r2 1 -> degrade:STEP used=60 limit=80
        admit c1 class=audit 1 -> allow at=62 crossed=0
        admit c2 class=audit 13 -> allow at=75
        admit c3 class=audit 1 -> degrade:STEP used=75 limit=100
        """,
        policy(budget("b", "100", reserve="20", steps=[step(75, max_retries=0)])),
    )


def test_a_critical_class_gets_nothing_cheaper_unless_it_opts_in():
    steps = [step(50, max_retries=0, economy=True), step(90, deny=True)]
    play(
        """
        admit r1 50 -> allow
        admit c1 class=review in=100 out=100 -> allow model=big retries=None
        admit c2 class=audit in=100 out=100 -> degrade:STEP model=mid retries=0
        admit c3 class=review 42 -> allow
        admit c4 class=review 1 -> allow
        admit c5 class=audit 1 -> deny:STEP_DENY
        """,
        policy(budget("b", "100", steps=steps)),
    )


def test_a_reserve_as_large_as_the_limit_leaves_nothing_to_others():
    play(
        "admit r1 1 -> deny:BUDGET_EXHAUSTED limit=0 / admit c1 class=review 100 -> allow",
        policy(budget("b", "100", reserve="100")),
    )


def test_a_grant_spends_past_the_general_part_and_the_rest_follows_the_limit():
    play(
        """
        admit r1 80 -> allow
        admit c0 class=review 20 -> allow
        admit c1 class=review 10 grant=g -> allow:GRANT
        show b -> reserved=110 granted=10 reserve_used=20
        settle c1 4 -> ok
        show b -> settled=4 granted=4 reserve_used=20
        admit c2 class=review 1 -> deny:BUDGET_EXHAUSTED
        """,
        policy(budget("b", "100", reserve="20"), grant_keys=GRANT_KEYS),
        grants={"g": token("g", "10")},
    )
