"""policy apply, history, rollback."""

import re

import grpc
import pytest

MARCH_NS = 1_772_323_200 * 1_000_000_000
GOOD = "version: 1\nbudgets:\n  - {id: day, window: day, limit: $5}\n"


@pytest.fixture
def published(pb):
    def published(number, **changes):
        fields = {"revision": f"r{number}", "published_ns": MARCH_NS, "actor": "ann@host"}
        return pb.PolicyVersion(number=number, **(fields | changes))

    return published


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(GOOD)
    return path


def test_apply_publishes_the_files_text(coordinator, fleetctl, published, policy):
    coordinator.answers["PublishPolicy"] = published(4)
    done = fleetctl(
        "policy", "apply", policy, "--note", "more", "--after", "3", "--actor", "ann@host", "--utc"
    )
    assert done.code == 0
    request = coordinator.last("PublishPolicy")
    assert (request.yaml, request.note, request.after_number) == (GOOD, "more", 3)
    assert request.actor == "ann@host"
    assert done.out == "policy 4 revision r4, in force since 2026-03-01 00:00:00Z\n"
    assert fleetctl("policy", "apply", policy, "--json").json()["number"] == 4


def test_a_bad_policy_is_told_by_line_and_asked_of_nobody(coordinator, fleetctl, policy):
    policy.write_text("version: 1\nbudgets:\n  - {id: day, window: fortnight}\n")
    done = fleetctl("policy", "apply", policy)
    assert (done.code, done.out) == (6, "")
    assert f"{policy}:3" in done.err
    as_json = fleetctl("policy", "apply", policy, "--json")
    assert as_json.code == 6
    assert not as_json.json()["valid"]
    assert not coordinator.requests


def test_what_the_coordinator_finds_wrong_is_a_fault_of_the_policy(coordinator, fleetctl, policy):
    coordinator.answers["PublishPolicy"] = (grpc.StatusCode.INVALID_ARGUMENT, "the policy:3: no")
    done = fleetctl("policy", "apply", policy)
    assert done.code == 6
    assert "the coordinator: the policy:3: no" in done.err


def test_whoever_was_overtaken_is_told(coordinator, fleetctl, policy):
    refused = (grpc.StatusCode.ALREADY_EXISTS, "policy 5 is in force by now, not 3")
    coordinator.answers["PublishPolicy"] = refused
    done = fleetctl("policy", "apply", policy, "--after", "3")
    assert done.code == 4
    assert "policy 5 is in force by now" in done.err


def test_history_shows_who_published_what_and_who_has_it(coordinator, fleetctl, published, pb):
    coordinator.answers["ListPolicies"] = pb.ListPoliciesResponse(
        policies=[published(2, daemons_count=7, note="more"), published(1)], truncated=True
    )
    done = fleetctl("policy", "history", "--limit", "2", "--utc")
    assert coordinator.last("ListPolicies").limit_count == 2
    assert re.search(r"2 +r2 +2026-03-01 00:00:00Z +ann@host +7 +more\n", done.out)
    assert re.search(r"1 +r1 +2026-03-01 00:00:00Z +ann@host *\n", done.out)
    assert done.out.endswith("there is more; raise --limit to see it\n")
    assert len(fleetctl("policy", "history", "--json").json()["policies"]) == 2


def test_no_history_is_said_in_words(coordinator, fleetctl, pb):
    coordinator.answers["ListPolicies"] = pb.ListPoliciesResponse()
    assert fleetctl("policy", "history").out == "no policy was ever published\n"


def test_rollback_publishes_an_earlier_one_again(coordinator, fleetctl, published):
    coordinator.answers["RollbackPolicy"] = published(5)
    done = fleetctl("policy", "rollback", "2", "-m", "it was better")
    request = coordinator.last("RollbackPolicy")
    assert (request.number, request.note) == (2, "it was better")
    assert done.out.startswith("policy 5 revision r5, in force since ")


def test_only_a_number_can_be_rolled_back_to(coordinator, fleetctl):
    assert fleetctl("policy", "rollback", "0").code == 2
    coordinator.answers["RollbackPolicy"] = (grpc.StatusCode.NOT_FOUND, "no policy 9 was published")
    assert fleetctl("policy", "rollback", "9").code == 4
