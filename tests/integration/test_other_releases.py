"""Clients and daemons of other releases: what each side says, and that nothing is bought unmetered."""

from concurrent import futures

import grpc
import pytest
from costd_client import Client, Denied, Reason, Verdict
from costd_client.errors import DaemonFailed
from desk import Desk, ask, new_id

from costd import __version__
from costd.wire.pb import admission_pb2 as pb
from costd.wire.pb import fleet_pb2
from costd.wire.pb.admission_pb2_grpc import AdmissionServicer, add_AdmissionServicer_to_server

FIELD_OF_TOMORROW = b"\xc2\x3e\x05hello"
"""Field 1000, a text."""


@pytest.fixture(scope="module")
def desk(daemon):
    desk = Desk(daemon)
    yield desk
    desk.close()


class Tomorrow(AdmissionServicer):
    """A daemon of a later release, with verdicts, reasons and fields that nobody knows yet."""

    def __init__(self):
        self.verdict = pb.VERDICT_ALLOW

    def Admit(self, request, _context):  # noqa: N802  gRPC names it
        sound = pb.Decision(
            ask_id=request.ask_id, reservation_id=new_id(), model=request.model, hold_nusd=1
        )
        raw = sound.SerializeToString() + FIELD_OF_TOMORROW
        decision = pb.Decision.FromString(raw)
        decision.verdict, decision.reason = self.verdict, 99
        return decision

    def Settle(self, _request, _context):  # noqa: N802
        return pb.Settlement(state=99, cost_nusd=7)


@pytest.fixture
def served(tmp_path):
    """Serve something at a socket; return a client of it."""
    made = []

    def serve(servicer):
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
        if servicer is not None:
            add_AdmissionServicer_to_server(servicer, server)
        server.add_insecure_port(f"unix:{tmp_path}/costd.sock")
        server.start()
        client = Client(f"unix:{tmp_path}/costd.sock", caller="test", fail_mode="open")
        made.extend((client.close, lambda: server.stop(None).wait()))
        return client

    yield serve
    for close in made:
        close()


# ---- newer callers of this daemon ---------------------------------------------------------------


def test_fields_of_a_newer_client_are_ignored(desk):
    raw = ask(0.01).SerializeToString() + FIELD_OF_TOMORROW
    admit = desk.channel.unary_unary(
        "/costd.v1.Admission/Admit", response_deserializer=pb.Decision.FromString
    )
    decision = admit(raw)
    assert decision.reservation_id
    assert admit(raw).reservation_id == decision.reservation_id
    desk.void(decision.reservation_id)


def test_a_newer_client_s_outcome_is_refused_and_the_call_can_be_settled_without(desk):
    held = desk.hold(0.01)
    code, said = desk.refusal(desk.settle, held, 0.01, outcome=9)
    assert code == "INVALID_ARGUMENT"
    assert "a newer client needs a newer daemon" in said
    assert desk.settle(held, 0.01).cost_nusd == 10_000_000


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (
            "/costd.v1.Admission/Guess",
            f"this daemon (costd {__version__}) has no costd.v1.Admission/Guess: whoever asks is",
        ),
        ("/costd.v1.Control/GetStatus", "costd.v1.Control is not served at this address"),
        ("/costd.v9.Admission/Admit", "costd.v9.Admission is not served at this address"),
        ("/envoy.service.auth.v3.Authorization/Check", "is nothing that this daemon (costd"),
        ("/Admit", "'/Admit' is nothing that this daemon"),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_what_this_daemon_does_not_serve_it_says(desk, path, says, streams):
    if streams:
        call = desk.channel.stream_stream(path)
        code, said = desk.refusal(lambda: list(call(iter([b""] * 3), timeout=10)))
    else:
        code, said = desk.refusal(desk.channel.unary_unary(path), b"\xff", timeout=10)
    assert code == "UNIMPLEMENTED"
    assert says in said


def test_a_coordinator_says_so_too(fleet):
    (coordinator,) = fleet("version: 1\nbudgets: []\n").start(daemons=0).coordinators
    with grpc.insecure_channel(coordinator.listen) as channel:
        for path, says in (
            ("/costd.v1.Fleet/Guess", "this coordinator (costd"),
            ("/costd.v1.Admission/Admit", "not served at this address of this coordinator"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(path)(fleet_pb2.ToCoordinator().SerializeToString(), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert says in caught.value.details()


# ---- newer and older daemons of this client -----------------------------------------------------


def test_a_verdict_that_this_client_does_not_know_allows_nothing(served):
    tomorrow = Tomorrow()
    client = served(tomorrow)
    tomorrow.verdict = 9
    decision = client.admit(task_class="draft", model="gpt-4o", estimated_cost_nusd=1)
    assert (decision.verdict, decision.reason) == (Verdict.UNKNOWN, Reason.UNKNOWN)
    assert not decision.allowed
    assert "UNKNOWN" in repr(decision)
    with pytest.raises(Denied), client.call(task_class="draft", estimated_cost_nusd=1):
        pytest.fail("the call was made")


def test_what_else_is_new_in_an_answer_does_no_harm(served):
    client = served(Tomorrow())
    decision = client.admit(task_class="draft", model="gpt-4o", estimated_cost_nusd=1)
    assert decision.allowed
    assert decision.reason is Reason.UNKNOWN
    settlement = client.settle(decision, cost_nusd=7)
    assert repr(settlement) == "<Settlement state 99 cost_nusd=7>"


def test_a_daemon_that_is_too_old_is_named_and_never_fails_open(served):
    client = served(None)
    with pytest.raises(DaemonFailed, match="older than this client") as caught:
        client.admit(task_class="draft", model="gpt-4o", estimated_cost_nusd=1)
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
    assert "upgraded" in str(caught.value)
