"""balance: quality gates against everything else, from scripted sums."""

import re

import pytest

SECOND_NS = 1_000_000_000
MARCH_NS = 1_772_323_200 * SECOND_NS
HOUR_NS = 3_600 * SECOND_NS
USD = 1_000_000_000


@pytest.fixture
def group(pb):
    def make(task_class, calls, dollars, *, retries=0, **by):
        by = {"tier": "premium", "verdict": "allow", "reason": "OK", "outcome": "OK"} | by
        return pb.UsageGroup(
            by={"task_class": task_class} | by,
            calls_count=calls,
            cost_nusd=round(dollars * USD),
            retry_count=retries,
        )

    return make


@pytest.fixture
def denial(pb):
    def make(task_class, reason, count):
        return pb.AuditRecord(
            at_ns=MARCH_NS, action="denied", task_class=task_class, reason=reason, count=count
        )

    return make


@pytest.fixture
def books(daemon, pb):
    """Answer with these sums; every other list is empty."""

    def answer(groups=(), denials=(), budgets=(), critical=("review", "audit"), **usage):
        daemon.answers["ListUsage"] = pb.ListUsageResponse(groups=groups, **usage)
        daemon.answers["ListAudit"] = pb.ListAuditResponse(records=denials)
        daemon.answers["ListBudgets"] = pb.ListBudgetsResponse(budgets=budgets)
        daemon.answers["GetPolicy"] = pb.Policy(critical_classes=critical)

    return answer


@pytest.fixture
def week(books, group, denial, pb):
    """A week in which drafts were degraded and gates were not."""
    books(
        [
            group("review", 480, 20, retries=3),
            group("review", 2, 3, outcome="ERROR"),
            group("draft", 600, 60),
            group("draft", 400, 17, tier="economy", verdict="degrade", reason="STEP_DEGRADED"),
            group("draft", 5, 0.5, verdict="(none)", outcome="UNSPECIFIED"),
        ],
        [
            denial("review", pb.REASON_KILL_SWITCH, 2),
            denial("review", pb.REASON_KILL_SWITCH, 1),
            denial("draft", pb.REASON_BUDGET_EXHAUSTED, 1_041),
            pb.AuditRecord(at_ns=MARCH_NS, action="kill_engaged", subject="k1"),
        ],
        [
            pb.BudgetStatus(budget="team-day", key="team=a", unit="nusd", reserve=10 * USD,
                            reserve_used=2_500_000_000),
            pb.BudgetStatus(budget="org", unit="nusd", settled=5),
        ],
    )  # fmt: skip


def test_gates_are_weighed_against_everything_else(week, costctl):
    out = costctl("balance").out
    assert re.search(r"review +yes +482 +\$23\.00 +22\.88 % +\$0\.047717 +3\n", out)
    assert re.search(r"draft +1,005 +\$77\.50 +77\.11 % +\$0\.077114 +0\n", out)
    assert re.search(r"quality gates +482 +\$23\.00 +22\.88 %", out)
    assert re.search(r"everything else +1,005 +\$77\.50 +77\.11 %", out)
    assert re.search(r"all +1,487 +\$100\.50 +100\.00 %", out)
    assert re.search(r"review +482 +0 +3 +premium 100\.00 % +OK 480, ERROR 2", out)
    assert re.search(
        r"draft +600 +400 +1,041 +premium 60\.19 %, economy 39\.80 % +OK 1,000, not said 5", out
    )
    assert re.search(r"team-day +team=a +\$10\.00 +\$2\.50 +25\.00 %", out)
    assert "org" not in out
    assert out.splitlines()[-1] == (
        "Quality gates took 22.88 % of the spend; none of 482 was degraded; "
        "3 were denied: KILL_SWITCH 3."
    )


def test_gates_that_were_degraded_are_said_to_be(books, group, costctl):
    degraded = {"tier": "standard", "verdict": "degrade", "reason": "KILL_SWITCH"}
    books([group("review", 9, 9), group("audit", 1, 1, **degraded)])
    assert costctl("balance").out.splitlines()[-1] == (
        "Quality gates took 100.00 % of the spend; 1 of 10 was degraded: KILL_SWITCH 1; "
        "none was denied."
    )


def test_the_document_has_every_figure_whole(week, costctl):
    said = costctl("balance", "--json").json()
    review, draft = said["classes"]
    assert review == {
        "task_class": "review",
        "critical": True,
        "calls_count": 482,
        "cost_nusd": 23 * USD,
        "share_bp": 2_288,
        "cost_per_call_nusd": 47_717_842,
        "allowed_count": 482,
        "degraded_count": 0,
        "denied_count": 3,
        "degraded_by": {},
        "denied_by": {"KILL_SWITCH": 3},
        "tiers": {"premium": 482},
        "outcomes": {"OK": 480, "ERROR": 2},
        "retries_count": 3,
    }
    assert (draft["allowed_count"], draft["degraded_count"]) == (600, 400)
    assert said["others"]["degraded_by"] == {"STEP_DEGRADED": 400}
    assert said["total"]["cost_nusd"] == 100_500_000_000
    assert [row["budget"] for row in said["reserves"]] == ["team-day"]
    assert said["verdict"].startswith("Quality gates took 22.88 %")


def test_a_range_begins_at_its_moment_and_for_denials_at_its_hour(week, daemon, costctl):
    out = costctl("balance", "--since", "2026-03-01T02:30:00Z", "--utc").out
    assert daemon.last("ListUsage").since_ns == MARCH_NS + 2 * HOUR_NS + HOUR_NS // 2
    assert daemon.last("ListAudit").since_ns == MARCH_NS + 2 * HOUR_NS
    assert out.startswith("Since 2026-03-01 02:30:00Z\n")
    assert "Denials are counted by the hour" in out
    assert "Reserves are as they stand in the windows that run now" in out


def test_without_a_range_it_is_all_that_is_kept(week, daemon, costctl):
    out = costctl("balance").out
    assert (daemon.last("ListUsage").since_ns, daemon.last("ListAudit").since_ns) == (0, 0)
    assert out.startswith("All that the books still hold\n")
    assert "by the hour" not in out


def test_nothing_is_said_plainly(books, costctl):
    books()
    out = costctl("balance").out
    assert "nothing was spent, and nothing was denied" in out
    assert "no budget keeps a protected reserve" in out
    assert "No call of a quality gate was closed or denied" in out


def test_gates_that_were_only_denied_are_told_of(books, denial, costctl, pb):
    books(denials=[denial("review", pb.REASON_BUDGET_EXHAUSTED, 1)])
    out = costctl("balance").out
    assert re.search(r"review +0 +0 +1", out)
    assert out.splitlines()[-1] == (
        "Nothing was spent; none was admitted; 1 was denied: BUDGET_EXHAUSTED 1."
    )


def test_a_range_that_holds_only_corrections_has_no_shares(books, group, costctl):
    books([group("review", -1, -2, outcome="TIMEOUT"), group("review", 1, 0.5)])
    out = costctl("balance").out
    assert re.search(r"review +yes +0 +-\$1\.50 +0\n", out)
    assert "%" not in out


def test_lists_that_were_cut_off_are_said_to_be(books, group, costctl):
    books([group("review", 1, 1)], truncated=True)
    assert "these figures are incomplete" in costctl("balance").out


def test_everything_fits_80_columns(week, costctl):
    out = costctl("balance", "--since", "2026-03-01", env={"COLUMNS": "80"}).out
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"^review +yes +482 +\$23\.00 +22\.88 %", out, re.MULTILINE)
    assert re.search(r"^review +482 +0 +3 ", out, re.MULTILINE)
