"""Kill switches and override grants against a running daemon, restarts included."""

import time
from pathlib import Path

import pytest
from desk import USD, Desk, ask, poll
from google.protobuf.duration_pb2 import Duration

from costd.grants import GrantClaims, issue, keygen, load_private_key
from costd.testing import DaemonProcess
from costd.wire.pb import admission_pb2 as pb

KEYS = {"lead": keygen(), "admin": keygen(), "stranger": keygen()}
POLICY = f"""\
version: 1
unmatched: deny
tiers:
  premium: {{models: [openai/gpt-4o]}}
  economy: {{models: [openai/gpt-4o-mini]}}
task_classes:
  draft: {{tier: premium, max_output_tokens: 1000}}
  review: {{critical: true, min_tier: premium}}
  testing: {{critical: true, min_tier: premium}}
budgets:
  - {{id: all, window: total}}
  - {{id: per-user, match: {{user: "*"}}, per: user, window: total, limit: $5}}
  - id: lab
    match: {{project: lab}}
    window: total
    limit: $10
    steps: [{{at: 80%, do: [halt]}}]
model_rules:
  - {{id: no-mini, match: {{project: api}}, forbid: [openai/gpt-4o-mini]}}
grant_keys:
  - {{id: lead-key, public_key: {KEYS["lead"].public_key}}}
  - {{id: admin-key, public_key: {KEYS["admin"].public_key}, admin: true}}
expiry: {{ttl: 1h, ttl_max: 2h}}
"""
FLAGS = ("--claims", "*", "--name", "host-7")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("kill-and-grants") / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture(scope="module")
def desk(policy):
    with DaemonProcess(policy, *FLAGS) as daemon:
        desk = Desk(daemon)
        yield desk
        desk.close()


def grant(grant_id, *, signed_by="lead", key_id=None, **claims):
    """Sign a grant for reviews of everything on this daemon, good for an hour."""
    now_s = int(time.time())
    fields = {
        "jti": grant_id,
        "iss": "lead",
        "sub": "ann",
        "aud": ("host-7",),
        "nbf": now_s - 60,
        "iat": now_s - 60,
        "exp": now_s + 3600,
        "reason": "release night",
        "scope": {},
        "task_classes": ("review",),
        "amount_nusd": 100 * USD,
        "uses": 1,
        "passes_kill": False,
    }
    key = load_private_key(KEYS[signed_by].private_pem)
    return issue(key, key_id or f"{signed_by}-key", GrantClaims(**(fields | claims)))


def review(desk, dollars, user, token="", **fields):
    fields = {"task_class": "review", "labels": {"user": user}} | fields
    return desk.admit(dollars, override_grant=token, **fields)


# ---- kill switches ------------------------------------------------------------------------------


def test_a_kill_switch_stops_its_scope_and_nobody_else(desk):
    desk.engage("stop-api", scope={"project": "api"})
    stopped = desk.admit(0.01, labels={"project": "api"})
    assert (stopped.verdict, stopped.reason) == (pb.VERDICT_DENY, pb.REASON_KILL_SWITCH)
    assert (stopped.binding.rule, stopped.binding.kind) == ("stop-api", "kill_switch")
    assert "a drill" in stopped.message
    assert desk.admit(0.01, labels={"project": "web"}).verdict == pb.VERDICT_ALLOW
    assert not desk.release("stop-api").engaged
    assert desk.admit(0.01, labels={"project": "api"}).verdict == pb.VERDICT_ALLOW


def test_a_stopped_ask_consumes_nothing(desk):
    desk.engage("stop-all")
    before = desk.books()
    assert desk.admit(0.01, labels={"user": "zoe"}).verdict == pb.VERDICT_DENY
    assert desk.books() == before
    desk.release("stop-all")


def test_critical_only_lets_critical_classes_through(desk):
    desk.engage("gates-only", mode="critical_only")
    assert desk.admit(0.01).reason == pb.REASON_KILL_SWITCH
    assert desk.admit(0.01, task_class="review").verdict == pb.VERDICT_ALLOW
    desk.release("gates-only")


def test_a_switch_down_to_a_tier_leads_to_that_tier(desk):
    desk.engage("cheap-only", mode="max_tier", max_tier="economy")
    decision = desk.admit(prompt_tokens=1000, max_output_tokens=100, model="gpt-4o")
    assert (decision.verdict, decision.model) == (pb.VERDICT_DEGRADE, "gpt-4o-mini")
    desk.release("cheap-only")


def test_an_engaged_switch_does_not_keep_what_is_held_from_being_settled(desk):
    settled, voided = desk.hold(0.5), desk.hold(0.5)
    desk.engage("stop-all-2")
    assert desk.settle(settled, 0.25).state == pb.RESERVATION_STATE_SETTLED
    assert desk.void(voided).state == pb.RESERVATION_STATE_VOIDED
    desk.release("stop-all-2")


def test_an_engaged_switch_stops_a_running_call_that_wants_more(desk):
    held = desk.hold(0.5, labels={"project": "streams"})
    desk.engage("stop-streams", scope={"project": "streams"})
    extension = desk.extend(held, 0.1)
    assert not extension.extended
    assert extension.directives.stop
    assert (extension.reason, extension.binding.rule) == (pb.REASON_KILL_SWITCH, "stop-streams")
    desk.release("stop-streams")


def test_engaging_and_releasing_twice_changes_nothing(desk):
    first = desk.engage("twice", reason="first")
    assert desk.engage("twice", reason="second") == first
    released = desk.release("twice")
    assert desk.release("twice") == released
    assert [row.subject for row in desk.audit("kill_released")].count("twice") == 1


def test_a_switch_releases_itself_when_its_time_is_up(desk):
    desk.engage("short", scope={"user": "shorty"}, release_after=Duration(nanos=300_000_000))
    assert review(desk, 0.01, "shorty").reason == pb.REASON_KILL_SWITCH
    poll(lambda: review(desk, 0.01, "shorty").verdict == pb.VERDICT_ALLOW)
    poll(lambda: "short" in [row.subject for row in desk.audit("kill_released")])


# ---- grants -------------------------------------------------------------------------------------


def test_a_grant_passes_an_exhausted_budget_and_says_so_everywhere(desk):
    decision = review(desk, 7, "ada", grant("g-pass", amount_nusd=10 * USD, uses=2))
    assert (decision.verdict, decision.reason) == (pb.VERDICT_ALLOW, pb.REASON_GRANT)
    assert decision.grant_id == "g-pass"
    assert decision.binding.rule == "per-user"
    assert not decision.grant_refusal
    row = desk.budget("per-user", "user=ada")
    assert (row.reserved, row.granted) == (7 * USD, 7 * USD)
    used = desk.grants()["g-pass"]
    assert (used.uses_count, used.uses_max_count) == (1, 2)
    assert (used.used_nusd, used.amount_nusd) == (7 * USD, 10 * USD)
    assert "g-pass" in [alert.rule for alert in desk.alerts("grant_redeemed")]
    assert "g-pass" in [row.subject for row in desk.audit("grant_redeemed")]


def test_a_grant_follows_what_its_call_cost(desk):
    token = grant("g-follow", amount_nusd=10 * USD, uses=3)
    held = review(desk, 8, "bill", token).reservation_id
    assert review(desk, 6, "bill", token).grant_refusal == pb.GRANT_REFUSAL_AMOUNT_EXCEEDED
    desk.settle(held, 3)
    assert desk.grants()["g-follow"].used_nusd == 3 * USD
    second = review(desk, 6, "bill", token)
    assert second.reason == pb.REASON_GRANT
    desk.void(second.reservation_id)
    used = desk.grants()["g-follow"]
    assert (used.uses_count, used.used_nusd) == (1, 3 * USD)


def refused_grants():
    """Tokens that must change nothing, each with why."""
    now_s = int(time.time())
    sound = grant("g-sound")
    head, body, signature = sound.split(".")
    other_body = grant("g-other", amount_nusd=1000 * USD).split(".")[1]
    return {
        "no grant at all": ("let me in", "MALFORMED"),
        "without a signature": (f"{head}.{body}.", "MALFORMED BAD_SIGNATURE"),
        "tampered with": (f"{head}.{other_body}.{signature}", "BAD_SIGNATURE"),
        "signed by a stranger": (grant("g-1", signed_by="stranger"), "BAD_SIGNATURE"),
        "signed by a stranger in the lead's name": (
            grant("g-2", signed_by="stranger", key_id="lead-key"),
            "BAD_SIGNATURE",
        ),
        "expired": (grant("g-3", nbf=now_s - 99, exp=now_s - 1), "EXPIRED"),
        "not yet valid": (grant("g-4", nbf=now_s + 86_400, exp=now_s + 90_000), "NOT_YET_VALID"),
        "for another daemon": (grant("g-5", aud=("host-8",)), "WRONG_AUDIENCE"),
        "for another user": (grant("g-6", scope={"user": "root"}), "WRONG_SCOPE"),
        "for a label that is missing": (grant("g-7", scope={"project": "*"}), "WRONG_SCOPE"),
        "for another model": (grant("g-8", scope={"model": "gpt-5.2"}), "WRONG_SCOPE"),
        "for another class": (grant("g-9", task_classes=("testing",)), "WRONG_CLASS"),
        "for less": (grant("g-10", amount_nusd=6 * USD), "AMOUNT_EXCEEDED"),
    }


REFUSED = refused_grants()


@pytest.mark.parametrize("kind", REFUSED)
def test_a_grant_that_does_not_hold_changes_nothing_and_says_why(desk, kind):
    token, refusals = REFUSED[kind]
    before = desk.books()
    decision = review(desk, 7, "cora", token)
    assert (decision.verdict, decision.reason) == (pb.VERDICT_DENY, pb.REASON_BUDGET_EXHAUSTED)
    named = pb.GrantRefusal.Name(decision.grant_refusal).removeprefix("GRANT_REFUSAL_")
    assert named in refusals.split()
    assert not decision.grant_id
    assert desk.books() == before


def test_a_used_up_grant_changes_nothing_and_says_why(desk):
    token = grant("g-used", uses=1)
    assert review(desk, 7, "dora", token).reason == pb.REASON_GRANT
    before = desk.books()
    decision = review(desk, 7, "dora", token)
    assert decision.verdict == pb.VERDICT_DENY
    assert decision.grant_refusal == pb.GRANT_REFUSAL_USED_UP
    assert desk.books() == before


def test_the_same_ask_with_its_grant_twice_redeems_it_once(desk):
    request = ask(
        7, task_class="review", labels={"user": "edna"}, override_grant=grant("g-again", uses=5)
    )
    first = desk.agents.Admit(request)
    before = desk.books()
    again = desk.agents.Admit(request)
    assert again.replayed
    assert again.grant_id == first.grant_id == "g-again"
    assert desk.books() == before
    assert desk.grants()["g-again"].uses_count == 1


def test_a_grant_is_for_critical_classes_unless_an_admin_signed_it(desk):
    refused = review(desk, 7, "fred", grant("g-draft", task_classes=("draft",)), task_class="draft")
    assert refused.grant_refusal == pb.GRANT_REFUSAL_WRONG_CLASS
    assert "g-draft" not in desk.grants()
    token = grant("g-admin", signed_by="admin", task_classes=("draft",))
    assert review(desk, 7, "fred", token, task_class="draft").reason == pb.REASON_GRANT


def test_a_grant_is_not_burnt_by_an_ask_that_would_have_passed(desk):
    token = grant("g-spare")
    decision = review(desk, 1, "gwen", token)
    assert (decision.verdict, decision.reason) == (pb.VERDICT_ALLOW, pb.REASON_OK)
    assert decision.grant_refusal == pb.GRANT_REFUSAL_NOT_NEEDED
    assert "g-spare" not in desk.grants()
    assert desk.budget("per-user", "user=gwen").granted == 0
    assert review(desk, 7, "gwen", token).reason == pb.REASON_GRANT


def test_a_grant_cannot_override_what_is_no_matter_of_money(desk):
    before = desk.books()
    decision = review(
        desk, 1, "hugo", grant("g-hard"), model="gpt-4o-mini",
        labels={"user": "hugo", "project": "api"},
    )  # fmt: skip
    assert decision.reason == pb.REASON_MODEL_FORBIDDEN
    assert decision.grant_refusal == pb.GRANT_REFUSAL_HARD_RULE
    assert desk.books() == before


def test_only_a_grant_that_says_so_passes_a_kill_switch(desk):
    desk.engage("stop-ines", scope={"user": "ines"})
    before = desk.books()
    refused = review(desk, 1, "ines", grant("g-no-pass"))
    assert (refused.verdict, refused.reason) == (pb.VERDICT_DENY, pb.REASON_KILL_SWITCH)
    assert refused.grant_refusal == pb.GRANT_REFUSAL_KILL_SWITCH
    assert desk.books() == before
    passed = review(desk, 1, "ines", grant("g-passes", passes_kill=True))
    assert (passed.verdict, passed.reason) == (pb.VERDICT_ALLOW, pb.REASON_GRANT)
    assert passed.binding.rule == "stop-ines"
    assert desk.grants()["g-passes"].uses_count == 1
    desk.release("stop-ines")


def test_explaining_with_a_grant_redeems_nothing(desk):
    before = desk.books()
    request = ask(
        7, task_class="review", labels={"user": "jane"}, override_grant=grant("g-explained")
    )
    decision = desk.agents.Explain(request).decision
    assert (decision.verdict, decision.reason) == (pb.VERDICT_ALLOW, pb.REASON_GRANT)
    assert desk.books() == before


def test_a_key_that_leaves_the_policy_takes_its_grants_along(fresh_daemon, tmp_path):
    path = Path(tmp_path) / "keys.yaml"
    path.write_text(POLICY)
    desk = Desk(fresh_daemon(path, *FLAGS).start())
    token = grant("g-revoked", uses=5)
    assert review(desk, 7, "lars", token).reason == pb.REASON_GRANT
    path.write_text("".join(line for line in POLICY.splitlines(True) if "lead-key" not in line))
    desk.reload()
    assert review(desk, 7, "lars", token).grant_refusal == pb.GRANT_REFUSAL_BAD_SIGNATURE
    assert desk.grants()["g-revoked"].uses_count == 1
    desk.close()


# ---- restarts -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["SIGTERM", "kill -9"])
def survivor(request, policy):
    """A daemon that was ended with switches engaged and grants redeemed, and started again."""
    with DaemonProcess(policy, *FLAGS) as daemon:
        desk = Desk(daemon)
        desk.engage("stays", scope={"user": "ann"})
        desk.engage("timed", scope={"user": "bob"}, release_after=Duration(seconds=3600))
        desk.engage("gone", scope={"user": "cat"})
        desk.release("gone")
        desk.hold(8, labels={"project": "lab"})
        desk.once, desk.twice = grant("g-once"), grant("g-twice", uses=2, amount_nusd=20 * USD)
        for token in (desk.once, desk.twice):
            assert review(desk, 7, "kate", token).reason == pb.REASON_GRANT
        desk.before = desk.books()
        if request.param == "SIGTERM":
            desk.restart()
        else:
            desk.kill_9()
        desk.after = desk.books()
        yield desk
        desk.close()


def test_a_restart_loses_nothing(survivor):
    assert survivor.after == survivor.before


def test_switches_survive_a_restart_engaged_released_and_timed(survivor):
    rules = [review(survivor, 0.01, user).binding.rule for user in ("ann", "bob", "cat")]
    assert rules == ["stays", "timed", ""]
    survivor.release("stays")
    assert review(survivor, 0.01, "ann").verdict == pb.VERDICT_ALLOW


def test_a_halt_step_stops_its_budget_s_scope_until_a_person_releases_it(survivor):
    stopped = survivor.admit(0.01, labels={"project": "lab"})
    assert stopped.reason == pb.REASON_KILL_SWITCH
    assert stopped.binding.rule.startswith("halt/lab/")
    assert review(survivor, 0.01, "", labels={"project": "lab"}).reason == pb.REASON_KILL_SWITCH
    assert survivor.admit(0.01, labels={"project": "web"}).verdict == pb.VERDICT_ALLOW
    survivor.release(stopped.binding.rule)
    assert survivor.admit(0.01, labels={"project": "lab"}).verdict == pb.VERDICT_ALLOW


def test_what_is_used_of_a_grant_survives_a_restart(survivor):
    before = survivor.books()
    once, twice = survivor.once, survivor.twice
    assert review(survivor, 7, "kate", once).grant_refusal == pb.GRANT_REFUSAL_USED_UP
    assert review(survivor, 14, "kate", twice).grant_refusal == pb.GRANT_REFUSAL_AMOUNT_EXCEEDED
    assert survivor.books() == before
    assert review(survivor, 7, "kate", twice).reason == pb.REASON_GRANT
    assert review(survivor, 7, "kate", twice).grant_refusal == pb.GRANT_REFUSAL_USED_UP
