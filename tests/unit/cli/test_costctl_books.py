"""status, budgets, reservations, usage, alerts, audit: what the daemon's books say."""

import io
import re
import sys
import time

import pytest

from costd.cli.render import bar

SECOND_NS = 1_000_000_000
MARCH_NS = 1_772_323_200 * SECOND_NS


@pytest.fixture
def budget(pb):
    return pb.BudgetStatus(
        budget="team-month",
        key="team=a",
        unit="nusd",
        limit=10_000_000_000,
        settled=6_000_000_000,
        reserved=1_500_000_000,
        utilisation_bp=7_500,
        window_start_ns=MARCH_NS,
        window_end_ns=MARCH_NS + 31 * 86_400 * SECOND_NS,
        window="month",
        active=True,
        in_policy=True,
    )


def test_status_says_how_the_daemon_is(daemon, costctl, pb):
    daemon.answers["GetStatus"] = pb.Status(
        version="0.1.0",
        policy_revision="abc123",
        policy_path="/etc/costd/policy.yaml",
        policy_error="policy.yaml:3: limit: is negative",
        kill_file_error="its directory /etc/kills is not there",
        started_ns=MARCH_NS,
        now_ns=MARCH_NS + 3_725 * SECOND_NS,
        open_reservations_count=1_234,
        reserved_nusd=5_000_000_000,
        exposure_nusd=2_500_000_000,
        unknown_ceiling_count=7,
        kills_engaged_count=2,
        decisions={"allow/draft": 1_000, "deny/draft": 3, "degrade/review": 4},
        data_dir="/var/lib/costd",
        durability="process",
    )
    shown = costctl("status", "--utc")
    assert shown.code == 0
    for line in (
        r"started +2026-03-01 00:00:00Z \(1h 2m ago\)",
        r"policy +/etc/costd/policy\.yaml abc123",
        r"policy refused +policy\.yaml:3: limit: is negative",
        r"kill file refused +its directory /etc/kills is not there",
        r"reserved +\$5\.00 in 1,234 open reservations",
        r"exposure +\$2\.50 beyond that, 7 without a ceiling",
        r"kill switches +2 engaged",
        r"draft +1,000 +0 +3",
        r"review +0 +4 +0",
    ):
        assert re.search(line, shown.out), line
    assert costctl("status", "--json").json()["decisions"] == {
        "allow/draft": 1_000,
        "degrade/review": 4,
        "deny/draft": 3,
    }


def test_the_faults_of_a_refused_policy_have_a_line_each(daemon, costctl, pb):
    faults = "p.yaml:3: limit: is negative\np.yaml:9: per: \x1b[2J"
    daemon.answers["GetStatus"] = pb.Status(policy_error=faults)
    assert re.search(
        r"policy refused +p\.yaml:3: limit: is negative *\n +p\.yaml:9: per: \\x1b\[2J",
        costctl("status").out,
    )
    record = pb.AuditRecord(action="policy_refused", detail=faults)
    other = pb.AuditRecord(action="kill_engaged", detail="one\ntwo")
    daemon.answers["ListAudit"] = pb.ListAuditResponse(records=[record, other])
    out = costctl("audit").out
    assert re.search(r"p\.yaml:3: limit: is negative *\n +p\.yaml:9: per: \\x1b\[2J", out)
    assert r"one\ntwo" in out


def test_budgets_have_bars_of_settled_and_reserved(daemon, costctl, budget, pb):
    daemon.answers["ListBudgets"] = pb.ListBudgetsResponse(budgets=[budget])
    out = costctl("budgets", "--utc").out
    assert re.search(
        r"team-month +team=a +█{14}▒{4}░{6} +\$7\.50 +\$1\.50 +\$10\.00 +75\.00 % +"
        r"2026-04-01 00:00",
        out,
    )
    request = daemon.last("ListBudgets")
    assert (request.budget, request.include_ended, request.limit_count) == ("", False, 1_000)


def test_budgets_explain_what_stands_past_the_limit(daemon, costctl, budget, pb):
    budget.unit, budget.window_end_ns, budget.window = "tokens", 0, "total"
    budget.settled, budget.reserved, budget.utilisation_bp = 12_000, 0, 12_000
    budget.limit, budget.overrun, budget.granted, budget.reserve = 10_000, 1_500, 500, 2_000
    budget.reserve_used, budget.active, budget.in_policy = 100, False, False
    tracking = pb.BudgetStatus(budget="all", unit="calls", settled=5, active=True, in_policy=True)
    daemon.answers["ListBudgets"] = pb.ListBudgetsResponse(
        budgets=[budget, tracking], truncated=True
    )
    out = costctl("budgets", "team-month", "--ended", "--limit", "2").out
    request = daemon.last("ListBudgets")
    assert (request.budget, request.include_ended, request.limit_count) == ("team-month", True, 2)
    assert re.search(r"█{24} +12,000 tokens +10,000 tokens +120\.00 % +total", out)
    assert (
        "overrun 1,500 tokens, granted 500 tokens, reserve 100 tokens of 2,000 tokens, "
        "suspended, not in the policy"
    ) in " ".join(out.split())
    assert re.search(r"all +5 calls +tracks only", out)
    assert "there is more; raise --limit" in out


def test_nothing_is_said_in_words(daemon, costctl, pb):
    daemon.answers |= {
        "ListBudgets": pb.ListBudgetsResponse(),
        "ListReservations": pb.ListReservationsResponse(),
        "ListUsage": pb.ListUsageResponse(),
        "ListAlerts": pb.ListAlertsResponse(),
        "ListAudit": pb.ListAuditResponse(),
        "ListKills": pb.ListKillsResponse(),
    }
    assert costctl("budgets").out == "no budget has counted anything yet\n"
    assert costctl("reservations").out == "no reservation is open\n"
    assert costctl("usage").out == "nothing was spent\n"
    assert costctl("alerts").out == "no alerts\n"
    assert costctl("audit").out == "nothing to audit\n"
    assert costctl("kills").out == "no kill switch is engaged\n"


def test_reservations_show_who_holds_money(daemon, costctl, pb):
    daemon.answers["ListReservations"] = pb.ListReservationsResponse(
        reservations=[
            pb.ReservationStatus(
                reservation_id="00ff",
                state=pb.RESERVATION_STATE_HELD,
                task_class="draft",
                labels={"team": "a", "project": "api"},
                tier="premium",
                provider="openai",
                model="gpt-5",
                hold_nusd=20_000_000,
                expires_ns=MARCH_NS,
                budgets=["team-month", "org-year"],
            )
        ]
    )
    out = costctl("reservations", "--utc").out
    assert re.search(
        r"00ff +HELD +draft +openai/gpt-5 \(premium\) +\$0\.02 +unknown +2026-03-01 00:00:00Z +"
        r"project=api, team=a +team-month, org-year",
        out,
    )
    costctl("reservations", "00ff")
    assert daemon.last("ListReservations").include_closed is True
    costctl("reservations", "--closed", "-n", "7")
    request = daemon.last("ListReservations")
    assert (request.include_closed, request.limit_count) == (True, 7)


def test_usage_lists_calls(daemon, costctl, pb):
    daemon.answers["ListUsage"] = pb.ListUsageResponse(
        events=[
            pb.UsageEvent(
                settled_ns=MARCH_NS,
                task_class="draft",
                provider="openai",
                model="gpt-5",
                cost_nusd=1,
                hold_nusd=2_000_000_000,
                duration_ns=812_000_000,
                usage=pb.Usage(prompt_tokens=1_200, output_tokens=0),
                closed_as="settled",
                reason=pb.REASON_OK,
                labels={"team": "a"},
            )
        ]
    )
    out = costctl("usage", "--utc").out
    assert re.search(
        r"2026-03-01 00:00:00Z +draft +openai/gpt-5 +\$0\.000000001 +\$2\.00 +1,200 +0 +812ms +"
        r"settled +OK +team=a",
        out,
    )


def test_usage_sums_by_labels_dearest_first(daemon, costctl, pb):
    daemon.answers["ListUsage"] = pb.ListUsageResponse(
        groups=[
            pb.UsageGroup(by={"team": "a", "model": "m"}, calls_count=2, cost_nusd=1_000_000_000),
            pb.UsageGroup(by={"team": "b"}, calls_count=1, cost_nusd=9_000_000_000),
        ]
    )
    out = costctl(
        "usage", "--by", "team, model", "--where", "project=api", "--since", "2026-03-01",
        "--until", "2026-03-02",
    ).out  # fmt: skip
    request = daemon.last("ListUsage")
    assert list(request.group_by) == ["team", "model"]
    assert dict(request.where) == {"project": "api"}
    assert request.since_ns == MARCH_NS
    assert request.until_ns == MARCH_NS + 86_400 * SECOND_NS
    assert re.search(r"b +1 +\$9\.00 .*\n *a +m +2 +\$1\.00", out)


def test_since_may_be_a_length_of_time(daemon, costctl, pb):
    daemon.answers["ListAlerts"] = pb.ListAlertsResponse()
    costctl("alerts", "--since", "1h")
    costctl("alerts", "--since", "1m")
    hour, minute = (each.since_ns for each in daemon.requests["ListAlerts"])
    assert 3_539 < (minute - hour) // SECOND_NS < 3_600
    refused = costctl("alerts", "--since", "yesterday")
    assert refused.code == 2
    assert "or how long ago" in " ".join(refused.err.replace("│", " ").split())


def test_alerts_and_audit_are_told_in_order(daemon, costctl, pb):
    daemon.answers["ListAlerts"] = pb.ListAlertsResponse(
        alerts=[
            pb.Alert(
                raised_ns=MARCH_NS,
                kind="threshold",
                rule="team-month",
                key="team=a",
                utilisation_bp=8_012,
                message="80 % used",
            )
        ]
    )
    daemon.answers["ListAudit"] = pb.ListAuditResponse(
        records=[
            pb.AuditRecord(at_ns=MARCH_NS, actor="ann", action="kill_engaged", subject="k1"),
            pb.AuditRecord(at_ns=MARCH_NS, action="denied", count=41, detail="RATE_LIMITED"),
        ]
    )
    out = costctl("alerts", "--utc").out
    assert re.search(r"00:00:00Z +threshold +team-month +team=a +80\.12 % +80 % used", out)
    out = costctl("audit", "--utc", "--since", "2026-01-01").out
    assert re.search(r"ann +kill_engaged +k1 *\n.*denied +41 +RATE_LIMITED", out)
    assert daemon.last("ListAudit").since_ns < MARCH_NS


@pytest.mark.parametrize(
    "case",
    [
        ("[bold]x[/]", "[bold]x[/]"),
        ("[red on", "[red on"),
        (":warning:", ":warning:"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202edcba", r"abc\u202edcba"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
    ],
)
def test_no_label_colours_or_moves_the_screen(daemon, costctl, budget, pb, case):
    hostile, shown = case
    budget.key = hostile
    daemon.answers["ListBudgets"] = pb.ListBudgetsResponse(budgets=[budget])
    colour = {"NO_COLOR": "", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    coloured = costctl("budgets", env=colour).out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert plain != coloured
    assert shown in plain
    assert re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e]*", plain)
    listed = costctl("budgets", "--json")
    assert listed.json()["budgets"][0]["key"] == hostile
    assert listed.out.isascii()


def test_times_are_local_unless_utc_is_asked_for(daemon, costctl, pb, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    daemon.answers["ListAlerts"] = pb.ListAlertsResponse(alerts=[pb.Alert(raised_ns=MARCH_NS)])
    local = {"TZ": "America/New_York"}
    assert "2026-02-28 19:00:00 " in costctl("alerts", env=local).out
    assert "2026-03-01 00:00:00Z" in costctl("alerts", "--utc", env=local).out
    monkeypatch.undo()
    time.tzset()


def test_a_screen_without_block_characters_gets_plain_bars(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        assert bar(5, 5, 20, width=8).plain == "##++...."


@pytest.mark.parametrize(
    ("settled", "reserved", "limit", "drawn"),
    [
        (0, 0, 100, "░░░░░░░░░░"),
        (1, 0, 10**12, "█░░░░░░░░░"),
        (0, 1, 10**12, "▒░░░░░░░░░"),
        (50, 25, 100, "█████▒▒▒░░"),
        (99, 0, 100, "█████████░"),
        (100, 0, 100, "██████████"),
        (50, 50, 100, "█████▒▒▒▒▒"),
        (2**63 - 1, 0, 1, "██████████"),
        (0, 0, 0, "░░░░░░░░░░"),
        (1, 0, 0, "██████████"),
    ],
)
def test_a_bar_never_hides_what_is_used_nor_looks_full_too_early(settled, reserved, limit, drawn):
    assert bar(settled, reserved, limit, width=10).plain == drawn
