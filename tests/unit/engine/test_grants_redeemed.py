"""Override grants against the books; their signatures are tested with costd.grants."""

from policy_parts import budget, model_rule, policy, rate, step
from scenario import ADMIN_KEYS, GRANT_KEYS, play, token

from costd.engine.changes import Family

TEN = policy(budget("b", "10"), grant_keys=GRANT_KEYS)


def test_a_grant_lets_a_critical_ask_past_an_empty_budget_and_is_told_of():
    world = play(
        """
        admit r1 10 -> allow
        admit c1 class=review 5 grant=g -> allow:GRANT granted=g by=b
        show b -> reserved=15 granted=5
        grant g -> uses=1 used=5
        alerts -> grant:g
        audit -> grant_redeemed
        """,
        TEN,
        grants={"g": token("g")},
    )
    ((_, alert),) = world.store.scan(Family.ALERTS)
    assert (
        "use 1 of 1, $5.00 held for review; issued by lead to ann: release night" in alert.message
    )


def test_a_granted_answer_tells_of_the_tightest_budget_too():
    play(
        """
        admit r1 8 -> allow tightest=b at=100
        admit c1 class=review 5 grant=g -> allow:GRANT tightest=b at=130
        """,
        policy(
            budget("a", "100"),
            budget("b", "10", reserve="2"),
            budget("c"),
            budget("d", "100"),
            grant_keys=GRANT_KEYS,
        ),
        grants={"g": token("g")},
    )


def test_a_grant_is_not_burnt_by_an_ask_that_would_have_passed():
    play(
        """
        admit c1 class=review 5 grant=g -> allow grant=NOT_NEEDED
        grant g -> unused
        show b -> granted=0
        """,
        TEN,
        grants={"g": token("g")},
    )


def test_a_grant_keeps_the_asked_tier_where_a_step_asks_for_less():
    play(
        """
        admit c1 class=audit 5 -> allow
        admit c2 class=audit in=10 out=10 grant=g -> allow:GRANT model=big
        admit c3 class=audit in=10 out=10 grant=g -> degrade:STEP grant=USED_UP
        """,
        policy(
            budget("b", "10", steps=[step(50, max_retries=0, tiers_down=1)]), grant_keys=GRANT_KEYS
        ),
        grants={"g": token("g", task_classes=("audit",))},
    )


def test_a_used_up_grant_changes_nothing():
    play(
        """
        admit r1 10 -> allow
        admit c1 class=review 5 grant=g -> allow:GRANT
        admit c2 class=review 5 grant=g -> allow:GRANT
        admit c3 class=review 5 grant=g -> deny:BUDGET_EXHAUSTED grant=USED_UP
        grant g -> uses=2 used=10
        show b -> granted=10 reserved=20
        """,
        TEN,
        grants={"g": token("g", uses=2)},
    )


def test_a_grant_covers_no_more_than_its_amount():
    play(
        """
        admit r1 10 -> allow
        admit c1 class=review 6 grant=g -> allow:GRANT
        admit c2 class=review 5 grant=g -> deny:BUDGET_EXHAUSTED grant=AMOUNT_EXCEEDED
        admit c3 class=review 4 grant=g -> allow:GRANT
        grant g -> uses=2 used=10
        """,
        TEN,
        grants={"g": token("g", "10", uses=9)},
    )


def test_a_settle_makes_the_use_true_and_a_void_gives_it_back():
    play(
        """
        admit r1 10 -> allow
        admit c1 class=review 6 grant=g -> allow:GRANT
        settle c1 2 -> ok
        grant g -> uses=1 used=2
        show b -> settled=2 granted=2
        admit c2 class=review 8 grant=g -> allow:GRANT
        void c2 -> ok
        grant g -> uses=1 used=2
        show b -> granted=2
        admit c3 class=review 8 grant=g -> allow:GRANT
        settle c3 9 -> ok
        grant g -> uses=2 used=11
        show b -> granted=11 overrun=0
        """,
        TEN,
        grants={"g": token("g", "10", uses=2)},
    )


def test_an_expiry_and_a_late_settle_keep_the_use_true():
    play(
        """
        admit r1 10 -> allow
        admit c1 class=review 6 grant=g ttl=60 -> allow:GRANT
        t=60 sweep -> 1
        grant g -> uses=1 used=6
        settle c1 7 -> late
        grant g -> used=7
        show b -> settled=7 granted=7 late=0
        """,
        TEN,
        grants={"g": token("g", "10")},
    )


def test_an_extension_draws_on_the_grant():
    play(
        """
        admit r1 10 -> allow
        admit c1 class=review 6 grant=g -> allow:GRANT
        extend c1 3 -> ok
        grant g -> uses=1 used=9
        show b -> reserved=19 granted=9
        extend c1 2 -> stop:GRANT
        extend c1 ttl=60 -> ok
        grant g -> used=9
        """,
        TEN,
        grants={"g": token("g", "10")},
    )


def test_a_grant_survives_a_restart():
    play(
        """
        admit r1 10 -> allow
        admit c1 class=review 6 grant=g -> allow:GRANT
        restart -> ok
        admit c2 class=review 1 grant=g -> deny:BUDGET_EXHAUSTED grant=USED_UP
        settle c1 4 -> ok
        grant g -> used=4
        """,
        TEN,
        grants={"g": token("g")},
    )


def test_a_grant_that_does_not_hold_here_and_now_says_why():
    start_s = 1_772_323_200
    tampered = token("t")[:-6] + "AAAAAA"
    play(
        """
        admit r1 10 -> allow
        admit c1 class=review 5 team=b grant=scope -> deny:BUDGET_EXHAUSTED grant=WRONG_SCOPE
        admit c2 class=audit 5 grant=plain -> deny:BUDGET_EXHAUSTED grant=WRONG_CLASS
        admit c3 class=review 5 grant=tampered -> deny:BUDGET_EXHAUSTED grant=BAD_SIGNATURE
        admit c4 class=review 5 grant=soon -> deny:BUDGET_EXHAUSTED grant=NOT_YET_VALID
        admit c5 class=review 5 grant=other -> deny:BUDGET_EXHAUSTED grant=WRONG_AUDIENCE
        admit c6 class=review 5 grant=junk -> deny:BUDGET_EXHAUSTED grant=MALFORMED
        t=2d admit r2 10 -> allow
        admit c7 class=review 5 grant=plain -> deny:BUDGET_EXHAUSTED grant=EXPIRED
        grant plain -> unused
        """,
        TEN,
        grants={
            "scope": token("s", scope={"team": "a"}),
            "plain": token("plain"),
            "tampered": tampered,
            "soon": token("n", nbf=start_s + 60),
            "other": token("o", aud=("elsewhere",)),
            "junk": "junk",
        },
    )


def test_only_critical_classes_redeem_unless_an_admin_signed():
    table = "admit r1 10 -> allow / admit r2 class=draft 5 grant=g -> {word} grant={why}"
    grants = {"g": token("g", task_classes=("draft",))}
    play(table.format(word="deny:BUDGET_EXHAUSTED", why="WRONG_CLASS"), TEN, grants=grants)
    admin = policy(budget("b", "10"), grant_keys=ADMIN_KEYS)
    play(table.format(word="allow:GRANT", why="-"), admin, grants=grants)


def test_a_kill_switch_is_passed_only_by_a_grant_that_says_so():
    play(
        """
        kill k1 -> ok
        admit c1 class=review 5 grant=weak -> deny:KILL_SWITCH grant=KILL_SWITCH
        admit c2 class=review 5 grant=strong -> allow:GRANT by=k1
        extend c2 1 -> ok
        show b -> granted=6
        """,
        TEN,
        grants={"weak": token("weak"), "strong": token("strong", passes_kill=True)},
    )


def test_a_call_under_a_grant_that_passes_no_kill_is_stopped_when_one_is_engaged():
    play(
        """
        admit r1 10 -> allow
        admit c1 class=review 5 grant=weak -> allow:GRANT
        kill k1 -> ok
        extend c1 1 -> stop:KILL_SWITCH
        """,
        TEN,
        grants={"weak": token("weak")},
    )


def test_no_grant_overrides_what_is_no_matter_of_money():
    rules = (budget("b", "10", match={"team": "a"}), model_rule("no", forbid=("acme/big",)))
    play(
        """
        admit c1 team=a class=review 1 grant=g -> degrade:MODEL_FORBIDDEN grant=HARD_RULE
        admit c2 team=a class=review 1 model=acme/nobody grant=g -> deny:PRICE_UNKNOWN
        kill k1 -> ok
        admit c3 team=a class=review 1 grant=g -> deny:KILL_SWITCH grant=HARD_RULE
        admit c4 team=a class=review 1 model=acme/nobody grant=g -> deny:KILL_SWITCH
        grant g -> unused
        """,
        policy(*rules, grant_keys=GRANT_KEYS),
        grants={"g": token("g", passes_kill=True, uses=9)},
    )


def test_a_grant_overrides_rates_deny_steps_and_missing_budgets():
    play(
        """
        admit r1 team=a 5 -> allow
        admit c1 team=a class=audit 1 grant=g -> allow:GRANT by=b
        admit c2 team=z class=audit 1 grant=g -> allow:GRANT by=-
        """,
        policy(
            budget("b", "10", match={"team": "a"}, steps=[step(50, deny=True)]),
            grant_keys=GRANT_KEYS,
        ),
        grants={"g": token("g", uses=9, task_classes=("audit",))},
    )
    play(
        """
        admit r1 5 -> allow
        admit c1 class=review 1 grant=g -> allow:GRANT by=r
        """,
        policy(budget("b", "10"), rate("r", 1), grant_keys=GRANT_KEYS),
        grants={"g": token("g")},
    )


def test_a_granted_call_counts_in_every_matching_budget():
    play(
        """
        admit r1 10 -> allow
        admit c1 class=review in=100 out=100 grant=g -> allow:GRANT
        show b -> granted=2
        show t -> granted=200 reserved=200
        settle c1 in=50 out=100 -> ok
        show t -> granted=150 settled=150
        show n -> granted=1
        """,
        policy(
            budget("b", "10"),
            budget("t", unit="tokens"),
            budget("n", unit="calls"),
            grant_keys=GRANT_KEYS,
        ),
        grants={"g": token("g")},
    )


def test_under_a_shadowed_policy_a_grant_is_not_burnt():
    play(
        """
        admit r1 10 -> allow
        admit c1 class=review 5 grant=g -> allow:SHADOW grant=NOT_NEEDED
        grant g -> unused
        show b -> shadow=5 granted=0
        """,
        policy(budget("b", "10", shadow=True), grant_keys=GRANT_KEYS),
        grants={"g": token("g")},
    )


def test_a_use_that_was_forgotten_is_not_missed_by_a_settle():
    world = play(
        "admit r1 10 -> allow / admit c1 class=review 5 grant=g -> allow:GRANT",
        TEN,
        grants={"g": token("g")},
    )
    world.store.commit([(Family.GRANTS, b"g", None)])
    world.play("settle c1 4 -> ok / grant g -> unused")
