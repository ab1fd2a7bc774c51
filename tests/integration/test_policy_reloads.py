"""The policy file changes under a running daemon while reservations are out."""

import pytest
from desk import USD, Desk, poll

from costd.testing import DaemonProcess
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb

HEAD = """\
version: 1
unmatched: deny
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes:
  draft: {tier: premium, max_output_tokens: 1000}
expiry: {ttl: 1h, ttl_max: 2h}
budgets:
  - {id: all, window: total}
"""


class Ruled:
    """A desk whose policy is rewritten, and read again at once."""

    def __init__(self, desk):
        self.desk, self.path = desk, desk.daemon.policy

    def by(self, *budgets):
        self.path.write_text(HEAD + "".join(f"  - {{{budget}}}\n" for budget in budgets))
        self.desk.reload()


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    policy = tmp_path_factory.mktemp("policy-changes") / "policy.yaml"
    policy.write_text(HEAD)
    with DaemonProcess(policy) as daemon:
        desk = Desk(daemon)
        yield desk
        desk.close()


@pytest.fixture
def ruled(desk):
    return Ruled(desk)


def dollars(row, *columns):
    return tuple(getattr(row, column) / USD for column in columns)


def test_a_lowered_limit_shows_at_once_what_stands_above_it_and_denies_more(desk, ruled):
    ruled.by("id: cut, match: {team: a}, window: total, limit: $10")
    first, second = desk.hold(4, labels={"team": "a"}), desk.hold(3, labels={"team": "a"})
    ruled.by("id: cut, match: {team: a}, window: total, limit: $5")
    row = desk.budget("cut")
    assert dollars(row, "limit", "reserved", "lowered") == (5, 7, 2)
    denied = desk.admit(0.01, labels={"team": "a"})
    assert (denied.reason, denied.binding.rule) == (pb.REASON_BUDGET_EXHAUSTED, "cut")
    assert (denied.binding.limit, denied.binding.used) == (5 * USD, 7 * USD)
    assert not desk.extend(first, 0.01).extended
    desk.settle(first, 1)
    assert dollars(desk.budget("cut"), "settled", "reserved", "lowered") == (1, 3, 0)
    assert desk.admit(1, labels={"team": "a"}).verdict == pb.VERDICT_ALLOW
    desk.void(second)
    assert dollars(desk.budget("cut"), "settled", "reserved", "lowered") == (1, 1, 0)


def test_a_limit_that_is_taken_away_and_put_back_counts_on(desk, ruled):
    ruled.by("id: free, match: {team: b}, window: total, limit: $5")
    desk.hold(4, labels={"team": "b"})
    ruled.by("id: free, match: {team: b}, window: total")
    desk.hold(20, labels={"team": "b"})
    assert not desk.budget("free").HasField("limit")
    ruled.by("id: free, match: {team: b}, window: total, limit: $5")
    assert dollars(desk.budget("free"), "reserved", "lowered") == (24, 19)
    assert desk.admit(0.01, labels={"team": "b"}).verdict == pb.VERDICT_DENY


def test_a_changed_window_counts_anew_and_what_is_out_closes_on_the_old_counter(desk, ruled):
    ruled.by("id: span, match: {team: c}, window: total, limit: $10")
    first, second, third = (desk.hold(3, labels={"team": "c"}) for _ in range(3))
    ruled.by("id: span, match: {team: c}, window: year, limit: $10")
    assert by_window(desk, "span") == {
        ("total", False): (0, 9),
        ("year", True): (0, 0),
    }
    assert desk.admit(9, labels={"team": "c"}).verdict == pb.VERDICT_ALLOW
    desk.settle(first, 2)
    desk.void(second)
    assert desk.extend(third, 50).extended  # the old window's budget is no more
    assert by_window(desk, "span") == {
        ("total", False): (2, 53),
        ("year", True): (0, 9),
    }
    ruled.by("id: span, match: {team: c}, window: total, limit: $10")
    assert by_window(desk, "span") == {
        ("total", True): (2, 53),
        ("year", False): (0, 9),
    }
    desk.void(third)
    assert by_window(desk, "span")["total", True] == (2, 0)


def by_window(desk, name):
    rows = desk.operators.ListBudgets(cpb.ListBudgetsRequest(budget=name)).budgets
    return {(row.window, row.in_policy): dollars(row, "settled", "reserved") for row in rows}


def test_a_renamed_budget_that_says_what_it_was_keeps_its_counter(desk, ruled):
    ruled.by("id: old, match: {team: d}, window: total, limit: $10")
    first, second = desk.hold(4, labels={"team": "d"}), desk.hold(4, labels={"team": "d"})
    ruled.by("id: new, was: old, match: {team: d}, window: total, limit: $10")
    assert dollars(desk.budget("new"), "settled", "reserved") == (0, 8)
    denied = desk.admit(3, labels={"team": "d"})
    assert (denied.reason, denied.binding.rule) == (pb.REASON_BUDGET_EXHAUSTED, "new")
    desk.settle(first, 1)
    assert dollars(desk.budget("new"), "settled", "reserved") == (1, 4)
    assert "new" in desk.reservation(second).budgets
    request = cpb.ListBudgetsRequest(budget="old")
    assert desk.refusal(desk.operators.ListBudgets, request).code == "NOT_FOUND"


def test_a_renamed_budget_that_does_not_say_so_is_another_one(desk, ruled):
    ruled.by("id: before, match: {team: e}, window: total, limit: $10")
    held = desk.hold(8, labels={"team": "e"})
    ruled.by("id: after, match: {team: e}, window: total, limit: $10")
    assert desk.admit(8, labels={"team": "e"}).verdict == pb.VERDICT_ALLOW
    desk.settle(held, 8)
    assert dollars(desk.budget("before"), "settled", "reserved") == (8, 0)
    assert not desk.budget("before").in_policy


def test_a_budget_that_leaves_and_comes_back_has_counted_on(desk, ruled):
    ruled.by("id: away, match: {team: f}, window: total, limit: $10")
    first, second = desk.hold(4, labels={"team": "f"}), desk.hold(4, labels={"team": "f"})
    ruled.by()
    gone = desk.budget("away")
    assert not gone.in_policy
    assert dollars(gone, "limit", "reserved") == (10, 8)
    desk.settle(first, 5)
    unseen = desk.hold(9, labels={"team": "f"})
    ruled.by("id: away, match: {team: f}, window: total, limit: $10")
    row = desk.budget("away")
    assert row.in_policy
    assert dollars(row, "settled", "reserved", "overrun") == (5, 4, 1)
    denied = desk.admit(2, labels={"team": "f"})
    assert denied.reason == pb.REASON_BUDGET_EXHAUSTED
    desk.settle(unseen, 9)
    desk.void(second)
    assert dollars(desk.budget("away"), "settled", "reserved") == (5, 0)


def test_a_suspended_budget_stops_nobody_and_counts_on(desk, ruled):
    ruled.by("id: paused, match: {team: g}, window: total, limit: $10")
    desk.hold(8, labels={"team": "g"})
    ruled.by("id: paused, match: {team: g}, window: total, limit: $10, active: false")
    assert desk.admit(8, labels={"team": "g"}).verdict == pb.VERDICT_ALLOW
    assert not desk.budget("paused").active
    ruled.by("id: paused, match: {team: g}, window: total, limit: $10")
    assert desk.budget("paused").reserved >= 8 * USD
    assert desk.admit(8, labels={"team": "g"}).verdict == pb.VERDICT_DENY


def test_a_replay_after_a_change_gives_the_old_answer(desk, ruled):
    ruled.by("id: rule, match: {team: h}, window: total, limit: $10")
    fields = {"ask_id": "an-ask-before-the-change", "labels": {"team": "h"}}
    first = desk.admit(8, **fields)
    ruled.by("id: rule, match: {team: h}, window: total, limit: $1")
    again = desk.admit(8, **fields)
    assert again.replayed
    assert (again.verdict, again.policy_revision) == (first.verdict, first.policy_revision)
    assert desk.admit(1, labels={"team": "h"}).policy_revision != first.policy_revision


def test_a_task_class_or_model_that_left_does_not_strand_its_reservations(desk, ruled):
    ruled.by()
    settled, voided, extended = (desk.hold(1) for _ in range(3))
    text = ruled.path.read_text()
    ruled.path.write_text(text.replace("draft:", "other:").replace("gpt-4o]", "gpt-4o-mini]"))
    desk.reload()
    usage = pb.Usage(prompt_tokens=1000, output_tokens=100)
    # Priced as it was admitted: $2.50 and $10 for a million tokens of gpt-4o.
    assert desk.settle(settled, usage=usage).cost_nusd == 3_500_000
    assert desk.void(voided).state == pb.RESERVATION_STATE_VOIDED
    assert desk.extend(extended, 1).extended
    desk.void(extended)
    assert "draft" in desk.refusal(desk.admit, 1).details


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  - {id: bad, window: total, limit: .nan}", "limit"),
        ("  - {id: bad, window: total, limit: -$5}", "limit"),
        ("  - {id: bad, window: total, limit: plenty}", "limit"),
        ("  - {id: bad, window: fortnight, limit: $5}", "window"),
        ("  - {id: all, window: total}", "all"),
        ("  - }", "YAML"),
    ],
)
def test_a_bad_policy_is_refused_by_file_and_line_and_the_old_one_stays(desk, ruled, line, said):
    ruled.by("id: kept, match: {team: i}, window: total, limit: $10")
    held = desk.hold(1, labels={"team": "i"})
    before, revision = desk.books(), desk.status().policy_revision
    ruled.path.write_text(HEAD + line + "\n")
    refusal = desk.refusal(desk.reload)
    assert refusal.code == "INVALID_ARGUMENT"
    where = f"{ruled.path}:{HEAD.count(chr(10)) + 1}"
    status = desk.status()
    assert where in status.policy_error
    assert where in refusal.details
    assert said in status.policy_error
    assert status.policy_revision == revision
    assert desk.books() == before
    denied = desk.admit(9.5, labels={"team": "i"})
    assert denied.binding.rule == "kept"
    desk.void(held)
    ruled.by()
    assert desk.status().policy_error == ""


def test_a_file_that_changes_by_itself_is_in_force_while_money_is_held(desk, ruled):
    ruled.by("id: watched, match: {team: j}, window: total, limit: $10")
    held = desk.hold(8, labels={"team": "j"})
    text = HEAD + "  - {id: watched, match: {team: j}, window: total, limit: $7}\n"
    ruled.path.write_text(text)
    poll(lambda: dollars(desk.budget("watched"), "limit", "lowered") == (7, 1))
    desk.void(held)
