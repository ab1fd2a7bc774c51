"""fleet, leases, lease reclaim, budget top-up."""

import re

import grpc
import pytest

MS = 1_000_000
SECOND_NS = 1_000 * MS
MARCH_NS = 1_772_323_200 * SECOND_NS
DOLLAR = 1_000_000_000
COLOUR = {"NO_COLOR": "", "FORCE_COLOR": "1", "TERM": "xterm"}


def daemon_row(pb, name="d1", **changes):
    fields = {
        "daemon_id": f"daemon-{name}",
        "name": name,
        "version": "0.1.0",
        "attached": True,
        "seen_ns": MARCH_NS - 200 * MS,
        "policy_number": 3,
        "clock_offset_ns": 3 * MS,
        "clients_count": 12,
        "leased_nusd": 2 * DOLLAR,
        "kills_current": True,
    }
    return pb.DaemonStatus(**(fields | changes))


@pytest.fixture
def daemons(coordinator, pb):
    """Answer with some daemons."""

    def daemons(*rows, **changes):
        coordinator.answers["GetStatus"] = pb.Status(now_ns=MARCH_NS)
        coordinator.answers["ListDaemons"] = pb.ListDaemonsResponse(
            daemons=rows, policy_number=3, **changes
        )

    return daemons


def test_fleet_shows_who_was_heard_when_and_the_worst_case_last(daemons, fleetctl, pb):
    daemons(daemon_row(pb, outbox_count=7), overspend_bound_nusd=DOLLAR // 4)
    done = fleetctl("fleet")
    assert done.code == 0
    assert re.search(r"d1 +0.1.0 +200ms +3 +current +\+3 ms +7 +12 +\$2.00 *\n", done.out)
    assert done.out.endswith(
        "1 of 1 daemons attached; version 0.1.0; policy 3\n"
        "at worst the fleet overspends its budgets by $0.25\n"
    )


def test_trouble_is_said_and_coloured(daemons, fleetctl, pb):
    lost = daemon_row(
        pb, "d2", attached=False, seen_ns=MARCH_NS - 90 * SECOND_NS, presumed_nusd=2 * DOLLAR,
        kills_current=False, clock_offset_ns=-7 * SECOND_NS,
    )  # fmt: skip
    behind = daemon_row(pb, "d3", policy_number=2, policy_problem="policy 3:4: no such tier")
    daemons(lost, behind)
    out = fleetctl("fleet").out
    assert re.search(r"d2 +0.1.0 +1m 30s +3 +BEHIND +-7s +12 +\$2.00 +\$2.00\n", out)
    assert "d2 is not heard of, and what it holds is presumed spent" in out
    assert "costctl lease reclaim d2 --reason" in out
    assert "d3 refuses the newest policy: policy 3:4: no such tier\n" in out
    coloured = fleetctl("fleet", env=COLOUR).out
    assert re.search(r"\x1b\[1;31md2", coloured)
    assert re.search(r"\x1b\[1;31mBEHIND", coloured)
    assert re.search(r"\x1b\[33m *2\b", coloured)


def test_fleet_fits_an_ordinary_terminal(daemons, fleetctl, pb):
    rows = [
        daemon_row(pb, f"agents-{n:02}", outbox_count=1_234, presumed_nusd=DOLLAR, attached=False)
        for n in range(3)
    ]
    daemons(*rows)
    lines = fleetctl("fleet", env={"COLUMNS": "80"}).out.splitlines()
    table = [line for line in lines if line.startswith("agents-") and "not heard" not in line]
    assert len(table) == 3
    assert all(len(line) <= 80 for line in table)
    assert all("$1.00" in line for line in table)


def test_versions_are_listed_where_they_differ(daemons, fleetctl, pb):
    daemons(daemon_row(pb), daemon_row(pb, "d2", version="0.2.0"))
    out = fleetctl("fleet", env={"COLUMNS": "80"}).out
    assert "0.2.0" in out
    assert "; version" not in out


def test_an_empty_fleet_is_said_in_words(daemons, fleetctl):
    daemons()
    assert fleetctl("fleet").out.startswith("no daemon is known\n")


def test_replicas_of_the_coordinator_are_listed_and_one_that_is_silent_is_coloured(
    daemons, fleetctl, pb
):
    fields = {"version": "0.2.0", "address": "10.0.0.1:9466"}
    lately = pb.CoordinatorStatus(instance_id="c1-a", seen_ns=MARCH_NS - 15 * SECOND_NS, **fields)
    silent = pb.CoordinatorStatus(instance_id="c2-b", seen_ns=MARCH_NS - 45 * SECOND_NS, **fields)
    daemons(daemon_row(pb), coordinators=[lately, silent])
    out = fleetctl("fleet").out
    assert "\ncoordinator c1-a at 10.0.0.1:9466; version 0.2.0; heard 15s ago\n" in out
    coloured = fleetctl("fleet", env=COLOUR).out
    assert re.search(r"\x1b\[33mcoordinator c2-b at .* heard 45s ago", coloured)
    assert re.search(r"\x1b\[2mcoordinator c1-a at", coloured)


def test_for_programs_the_document_is_the_coordinators_answer(daemons, fleetctl, pb):
    daemons(daemon_row(pb), overspend_bound_nusd=5)
    document = fleetctl("fleet", "--json").json()
    assert document["daemons"][0]["clock_offset_ns"] == 3 * MS
    assert (document["overspend_bound_nusd"], document["truncated"]) == (5, False)


@pytest.fixture
def lease(pb):
    def lease(**changes):
        fields = {
            "budget": "race",
            "key": "user=ann",
            "unit": "nusd",
            "window_end_ns": MARCH_NS,
            "daemon": "d1",
            "amount": 3 * DOLLAR,
            "settled": DOLLAR,
            "reserved": DOLLAR // 2,
            "unused": 3 * DOLLAR // 2,
        }
        return pb.LeaseStatus(**(fields | changes))

    return lease


def test_leases_show_who_holds_how_much(coordinator, fleetctl, lease, pb):
    coordinator.answers["ListLeases"] = pb.ListLeasesResponse(
        leases=[
            lease(presumed=True),
            lease(key="", unit="calls", amount=5, settled=2, reserved=1, unused=2,
                  window_end_ns=0, reserve_amount=1, lost=4),
        ]
    )  # fmt: skip
    done = fleetctl("leases", "--budget", "race", "--daemon", "d1", "--ended", "--utc")
    request = coordinator.last("ListLeases")
    assert (request.budget, request.daemon, request.include_ended) == ("race", "d1", True)
    assert re.search(
        r"race +user=ann +d1 +\$3.00 +\$1.50 +\$1.50 +2026-03-01 00:00 +unused is presumed spent",
        done.out,
    )
    assert re.search(
        r"race +d1 +5 calls +3 calls +2 calls +1 calls from the reserve, 4 calls lost", done.out
    )
    assert fleetctl("leases", "--json").json()["leases"][0]["presumed"]


def test_no_leases_are_said_in_words(coordinator, fleetctl, pb):
    coordinator.answers["ListLeases"] = pb.ListLeasesResponse()
    assert fleetctl("leases").out == "nobody holds a lease\n"


def test_reclaim_says_whose_why_and_how_much(coordinator, fleetctl, lease, pb):
    coordinator.answers["ReclaimLeases"] = pb.ReclaimLeasesResponse(
        leases=[lease(presumed=True)], reclaimed_nusd=3 * DOLLAR // 2
    )
    done = fleetctl(
        "lease", "reclaim", "d1", "--budget", "race", "-r", "host burnt", "--actor", "ann@host"
    )
    assert done.code == 0
    request = coordinator.last("ReclaimLeases")
    assert (request.daemon, request.budget) == ("d1", "race")
    assert (request.reason, request.actor) == ("host burnt", "ann@host")
    assert done.out.endswith("reclaimed $1.50 in money budgets\n")


def test_a_daemon_that_holds_nothing_gives_nothing(coordinator, fleetctl, pb):
    coordinator.answers["ReclaimLeases"] = pb.ReclaimLeasesResponse()
    assert fleetctl("lease", "reclaim", "d1", "-r", "x").out == "d1 holds nothing to reclaim\n"


def test_a_daemon_that_may_still_spend_is_not_reclaimed(coordinator, fleetctl):
    coordinator.answers["ReclaimLeases"] = (grpc.StatusCode.FAILED_PRECONDITION, "wait 8 s more")
    done = fleetctl("lease", "reclaim", "d1", "-r", "x")
    assert done.code == 4
    assert "wait 8 s more" in done.err


@pytest.fixture
def budget(coordinator, pb):
    """A budget of the fleet in some unit."""

    def budget(unit="nusd"):
        coordinator.answers["ListBudgets"] = pb.ListBudgetsResponse(
            budgets=[pb.BudgetStatus(budget="race", unit=unit)]
        )
        coordinator.answers["TopUpBudget"] = pb.TopUpBudgetResponse(
            limit=25 * DOLLAR, topped_up=5 * DOLLAR, window_end_ns=MARCH_NS
        )

    return budget


def test_a_top_up_is_in_the_budgets_unit(coordinator, fleetctl, budget):
    budget()
    done = fleetctl(
        "budget", "top-up", "race", "$5", "--key", "user=ann", "--key", "project=api",
        "-r", "release week", "--id", "t-1", "--actor", "ann@host", "--utc",
    )  # fmt: skip
    assert done.code == 0
    request = coordinator.last("TopUpBudget")
    assert (request.budget, request.key) == ("race", "user=ann, project=api")
    assert (request.amount, request.top_up_id) == (5 * DOLLAR, "t-1")
    assert (request.reason, request.actor) == ("release week", "ann@host")
    assert done.out == (
        "race may spend $25.00 now, $5.00 of it added by hand, until 2026-03-01 00:00\n"
    )
    budget("calls")
    assert fleetctl("budget", "top-up", "race", "10k", "-r", "x").code == 0
    assert coordinator.last("TopUpBudget").amount == 10_000


def test_every_top_up_has_an_id_of_its_own(coordinator, fleetctl, budget):
    budget()
    for _ in range(2):
        fleetctl("budget", "top-up", "race", "5", "-r", "x")
    first, second = coordinator.requests["TopUpBudget"]
    assert first.top_up_id != second.top_up_id


def test_a_top_up_can_be_taken_back(coordinator, fleetctl, budget):
    budget()
    fleetctl("budget", "top-up", "race", "5", "--take-back", "-r", "x")
    assert coordinator.last("TopUpBudget").amount == -5 * DOLLAR


@pytest.mark.parametrize(
    "arguments",
    [
        ("race", "5"),
        ("race", "5", "-r", " "),
        ("race", "much", "-r", "x"),
        ("race", "0", "-r", "x"),
        ("race", "5", "-r", "x", "--key", "ann"),
    ],
)
def test_a_top_up_that_is_not_clear_changes_nothing(coordinator, fleetctl, budget, arguments):
    budget()
    assert fleetctl("budget", "top-up", *arguments).code == 2
    assert "TopUpBudget" not in coordinator.requests


def test_what_is_not_the_fleets_cannot_be_topped_up(coordinator, fleetctl, pb):
    coordinator.answers["ListBudgets"] = pb.ListBudgetsResponse()
    done = fleetctl("budget", "top-up", "local", "5", "-r", "x")
    assert done.code == 4
    assert "'local' is not shared" in done.err
