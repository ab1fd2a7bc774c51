"""Services driven by grpcio-testing, which drives sync servicers: requests in, replies out."""

import grpc
import grpc_testing
import pytest

from costd.daemon.admission import AdmissionService
from costd.daemon.books.asking import Trust
from costd.daemon.books.ledger import Ledger
from costd.errors import CostdError
from costd.policy import parse_policy
from costd.testing import FakeClock, MemoryStore
from costd.wire.pb import admission_pb2 as pb
from costd.wire.status import details_of, status_of

POLICY = """
version: 1
tiers:
  premium: {models: [openai/gpt-4o]}
task_classes:
  draft: {}
default_task_class: draft
budgets:
  - {id: day, window: day, limit: $1}
"""
ADMISSION = pb.DESCRIPTOR.services_by_name["Admission"]


class SyncServicer:
    """Puts a service behind the sync servicer interface, with errors as statuses."""

    def __init__(self, service: AdmissionService) -> None:
        self._service = service

    def __getattr__(self, rpc: str):
        respond = getattr(self._service, rpc)

        def handle(request, context):
            caller = dict(context.invocation_metadata()).get("costd-caller", "")
            try:
                return respond(request, caller)
            except CostdError as error:
                context.set_code(status_of(error))
                context.set_details(details_of(error))
                return None

        return handle


@pytest.fixture
def ask():
    store, clock = MemoryStore(), FakeClock()
    ledger = Ledger(store, parse_policy(POLICY, "p.yaml"), clock, trust=Trust())
    servicer = SyncServicer(AdmissionService(ledger))
    server = grpc_testing.server_from_dictionary(
        {ADMISSION: servicer}, grpc_testing.strict_real_time()
    )

    def call(rpc, request, caller="tests"):
        method = ADMISSION.methods_by_name[rpc]
        metadata = (("costd-caller", caller),)
        reply, _, code, details = server.invoke_unary_unary(
            method, metadata, request, None
        ).termination()
        return reply, code, details

    return call


def admit(number, **fields):
    ask_id = f"ask-{number:016d}"
    return pb.AdmitRequest(ask_id=ask_id, model="gpt-4o", provider="openai", **fields)


def test_an_ask_is_admitted_settled_and_settled_again(ask):
    request = admit(1, prompt_tokens=1000, max_output_tokens=100)
    decision, code, _ = ask("Admit", request)
    assert (code, decision.verdict, decision.reason) == (
        grpc.StatusCode.OK, pb.VERDICT_ALLOW, pb.REASON_OK,
    )  # fmt: skip
    usage = pb.Usage(prompt_tokens=1000, output_tokens=50)
    request = pb.SettleRequest(reservation_id=decision.reservation_id, usage=usage)
    settled, code, _ = ask("Settle", request)
    assert (code, settled.cost_nusd, settled.replayed) == (grpc.StatusCode.OK, 3_000_000, False)
    assert ask("Settle", request)[0].replayed


def test_a_refusal_is_an_answer_and_a_bad_ask_a_status(ask):
    refused, code, _ = ask("Admit", admit(1, estimated_cost_nusd=2_000_000_000))
    assert (code, refused.verdict) == (grpc.StatusCode.OK, pb.VERDICT_DENY)
    _, code, details = ask("Admit", admit(2, estimated_cost_nusd=-1))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "estimated_cost_nusd" in details


def test_two_callers_may_use_the_same_id(ask):
    request = admit(1, estimated_cost_nusd=1)
    one, two = ask("Admit", request, "one")[0], ask("Admit", request, "two")[0]
    assert one.reservation_id != two.reservation_id
    assert not two.replayed
    again = admit(1, estimated_cost_nusd=2)
    assert ask("Admit", again, "one")[1] is grpc.StatusCode.ALREADY_EXISTS


def test_a_call_that_grows_is_extended_until_it_does_not_fit_and_may_be_voided(ask):
    held = ask("Admit", admit(1, estimated_cost_nusd=400_000_000))[0]
    more = pb.ExtendRequest(reservation_id=held.reservation_id, additional_cost_nusd=500_000_000)
    grown = ask("Extend", more)[0]
    assert (grown.extended, grown.hold_nusd) == (True, 900_000_000)
    stopped = ask("Extend", more)[0]
    assert (stopped.extended, stopped.directives.stop) == (False, True)
    assert stopped.binding.rule == "day"
    voided = ask("Void", pb.VoidRequest(reservation_id=held.reservation_id))[0]
    assert (voided.state, voided.cost_nusd) == (pb.RESERVATION_STATE_VOIDED, 0)


def test_a_record_is_charged_once_and_an_explanation_holds_nothing(ask):
    record = pb.RecordRequest(record_id="record-0000000001", cost_nusd=999_999_999)
    assert not ask("Record", record)[0].replayed
    assert ask("Record", record)[0].replayed
    explained = ask("Explain", admit(1, estimated_cost_nusd=2))[0]
    assert explained.decision.verdict == pb.VERDICT_DENY
    assert [rule.binding.rule for rule in explained.candidates[0].rules] == ["day"]
    assert ask("Admit", admit(2, estimated_cost_nusd=1))[0].verdict == pb.VERDICT_ALLOW
