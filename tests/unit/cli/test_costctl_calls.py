"""admit, explain, settle, void and record."""

import re
from uuid import UUID

import grpc
import pytest

SECOND_NS = 1_000_000_000


@pytest.fixture
def allowed(pb):
    return pb.Decision(
        verdict=pb.VERDICT_ALLOW,
        reason=pb.REASON_OK,
        ask_id="a" * 16,
        reservation_id="00ff",
        tier="premium",
        asked_tier="premium",
        provider="openai",
        model="gpt-5",
        hold_nusd=20_000_000,
        ceiling_nusd=50_000_000,
        expires_ns=1_772_323_200 * SECOND_NS,
        tightest_budget="team-month",
        tightest_key="team=a",
        utilisation_bp=6_325,
        policy_revision="r1",
        price=pb.PriceSource(source="catalogue", version="1.2", provider="openai", model="gpt-5"),
    )


@pytest.fixture
def denied(pb):
    return pb.Decision(
        verdict=pb.VERDICT_DENY,
        reason=pb.REASON_BUDGET_EXHAUSTED,
        ask_id="a" * 16,
        tier="premium",
        asked_tier="premium",
        provider="openai",
        model="gpt-5",
        message="budget team-month is used up",
        binding=pb.Binding(
            rule="team-month",
            kind="budget",
            key="team=a",
            limit=10_000_000_000,
            used=9_990_000_000,
            unit="nusd",
            resets_ns=1_772_323_200 * SECOND_NS,
        ),
        would_pass=[pb.WouldPass(tier="economy", provider="openai", model="nano", amount_nusd=1)],
        upgrade_text="ask finance",
        upgrade_url="https://example.org/more",
        grant_refusal=pb.GRANT_REFUSAL_EXPIRED,
    )


def test_admit_sends_every_option(daemon, costctl, allowed, tmp_path):
    daemon.answers["Admit"] = allowed
    (tmp_path / "grant.jwt").write_text("the.signed.grant\n")
    asked = costctl(
        "admit", "--class", "review", "--model", "gpt-5", "--provider", "openai",
        "--tier", "premium", "--cost", "$0.02", "--prompt-tokens", "10k",
        "--max-output-tokens", "512", "-l", "team=a", "--label", "note=x=y",
        "--accept", "gpt-5-mini", "--accept", "openai/nano", "--grant", f"@{tmp_path}/grant.jwt",
        "--ttl", "1h30m", "--batch", "--cost-kind", "embedding", "--unit", "web_searches=3",
        "--ask-id", "my-own-ask-id-0001", "--caller", "ci",
    )  # fmt: skip
    assert asked.code == 0
    request = daemon.last("Admit")
    assert daemon.callers["Admit"] == "ci"
    assert (request.ask_id, request.task_class) == ("my-own-ask-id-0001", "review")
    assert (request.provider, request.model, request.tier) == ("openai", "gpt-5", "premium")
    assert request.estimated_cost_nusd == 20_000_000
    assert (request.prompt_tokens, request.max_output_tokens) == (10_000, 512)
    assert dict(request.labels) == {"team": "a", "note": "x=y"}
    assert list(request.acceptable_models) == ["gpt-5-mini", "openai/nano"]
    assert request.override_grant == "the.signed.grant"
    assert request.ttl.ToNanoseconds() == 5_400 * SECOND_NS
    assert request.batch is True
    assert request.cost_kind == "embedding"
    assert dict(request.units) == {"web_searches": 3}


def test_admit_leaves_unknown_amounts_unknown_and_makes_a_uuid7(daemon, costctl, allowed):
    daemon.answers["Admit"] = allowed
    assert costctl("admit", "--cost", "0").code == 0
    assert costctl("admit", "--prompt-tokens", "0").code == 0
    first, second = daemon.requests["Admit"]
    assert first.HasField("estimated_cost_nusd")
    assert not first.HasField("prompt_tokens")
    assert second.HasField("prompt_tokens")
    assert not second.HasField("estimated_cost_nusd")
    assert not second.HasField("ttl")
    assert first.ask_id < second.ask_id
    assert UUID(first.ask_id).version == 7
    assert UUID(first.ask_id).variant == "specified in RFC 4122"


def test_an_allowed_ask_is_shown_with_its_money(daemon, costctl, allowed):
    daemon.answers["Admit"] = allowed
    out = costctl("admit", "--cost", "0.02", "--utc").out
    assert out.startswith("ALLOW  OK\n")
    for line in (
        r"reservation +00ff",
        r"model +openai/gpt-5 \(premium\)",
        r"holds +\$0\.02, costs at most \$0\.05",
        r"expires +2026-03-01 00:00:00Z \(.+ ago\)|expires +2026-03-01 00:00:00Z \(in .+\)",
        r"tightest +team-month \[team=a\] at 63\.25 %",
        r"price +openai/gpt-5 by catalogue 1\.2",
    ):
        assert re.search(line, out), line


def test_a_denied_ask_says_what_binds_and_ends_with_3(daemon, costctl, denied):
    daemon.answers["Admit"] = denied
    asked = costctl("admit", "--cost", "1", "--utc")
    assert asked.code == 3
    assert asked.out.startswith("DENY  BUDGET_EXHAUSTED\n")
    for line in (
        r"message +budget team-month is used up",
        r"binding +budget team-month \[team=a\] \$9\.99 of \$10\.00, resets 2026-03-01 00:00:00Z",
        r"would pass +openai/nano \(economy\) up to \$0\.000000001",
        r"upgrade +ask finance https://example\.org/more",
        r"grant unused +EXPIRED",
    ):
        assert re.search(line, asked.out), line
    assert "holds" not in asked.out


def test_a_degraded_ask_shows_directives_and_ends_with_0(daemon, costctl, allowed, pb):
    allowed.verdict, allowed.reason = pb.VERDICT_DEGRADE, pb.REASON_STEP
    allowed.tier, allowed.model = "economy", "gpt-5-nano"
    allowed.directives.max_output_tokens = 256
    allowed.directives.max_retries = 0
    allowed.directives.cache = True
    allowed.shadow_verdict, allowed.shadow_reason = pb.VERDICT_DENY, pb.REASON_STEP_DENY
    allowed.replayed, allowed.state = True, pb.RESERVATION_STATE_SETTLED
    daemon.answers["Admit"] = allowed
    asked = costctl("admit", "--cost", "1")
    assert asked.code == 0
    assert asked.out.startswith("DEGRADE  STEP  (answered before; nothing new is held)")
    assert "directives   max_output_tokens=256, max_retries=0, cache" in asked.out
    assert re.search(r"asked tier +premium", asked.out)
    assert re.search(r"in shadow +DENY STEP_DENY", asked.out)
    assert re.search(r"state +SETTLED", asked.out)


def test_json_has_every_field_of_the_proto_under_its_own_name(daemon, costctl, denied, pb):
    daemon.answers["Admit"] = denied
    asked = costctl("admit", "--cost", "1", "--json")
    document = asked.json()
    assert asked.code == 3
    assert list(document) == [field.name for field in pb.Decision.DESCRIPTOR.fields]
    assert document["verdict"] == "VERDICT_DENY"
    assert document["binding"]["limit"] == 10_000_000_000
    assert document["ceiling_nusd"] is None
    assert document["price"] is None
    assert document["hold_nusd"] == 0
    assert document["would_pass"][0]["amount_nusd"] == 1


def test_explain_shows_every_candidate_and_rule(daemon, costctl, denied, pb):
    daemon.answers["Explain"] = pb.Explanation(
        decision=denied,
        candidates=[
            pb.CandidateReport(
                tier="premium",
                provider="openai",
                model="gpt-5",
                hold_nusd=20_000_000,
                outcome="ends_search",
                why="team-month does not hold it",
                rules=[
                    pb.RuleReport(
                        binding=denied.binding,
                        passed=False,
                        reason=pb.REASON_BUDGET_EXHAUSTED,
                        note="largest that passes: $0.01",
                    ),
                    pb.RuleReport(
                        binding=pb.Binding(rule="burst", kind="rate", unit="requests", limit=10),
                        passed=True,
                    ),
                ],
            ),
            pb.CandidateReport(tier="economy", outcome="not_offered", why="dearer for this ask"),
        ],
    )
    asked = costctl("explain", "--cost", "1", "--utc")
    assert asked.code == 3
    for line in (
        r"1\. openai/gpt-5 \(premium\)  would hold \$0\.02  ends search: team-month does not",
        r"FAIL +budget team-month +team=a +\$9\.99 +\$10\.00 +2026-03-01 00:00:00Z +BUDGET_EXH",
        r"BUDGET_EXHAUSTED +largest that passes: \$0\.01",
        r"pass +rate burst +0 requests +10 requests",
        r"2\. economy  would hold \$0\.00  not offered: dearer for this ask",
    ):
        assert re.search(line, asked.out), line
    document = costctl("explain", "--cost", "1", "--json").json()
    assert [each["outcome"] for each in document["candidates"]] == ["ends_search", "not_offered"]


@pytest.fixture
def settled(pb):
    return pb.Settlement(
        reservation_id="00ff",
        state=pb.RESERVATION_STATE_SETTLED,
        cost_nusd=30_000_000,
        hold_nusd=20_000_000,
        overrun_nusd=10_000_000,
        late=True,
    )


def test_settle_sends_usage_with_zero_apart_from_unknown(daemon, costctl, settled):
    daemon.answers["Settle"] = settled
    done = costctl(
        "settle", "00ff", "--prompt-tokens", "1,200", "--cached-tokens", "0",
        "--output-tokens", "40", "--unit", "web_searches=2", "--duration", "812ms",
        "--outcome", "cancelled", "--retries", "2", "--provider", "openai", "--model", "gpt-5",
    )  # fmt: skip
    assert done.code == 0
    request = daemon.last("Settle")
    assert request.reservation_id == "00ff"
    assert request.usage.prompt_tokens == 1_200
    assert request.usage.HasField("cached_tokens")
    assert not request.usage.HasField("reasoning_tokens")
    assert not request.HasField("cost_nusd")
    assert dict(request.usage.units) == {"web_searches": 2}
    assert request.duration.ToNanoseconds() == 812_000_000
    assert (request.outcome, request.retry_count, request.model) == (3, 2, "gpt-5")
    assert done.out.startswith("SETTLED\n")
    assert re.search(r"overrun +\$0\.01", done.out)
    assert "it had expired" in done.out


def test_settle_at_a_cost_sends_no_usage(daemon, costctl, settled):
    daemon.answers["Settle"] = settled
    assert costctl("settle", "00ff", "--cost", "$0.03", "--json").json()["cost_nusd"] == 30_000_000
    request = daemon.last("Settle")
    assert request.cost_nusd == 30_000_000
    assert not request.HasField("usage")
    assert not request.HasField("duration")


@pytest.mark.parametrize("options", [(), ("--cost", "1", "--output-tokens", "5")])
def test_settle_wants_either_a_cost_or_usage(daemon, costctl, options):
    for command in (("settle", "00ff"), ("record",)):
        done = costctl(*command, *options)
        assert done.code == 2
        assert "either --cost or the usage" in done.err
    assert not daemon.requests


def test_void_closes_at_zero(daemon, costctl, pb):
    daemon.answers["Void"] = pb.Settlement(
        reservation_id="00ff", state=pb.RESERVATION_STATE_VOIDED, replayed=True
    )
    done = costctl("void", "00ff")
    assert (done.code, daemon.last("Void").reservation_id) == (0, "00ff")
    assert done.out.startswith("VOIDED  (done before; nothing changed)")


def test_record_sends_what_happened_and_when(daemon, costctl, settled):
    daemon.answers["Record"] = settled
    done = costctl(
        "record", "--class", "draft", "-l", "team=a", "-m", "gpt-5", "--cost", "1.50",
        "--happened", "2026-03-01T10:00:00Z", "--duration", "2s", "--caller", "backfill",
        "--record-id", "backfill-2026-03-01-1", "--batch", "--cost-kind", "image",
    )  # fmt: skip
    assert done.code == 0
    request = daemon.last("Record")
    assert (request.record_id, request.task_class) == ("backfill-2026-03-01-1", "draft")
    assert request.happened_ns == 1_772_359_200 * SECOND_NS
    assert (request.cost_nusd, request.batch, request.cost_kind) == (1_500_000_000, True, "image")
    assert request.duration.ToNanoseconds() == 2 * SECOND_NS
    assert daemon.callers["Record"] == "backfill"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cost", "cheap"), "'cheap' is not an amount in dollars"),
        (("--cost", "-1"), "outside $0.00"),
        (("--cost", "NaN"), "not a finite amount"),
        (("--cost", "0.0000000001"), "more than nine decimals"),
        (("--prompt-tokens", "many"), "write a whole number like 512"),
        (("--ttl", "10"), "not a duration; write it like 90s"),
        (("--label", "team"), "'team' is not key=value"),
        (("--label", "=a"), "'=a' is not key=value"),
        (("--label", "team=a", "--label", "team=b"), "'team' is given twice"),
        (("--unit", "images=x"), "images: 'x' cannot be read"),
        (("--colour", "red"), "No such option"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_to_write(daemon, costctl, options, said):
    asked = costctl("admit", *options)
    assert asked.code == 2
    assert said in " ".join(asked.err.replace("│", " ").split())
    assert not daemon.requests


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 1),
        (grpc.StatusCode.PERMISSION_DENIED, 1),
        (grpc.StatusCode.INTERNAL, 1),
        (grpc.StatusCode.NOT_FOUND, 4),
        (grpc.StatusCode.FAILED_PRECONDITION, 4),
        (grpc.StatusCode.ALREADY_EXISTS, 4),
    ],
)
def test_a_grpc_error_becomes_one_line_and_an_exit_code(daemon, costctl, status, code):
    daemon.answers["Settle"] = (status, "reservation 00ff: what, where, what to do\x1b[31m")
    done = costctl("settle", "00ff", "--cost", "1")
    assert done.code == code
    assert done.out == ""
    expected = f"costctl: {status.name}: reservation 00ff: what, where, what to do\\x1b[31m\n"
    assert done.err == expected


@pytest.mark.parametrize(
    "status",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    ],
)
def test_a_daemon_that_is_not_ready_ends_with_5(daemon, costctl, status):
    daemon.answers["Admit"] = (status, "starting")
    asked = costctl("admit", "--cost", "1")
    assert asked.code == 5
    assert asked.err == (
        f"costctl: somebody is at {daemon.address}, but cannot answer this now: starting\n"
    )


def test_the_wrong_socket_says_that_there_are_two(daemon, costctl):
    asked = costctl("admit", "--cost", "1", "--address", daemon.control)
    assert asked.code == 1
    assert "does not offer this service" in asked.err
    assert "--address or COSTD_ADDRESS" in asked.err


def test_a_grant_file_that_is_not_there_is_named(costctl):
    asked = costctl("admit", "--cost", "1", "--grant", "@/no/such/file")
    assert asked.code == 1
    assert "/no/such/file cannot be read: No such file or directory" in asked.err
