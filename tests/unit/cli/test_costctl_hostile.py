"""Nothing that a daemon says colours or moves the screen, whichever field it comes in."""

import re

import grpc
import pytest

HOSTILE = "[bold]\x1b[2J\x9b31m\u202e[/]\r\n\x07"
FORBIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")

COMMANDS = {
    "Admit": ("Decision", ["admit", "--cost", "1"]),
    "Explain": ("Explanation", ["explain", "--cost", "1"]),
    "Settle": ("Settlement", ["settle", "00ff", "--cost", "1"]),
    "GetStatus": ("Status", ["status"]),
    "ListBudgets": ("ListBudgetsResponse", ["budgets"]),
    "ListReservations": ("ListReservationsResponse", ["reservations"]),
    "ListAllowances": ("ListAllowancesResponse", ["allowances"]),
    "RevokeAllowance": ("RevokeAllowanceResponse", ["allowance", "revoke", "00ff"]),
    "ListUsage": ("ListUsageResponse", ["usage"]),
    "ListAlerts": ("ListAlertsResponse", ["alerts"]),
    "ListAudit": ("ListAuditResponse", ["audit"]),
    "Drill": ("DrillReport", ["drill"]),
    "ListKills": ("ListKillsResponse", ["kills"]),
    "GetPolicy": ("Policy", ["policy", "show"]),
}


def fill(message):
    """Put the hostile text into every field that can hold text, at every depth."""
    for field in message.DESCRIPTOR.fields:
        nested = field.message_type
        if nested is not None and nested.GetOptions().map_entry:
            of_text = nested.fields_by_name["value"].type == field.TYPE_STRING
            getattr(message, field.name)[HOSTILE] = HOSTILE if of_text else 1
        elif nested is not None and field.is_repeated:
            fill(getattr(message, field.name).add())
        elif nested is not None:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name))
        elif field.type == field.TYPE_STRING and field.is_repeated:
            getattr(message, field.name).append(HOSTILE)
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, HOSTILE)
        elif field.enum_type is not None:
            setattr(message, field.name, 1)
    return message


@pytest.mark.parametrize("method", COMMANDS)
def test_no_field_of_any_answer_reaches_the_screen_as_it_is(daemon, costctl, pb, method):
    name, command = COMMANDS[method]
    daemon.answers[method] = fill(getattr(pb, name)())
    out = costctl(*command, env={"COLUMNS": "2000"}).out
    assert not FORBIDDEN.search(out)
    assert "[bold]" in out
    as_json = costctl(*command, "--json")
    assert as_json.out.isascii()
    assert not FORBIDDEN.search(as_json.out)
    assert as_json.json()


def test_usage_groups_and_the_live_frame_are_no_exception(daemon, costctl, pb):
    for method, (name, _) in COMMANDS.items():
        daemon.answers[method] = fill(getattr(pb, name)())
    for command in (["usage", "--by", HOSTILE], ["top", "--once"]):
        out = costctl(*command, env={"COLUMNS": "2000"}).out
        assert not FORBIDDEN.search(out)
        assert "[bold]" in out


def test_an_error_is_one_line_whatever_it_quotes(daemon, costctl):
    daemon.answers["GetStatus"] = (grpc.StatusCode.INTERNAL, "label \x1b[2J [bold]x[/]")
    assert costctl("status").err == "costctl: INTERNAL: label \\x1b[2J [bold]x[/]\n"
