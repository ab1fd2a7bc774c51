"""allowances, allowance revoke, and what status and top say of allowances."""

import re

import grpc
import pytest

SECOND_NS = 1_000_000_000
MARCH_NS = 1_772_323_200 * SECOND_NS


@pytest.fixture
def allowance(pb):
    return pb.AllowanceStatus(
        allowance_id="00ff" * 8,
        session_id="session-of-ann-1",
        caller="ann",
        attached=True,
        state=pb.ALLOWANCE_STATE_OPEN,
        task_class="draft",
        provider="openai",
        model="gpt-5",
        tier="premium",
        labels={"team": "a", "project": "api"},
        granted=pb.AllowanceSums(
            calls_count=2_000, amount_nusd=5_000_000_000, tokens_count=2_000_000
        ),
        drawn=pb.AllowanceSums(
            calls_count=1_200, amount_nusd=3_000_000_000, tokens_count=1_200_000
        ),
        settled=pb.AllowanceSums(
            calls_count=1_100, amount_nusd=2_750_000_000, tokens_count=1_100_000
        ),
        reserved_nusd=2_250_000_000,
        expires_ns=MARCH_NS,
        maps_pages=True,
    )


def test_allowances_show_who_may_draw_what(daemon, costctl, allowance, pb):
    daemon.answers["ListAllowances"] = pb.ListAllowancesResponse(
        allowances=[allowance], truncated=True
    )
    shown = costctl("allowances", "--utc", "-n", "7", env={"COLUMNS": "260"})
    assert shown.code == 0
    assert daemon.last("ListAllowances").limit_count == 7
    assert re.search(
        r"(00ff){8} +OPEN +ann +draft +openai/gpt-5 \(premium\) +\$5\.00 +\$3\.00 +\$2\.25 +"
        r"1,200 of 2,000 +2026-03-01 00:00:00Z +page, stream +project=api, team=a",
        shown.out,
    )
    assert "there is more; raise --limit" in shown.out


def test_an_id_can_be_copied_from_a_narrow_screen(daemon, costctl, allowance, pb):
    daemon.answers["ListAllowances"] = pb.ListAllowancesResponse(allowances=[allowance])
    assert "00ff" * 8 in costctl("allowances", env={"COLUMNS": "160"}).out


def test_for_programs_every_sum_is_there(daemon, costctl, allowance, pb):
    daemon.answers["ListAllowances"] = pb.ListAllowancesResponse(allowances=[allowance])
    document = costctl("allowances", "--json").json()
    assert document["truncated"] is False
    (row,) = document["allowances"]
    assert row["state"] == "ALLOWANCE_STATE_OPEN"
    assert row["settled"] == {
        "calls_count": 1_100,
        "amount_nusd": 2_750_000_000,
        "tokens_count": 1_100_000,
    }
    assert (row["session_id"], row["presumed"]) == ("session-of-ann-1", False)


def test_no_allowance_is_said_in_words(daemon, costctl, pb):
    daemon.answers["ListAllowances"] = pb.ListAllowancesResponse()
    assert costctl("allowances").out == "no allowance is out\n"


def test_what_is_presumed_spent_is_no_figure(daemon, costctl, allowance, pb):
    allowance.state, allowance.presumed = pb.ALLOWANCE_STATE_DRAINING, True
    allowance.maps_pages = allowance.attached = False
    daemon.answers["ListAllowances"] = pb.ListAllowancesResponse(allowances=[allowance])
    out = costctl("allowances", env={"COLUMNS": "260"}).out
    assert re.search(r"DRAINING .* \$5\.00 +unknown +\$2\.25 .* nothing +project=api", out)


def test_a_state_of_a_newer_daemon_is_shown_by_its_number(daemon, costctl, allowance, pb):
    allowance.state = 9
    daemon.answers["ListAllowances"] = pb.ListAllowancesResponse(allowances=[allowance])
    assert re.search(r"(00ff){8} +9 +ann", costctl("allowances", env={"COLUMNS": "260"}).out)


def test_revoke_says_who_and_why(daemon, costctl, allowance, pb):
    allowance.state = pb.ALLOWANCE_STATE_REVOKED
    daemon.answers["RevokeAllowance"] = pb.RevokeAllowanceResponse(allowance=allowance)
    arguments = ("allowance", "revoke", "00ff" * 8, "-r", "runaway", "--actor", "bob@host")
    done = costctl(*arguments, env={"COLUMNS": "260"})
    assert done.code == 0
    request = daemon.last("RevokeAllowance")
    assert (request.allowance_id, request.reason) == ("00ff" * 8, "runaway")
    assert request.actor == "bob@host"
    assert re.search(r"(00ff){8} +REVOKED +ann", done.out)
    assert "may draw until" not in done.out
    document = costctl(*arguments, "--json").json()
    assert document["allowance"]["state"] == "ALLOWANCE_STATE_REVOKED"


def test_revoke_names_the_operator_itself(daemon, costctl, allowance, pb):
    daemon.answers["RevokeAllowance"] = pb.RevokeAllowanceResponse(allowance=allowance)
    costctl("allowance", "revoke", "00ff" * 8)
    assert re.fullmatch(r"[^@]+@[^@]+", daemon.last("RevokeAllowance").actor)


def test_revoke_warns_of_a_client_that_cannot_hear_it(daemon, costctl, allowance, pb):
    allowance.state = pb.ALLOWANCE_STATE_REVOKED
    allowance.maps_pages = allowance.attached = False
    daemon.answers["RevokeAllowance"] = pb.RevokeAllowanceResponse(allowance=allowance)
    out = costctl("allowance", "revoke", "00ff" * 8, "--utc").out
    assert out.endswith("its client hears of nothing now and may draw until 2026-03-01 00:00:00Z\n")


def test_an_allowance_that_is_not_out_ends_with_4(daemon, costctl):
    daemon.answers["RevokeAllowance"] = (grpc.StatusCode.NOT_FOUND, "no allowance 00 is out")
    ended = costctl("allowance", "revoke", "00")
    assert (ended.code, ended.out) == (4, "")
    assert ended.err == "costctl: NOT_FOUND: no allowance 00 is out\n"


@pytest.mark.parametrize("arguments", [(), ("revoke",), ("spend",)])
def test_an_allowance_command_that_is_not_clear_revokes_nothing(daemon, costctl, arguments):
    assert costctl("allowance", *arguments).code == 2
    assert not daemon.requests


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, "none out"),
        (
            {
                "allowances_open_count": 1_234,
                "allowances_granted_nusd": 5_000_000_000,
                "allowances_drawn_nusd": 1_250_000_000,
            },
            "1,234 open ($5.00 granted, $1.25 drawn)",
        ),
        ({"allowances_draining_count": 2}, "0 open ($0.00 granted, $0.00 drawn), 2 draining"),
    ],
)
def test_status_and_top_sum_up_what_is_out(daemon, costctl, pb, fields, shown):
    daemon.answers |= {
        "GetStatus": pb.Status(version="0.1.0", sessions_attached_count=1_007, **fields),
        "ListBudgets": pb.ListBudgetsResponse(),
        "ListKills": pb.ListKillsResponse(),
        "ListAlerts": pb.ListAlertsResponse(),
    }
    out = costctl("status").out
    assert re.search(r"sessions +1,007 attached *\n", out)
    assert re.search(rf"allowances +{re.escape(shown)} *\n", out)
    assert f"allowances {shown}  kill switches" in costctl("top", "--once").out
