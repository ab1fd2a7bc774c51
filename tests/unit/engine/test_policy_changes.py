"""The policy changes while reservations are out."""

import msgspec
from policy_parts import budget, klass, policy, rate, step
from scenario import play

from costd.engine.changes import Family


def swaps(*versions):
    first, *later = [policy(*each, revision=f"p{n}") for n, each in enumerate(versions)]
    return {"policy": first, "policies": {f"v{n}": each for n, each in enumerate([first, *later])}}


def test_a_lowered_limit_keeps_the_counter_and_explains_it():
    play(
        """
        admit r1 8 -> allow
        admit r2 9 -> allow
        policy v1 -> ok
        admit r3 1 -> deny:BUDGET_EXHAUSTED used=17 limit=10
        settle r1 8 -> ok
        show b -> settled=8 reserved=9 lowered=7 limit=10
        settle r2 4 -> ok
        show b -> settled=12 lowered=2
        """,
        **swaps([budget("b", "20")], [budget("b", "10")]),
    )


def test_overruns_under_a_lowered_limit_are_still_overruns():
    play(
        """
        admit r1 15 -> allow
        policy v1 -> ok
        settle r1 18 -> ok
        show b -> settled=18 overrun=3 lowered=5
        """,
        **swaps([budget("b", "20")], [budget("b", "10")]),
    )


def test_what_was_lowered_vanishes_when_the_limit_is_raised_again():
    play(
        """
        admit r1 15 -> allow
        policy v1 -> ok
        extend r1 in=1 out=1 -> ok
        settle r1 15 -> ok
        show b -> lowered=5
        policy v2 -> ok
        admit r2 1 -> allow
        show b -> lowered=0 limit=30
        """,
        **swaps([budget("b", "20")], [budget("b", "10")], [budget("b", "30")]),
    )


def test_a_raise_that_does_not_reach_keeps_the_rest_lowered():
    play(
        """
        admit r1 20 -> allow
        policy v1 -> ok
        settle r1 20 -> ok
        show b -> lowered=10
        policy v2 -> ok
        admit r2 0 model=acme/gratis -> allow
        show b -> lowered=8 limit=12
        """,
        **swaps([budget("b", "20")], [budget("b", "10")], [budget("b", "12")]),
    )


def test_a_first_limit_on_a_tracking_budget_counts_what_is_above_it_as_lowered():
    play(
        """
        admit r1 15 -> allow
        policy v1 -> ok
        settle r1 15 -> ok
        show b -> settled=15 lowered=5 limit=10
        policy v0 -> ok
        admit r2 5 -> allow
        show b -> lowered=0
        """,
        **swaps([budget("b")], [budget("b", "10")]),
    )


def test_another_window_starts_a_new_counter_and_old_holds_close_on_theirs():
    play(
        """
        admit r1 8 -> allow
        policy v1 -> ok
        admit r2 20 -> allow
        show b -> reserved=20
        settle r1 3 -> ok
        show b -> reserved=20 settled=0
        policy v0 -> ok
        show b -> settled=3 reserved=0
        """,
        **swaps([budget("b", "20")], [budget("b", "20", window="month")]),
    )


def test_another_per_or_unit_starts_a_new_counter():
    play(
        """
        admit r1 user=ann in=100 out=100 -> allow
        policy v1 -> ok
        admit r2 user=ann in=100 out=100 -> allow
        show b/user=ann -> reserved=2
        policy v2 -> ok
        admit r3 user=ann in=100 out=100 -> allow
        show b -> reserved=200
        settle r1 0 -> ok
        settle r2 0 -> ok
        show b -> reserved=200
        """,
        **swaps(
            [budget("b", "20")],
            [budget("b", "20", per=("user",))],
            [budget("b", 900, unit="tokens")],
        ),
    )


def test_another_selector_or_other_steps_keep_the_counter():
    play(
        """
        admit r1 team=a 8 -> allow
        policy v1 -> ok
        admit r2 team=b 1 -> degrade:STEP used=8
        """,
        **swaps(
            [budget("b", "10", match={"team": "a"})],
            [budget("b", "10", match={"team": "b"}, steps=[step(80, max_retries=0)])],
        ),
    )


def test_a_renamed_budget_keeps_its_counter_and_is_known_by_its_new_name():
    world = play(
        """
        admit r1 8 -> allow
        policy v1 -> ok
        admit r2 8 -> deny:BUDGET_EXHAUSTED by=new used=8
        show new -> reserved=8
        settle r1 3 -> ok
        show new -> settled=3
        """,
        **swaps([budget("old", "10")], [budget("new", "10", was="old")]),
    )
    (meta,) = [v for k, v in world.store.scan(Family.META) if k.startswith(b"budget/")]
    assert b'"new"' in meta


def test_a_removed_budget_closes_what_it_held_and_counts_on_when_it_is_back():
    play(
        """
        admit r1 8 -> allow
        policy v1 -> ok
        admit r2 100 -> allow
        settle r1 9 -> ok
        alerts -> overrun:1
        policy v0 -> ok
        show b -> settled=9 reserved=0 overrun=1
        admit r3 2 -> deny:BUDGET_EXHAUSTED used=9
        """,
        **swaps([budget("b", "10"), budget("all")], [budget("all")]),
    )


def test_a_removed_budget_refuses_no_extension_and_explains_it_when_it_is_back():
    play(
        """
        admit r1 8 -> allow
        policy v1 -> ok
        extend r1 7 -> ok
        policy v0 -> ok
        settle r1 15 -> ok
        show b -> settled=15 lowered=5
        """,
        **swaps([budget("b", "10"), budget("all")], [budget("all")]),
    )


def test_a_task_class_may_leave_the_policy_while_its_call_runs():
    versions = swaps([budget("b", "10", reserve="5")], [budget("b", "10", reserve="5")])
    versions["policies"]["v1"] = msgspec.structs.replace(
        versions["policies"]["v1"], task_classes={"draft": klass("draft")}
    )
    play(
        """
        admit c1 class=review 8 -> allow
        policy v1 -> ok
        extend c1 1 -> stop:BUDGET_EXHAUSTED
        settle c1 7 -> ok
        show b -> settled=7 reserve_settled=2
        """,
        **versions,
    )


def test_a_tier_may_leave_the_policy_while_its_call_runs():
    versions = swaps([budget("b", "10")], [budget("b", "10")])
    versions["policies"]["v1"] = msgspec.structs.replace(versions["policies"]["v1"], tiers=())
    play(
        """
        admit r1 8 tier=economy -> allow
        policy v1 -> ok
        extend r1 1 -> ok
        kill k1 mode=max_tier:standard -> ok
        extend r1 1 -> stop:KILL_SWITCH
        """,
        **versions,
    )


def test_another_refill_starts_a_full_bucket_so_that_a_raise_helps_at_once():
    play(
        """
        admit r1 1 -> allow
        admit r2 1 -> deny:RATE_LIMITED
        policy v1 -> ok
        admit r3 1 -> allow
        admit r4 1 -> allow
        admit r5 1 -> deny:RATE_LIMITED resets=30
        """,
        **swaps([budget("b"), rate("r", 1)], [budget("b"), rate("r", 2)]),
    )


def test_every_policy_that_comes_into_force_is_audited():
    play("policy v1 -> ok / audit -> policy_loaded", **swaps([budget("b")], [budget("c")]))
