"""A million users must not make a million series: whatever callers make up, metrics stay as many."""

import urllib.request

import grpc
import pytest
from costd_client import Client
from prometheus_client.parser import text_string_to_metric_families

from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import control_pb2 as cpb
from costd.wire.pb.admission_pb2_grpc import AdmissionStub
from costd.wire.pb.control_pb2_grpc import ControlStub

STRANGERS_COUNT = 500
"""Each with a user, an agent, a run, a label, a caller, two providers and two models of its own."""
POLICY = """\
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
  economy: {models: [openai/gpt-4o-mini]}
task_classes: {draft: {}, chat: {}}
default_task_class: draft
budgets:
  - {id: everything, window: month, limit: $1000}
  - {id: user-day, per: user, window: day, limit: $1}
  - {id: run, per: [run, agent], window: run, limit: $1}
prices:
  - {models: "*/*", input: $1, output: $1}
rates:
  - {id: calls, per: user, limit: 1000 requests / minute}
"""
USAGE = pb.Usage(prompt_tokens=10, output_tokens=10)


@pytest.fixture
def served(fresh_daemon):
    with fresh_daemon(POLICY, "--claims", "*") as daemon:
        yield daemon


def series(daemon):
    """Every series that a scrape returns, by name and labels."""
    with urllib.request.urlopen(daemon.metrics_url, timeout=30) as reply:
        text = reply.read().decode()
    return {
        (sample.name, *sorted(sample.labels.items()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def refused(call, *arguments, **named):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **named)
    return caught.value.code().name


def strangers(daemon, numbers):
    """Ask, settle and record under names that nobody has heard before."""
    channel = grpc.insecure_channel(daemon.address)
    stub = AdmissionStub(channel)
    for number in numbers:
        labels = {
            "user": f"u{number}",
            "agent": f"a{number}",
            "run": f"r{number}",
            f"l{number}": "x",
        }
        ask = {"labels": labels, "prompt_tokens": 10, "max_output_tokens": 10}
        caller = (("costd-caller", f"caller-{number}"),)
        held = stub.Admit(
            pb.AdmitRequest(
                ask_id=f"ask-of-a-stranger-{number:06}",
                provider=f"p{number}",
                model=f"m{number}",
                **ask,
            ),
            metadata=caller,
        )
        assert held.verdict == pb.VERDICT_ALLOW
        answered = {"provider": f"answered{number}", "model": f"answering{number}"}
        stub.Settle(
            pb.SettleRequest(reservation_id=held.reservation_id, usage=USAGE, **answered),
            metadata=caller,
        )
        stub.Record(
            pb.RecordRequest(
                record_id=f"record-of-a-stranger-{number:06}",
                labels=labels,
                cost_nusd=1000,
                usage=USAGE,
                **answered,
            )
        )
        if number % 20 == 0:
            unknown = pb.AdmitRequest(
                ask_id=f"ask-of-no-class-{number:08}", task_class=f"c{number}", **ask
            )
            assert refused(stub.Admit, unknown) == "INVALID_ARGUMENT"
            nobody = channel.unary_unary(f"/costd.v1.Admission/Method{number}")
            assert refused(nobody, b"") == "UNIMPLEMENTED"
            assert refused(channel.unary_unary(f"/stranger.S{number}/M"), b"") == "UNIMPLEMENTED"
            gone = pb.VoidRequest(reservation_id=f"{number:032x}")
            assert refused(stub.Void, gone) == "NOT_FOUND"
    channel.close()


def clients(daemon, numbers):
    """Attach, draw from an allowance, settle and leave."""
    for number in numbers:
        with Client(
            daemon.address,
            caller=f"client-{number}",
            allowances=True,
            timeout_s=10,
            labels={"user": f"attached{number}"},
        ) as client:
            for _ in range(3):
                decision = client.admit(model=f"m{number}", estimated_cost_nusd=1_000)
                client.settle(decision, prompt_tokens=5, output_tokens=5)


def switches(daemon, numbers):
    stub = ControlStub(grpc.insecure_channel(daemon.control_address))
    for number in numbers:
        stub.EngageKill(
            cpb.EngageKillRequest(
                kill_id=f"k{number}", scope={"user": f"gone{number}"}, reason="test", actor="test"
            )
        )


def test_hundreds_of_strangers_make_no_series_that_a_few_do_not(served):
    for happens in (strangers, clients, switches):
        happens(served, range(2))
    served.wait_for("alert", kind="overrun")
    before = series(served)
    strangers(served, range(2, STRANGERS_COUNT))
    clients(served, range(2, 22))
    switches(served, range(2, 102))
    after = series(served)
    assert after - before == set()
    assert not [each for each in after if "stranger" in str(each) or "answered" in str(each)]
    assert [each for each in after if ("provider", "(other)") in each]


def test_ten_policies_in_a_row_leave_one_revision(served):
    stub = ControlStub(grpc.insecure_channel(served.control_address))
    strangers(served, range(1))
    for number in range(10):
        served.policy.write_text(POLICY.replace("$1000", f"${1001 + number}"))
        stub.ReloadPolicy(cpb.ReloadPolicyRequest())
    found = series(served)
    assert len([each for each in found if each[0] == "costd_policy_info"]) == 1
    budgets = {dict(each[1:])["budget"] for each in found if each[0].startswith("costd_budget_")}
    assert budgets == {"everything", "user-day", "run"}
