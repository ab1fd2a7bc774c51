from policy_parts import budget, model_rule, policy, rate, step
from scenario import GRANT_KEYS, World, play, token

from costd.model.decision import Reason
from costd.model.policy import ModelRef, Tier

ASK = "in=100 out=100"


def reports(world: World, model: str = "big"):
    (found,) = [each for each in world.explanation.candidates if each.model == model]
    return {report.binding.rule: report for report in found.rules}


def test_explaining_consumes_nothing_and_agrees_with_the_answer():
    play(
        f"""
        explain r1 {ASK} -> allow tried=big:chosen,titan:fits,mid:fits,tiny:fits
        explain r1 {ASK} -> allow
        admit r1 {ASK} -> allow
        explain r2 {ASK} -> deny:BUDGET_EXHAUSTED tried=big:ends_search,titan:not_reached,mid:not_reached,tiny:not_reached
        admit r2 {ASK} -> deny:BUDGET_EXHAUSTED offers=big,mid,tiny
        """,
        policy(budget("b", "3.5")),
    )


def test_every_rule_is_held_against_every_candidate_past_the_first_that_fails():
    world = play(
        f"""
        admit r1 user=ann {ASK} -> allow
        kill k1 model=big -> ok
        explain r2 user=ann {ASK} -> deny:KILL_SWITCH tried=big:rejected,titan:ends_search,mid:not_reached,tiny:not_reached
        """,
        policy(
            budget("b", "3.5", steps=[step(50, max_retries=0), step(burn=3, cache=True)]),
            budget("t", 210, unit="tokens"),
            budget("track"),
            budget("deny", "4", steps=[step(50, deny=True)]),
            rate("calls", 1, per=("user",)),
            model_rule("ok", forbid=("nobody/*",)),
            model_rule("no", match={"model": "big", "user": "ann"}, forbid=("titan",)),
        ),
    )
    found = reports(world)
    assert [found[name].passed for name in ("k1", "ok", "no", "calls", "b", "t", "track", "deny")] == [
        False, True, True, False, False, False, True, False,
    ]  # fmt: skip
    assert found["calls"].reason is Reason.RATE_LIMITED
    assert found["calls"].note == "takes 1, 0 available"
    assert found["b"].note == "holds $2.00, $1.50 left; steps reached: 50 %"
    assert found["deny"].reason is Reason.STEP_DENY
    assert found["track"].note == "only tracks"


def test_what_is_missing_is_named():
    world = play(
        "explain r1 5 -> deny:LABEL_MISSING",
        policy(
            budget("need", "9", per=("org",), missing_deny=True),
            budget("t", 10, unit="tokens"),
            rate("r", 5, "tokens"),
        ),
    )
    found = reports(world)
    assert found["need"].reason is Reason.LABEL_MISSING
    assert found["t"].reason is Reason.ESTIMATE_MISSING
    assert found["r"].reason is Reason.ESTIMATE_MISSING


def test_shadow_steps_and_classes_are_told_of():
    world = play(
        f"""
        t=2h admit r1 model=acme/mid 6 -> allow
        explain c1 class=review {ASK} -> allow:SHADOW shadow=deny:MODEL_FORBIDDEN
        """,
        policy(
            budget("b", "10", steps=[step(burn=2, cache=True)], shadow=True),
            rate("r", 5, shadow=True),
            model_rule("no", match={"task_class": "review"}, allow=("none",), shadow=True),
        ),
    )
    found = reports(world)
    assert "steps reached: burn rate 2 (not for this critical class); in shadow" in found["b"].note
    assert found["r"].note.endswith("in shadow")
    assert found["no"].note == "in shadow"


def test_a_step_is_the_reason_where_one_asks_for_less():
    world = play(
        f"""
        admit r1 5 -> allow
        explain r2 {ASK} -> degrade:STEP tried=big:fits,titan:fits,mid:chosen,tiny:fits
        """,
        policy(budget("b", "10", steps=[step(50, tiers_down=1)])),
    )
    whys = {each.model: each.why for each in world.explanation.candidates}
    assert whys["big"] == "STEP"


def test_a_grant_can_be_explained_without_using_it():
    play(
        """
        admit r1 10 -> allow
        explain c1 class=review 5 grant=g -> allow:GRANT
        grant g -> unused
        """,
        policy(budget("b", "10"), grant_keys=GRANT_KEYS),
        grants={"g": token("g")},
    )


def test_a_free_call_passes_every_money_budget():
    table = "admit r1 10 -> allow / explain r2 0 model=acme/gratis -> allow"
    world = play(table, policy(budget("b", "10")))
    assert reports(world, "gratis")["b"].passed


def test_a_call_said_to_cost_nothing_does_not_pass_an_empty_budget():
    world = play(
        "admit r1 10 -> allow / explain r2 0 -> deny:BUDGET_EXHAUSTED", policy(budget("b", "10"))
    )
    assert not reports(world)["b"].passed


def test_what_admit_denies_before_it_looks_at_amounts_can_be_explained_too():
    narrow = (Tier(name="premium", models=(ModelRef("acme", "narrow"),)),)
    play(
        """
        admit r1 in=10000000000 out=0 -> deny:CONTEXT_TOO_LONG
        explain r1 in=10000000000 out=0 -> deny:CONTEXT_TOO_LONG tried=narrow:rejected
        """,
        policy(budget("b"), tiers=narrow),
    )
