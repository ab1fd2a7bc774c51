import msgspec
import pytest
from policy_parts import budget, policy
from scenario import GRANT_KEYS, World, play, token

from costd.daemon.books.asking import Trust

TEAM = policy(budget("team", "20", match={"team": "a"}))


def test_the_same_ask_gets_the_same_answer_and_the_present_state():
    play(
        """
        admit r1 team=a 15 -> allow state=held
        t=5 admit r1 team=a 15 -> allow replayed=yes state=held
        show team -> reserved=15
        settle r1 15 -> ok
        admit r1 team=a 15 -> allow replayed=yes state=settled hold=15
        admit r2 team=a 5 -> allow
        void r2 -> ok
        admit r2 team=a 5 -> allow replayed=yes state=voided
        """,
        TEAM,
    )


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ("team=a 14", "estimated_cost_nusd"),
        ("team=b 15", "labels"),
        ("team=a 15 class=review", "task_class"),
        ("team=a 15 model=acme/mid", "provider"),
        ("team=a 15 tier=economy", "tier"),
        ("team=a 15 ttl=60", "another_ttl;"),
        ("team=a 15 in=5", "prompt_tokens"),
        ("team=a 15 out=5", "max_output_tokens"),
        ("team=a 15 accept=mid", "acceptable_models"),
        ("team=a 15 batch=1", "batch"),
        ("team=a 15 grant=g1", "override_grant"),
        ("team=a 15 units=2", "units"),
    ],
)
def test_the_same_id_with_other_fields_is_an_error_that_names_the_field(other: str, field: str):
    world = World(TEAM, grants={"g1": token("g1")})
    world.play("admit r1 team=a 15 -> allow")
    world.play(f"admit r1 {other} -> error:IdReused says={field}")
    world.play("show team -> reserved=15")


@pytest.mark.parametrize("default", ["review", ""])
def test_an_ask_without_a_class_is_the_same_ask_after_the_default_changed(default: str):
    changed = msgspec.structs.replace(TEAM, default_task_class=default, revision="p2")
    play(
        """
        admit r1 team=a 5 -> allow
        record x1 team=a 1 -> ok
        policy p2 -> ok
        admit r1 team=a 5 -> allow replayed=yes
        admit r1 team=a 5 class=draft -> allow replayed=yes
        admit r1 team=a 5 class=review -> error:IdReused says=task_class
        admit r1 team=a 6 -> error:IdReused says=estimated_cost_nusd
        record x1 team=a 1 -> replayed
        show team -> settled=1 reserved=5
        kill k1 task_class=draft -> ok
        admit r1 team=a 5 -> deny:KILL_SWITCH replayed=yes
        """,
        TEAM,
        policies={"p2": changed},
    )


def test_two_callers_with_the_same_id_do_not_share_a_reservation():
    play(
        """
        admit r1 team=a 15 caller=ann -> allow
        admit r1 team=a 5 caller=bob -> allow
        show team -> reserved=20
        """,
        TEAM,
    )


def test_a_denial_is_decided_anew():
    play(
        """
        admit r1 team=a 15 -> allow
        admit r2 team=a 15 -> deny:BUDGET_EXHAUSTED
        void r1 -> ok
        admit r2 team=a 15 -> allow
        """,
        TEAM,
    )


def test_an_engaged_kill_switch_beats_a_replay():
    play(
        """
        admit r1 team=a 15 -> allow
        kill k1 team=a -> ok
        admit r1 team=a 15 -> deny:KILL_SWITCH by=k1 replayed=yes state=held
        release k1 -> 1
        admit r1 team=a 15 -> allow replayed=yes
        show team -> reserved=15
        """,
        TEAM,
    )


def test_a_kill_switch_down_to_a_tier_beats_the_replay_of_a_better_one():
    play(
        """
        admit r1 team=a 1 -> allow tier=premium
        admit r2 team=a 1 tier=economy -> allow tier=economy
        kill k1 mode=max_tier:standard -> ok
        admit r1 team=a 1 -> deny:KILL_SWITCH by=k1
        admit r2 team=a 1 tier=economy -> allow replayed=yes
        """,
        TEAM,
    )


def test_a_kill_switch_elsewhere_leaves_replays_alone():
    play(
        """
        admit r1 team=a 15 -> allow
        kill k1 team=b -> ok
        admit r1 team=a 15 -> allow replayed=yes
        """,
        TEAM,
    )


def test_a_granted_answer_is_repeated_under_a_kill_switch_only_if_the_grant_passes_it():
    grants = {"weak": token("weak"), "strong": token("strong", passes_kill=True)}
    play(
        """
        admit r1 class=review team=a 25 grant=weak -> allow:GRANT
        admit r2 class=review team=a 25 grant=strong -> allow:GRANT
        kill k1 team=a -> ok
        admit r1 class=review team=a 25 grant=weak -> deny:KILL_SWITCH
        admit r2 class=review team=a 25 grant=strong -> allow:GRANT
        """,
        policy(*TEAM.budgets, grant_keys=GRANT_KEYS),
        grants=grants,
    )


def test_labels_that_the_daemon_fixes_are_part_of_the_ask():
    trust = Trust(labels_fixed={"team": "a"}, claims=frozenset({"*"}))
    play(
        """
        admit r1 15 -> allow tightest=team
        admit r1 15 team=a -> allow replayed=yes
        admit r2 15 team=b -> error:NotPermitted says=fixed
        """,
        TEAM,
        trust=trust,
    )


def test_a_critical_class_is_refused_to_a_caller_who_may_not_claim_it():
    play(
        """
        admit r1 team=a 1 class=review -> error:NotPermitted says=claims
        admit r2 team=a 1 class=draft -> allow
        admit r3 team=a 1 class=audit -> allow
        """,
        TEAM,
        trust=Trust(claims=frozenset({"audit"})),
    )
