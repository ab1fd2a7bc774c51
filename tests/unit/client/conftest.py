"""A scripted `Admission` on a Unix socket, and the fake provider."""

# ruff: noqa: N802 - gRPC looks for methods by these names

from collections import deque
from concurrent import futures
from dataclasses import dataclass, field

import grpc
import pytest
from costd_client import Client
from costd_client.pb import admission_pb2 as pb
from costd_client.pb.admission_pb2_grpc import AdmissionServicer, add_AdmissionServicer_to_server

from costd.testing.fake_provider import FakeProvider

RESERVATION_LIFETIME_NS = 600 * 10**9


@dataclass
class FakeAdmission(AdmissionServicer):
    """Admits everything unless scripted, remembers everything, and keeps a small ledger."""

    received: list = field(default_factory=list)
    callers: list = field(default_factory=list)
    states: dict = field(default_factory=dict)
    scripts: dict = field(default_factory=dict)
    answers: dict = field(default_factory=dict)

    def then(self, method, *replies):
        """Script the next replies of a method: a message, a status, or a function."""
        self.scripts.setdefault(method, deque()).extend(replies)

    def of(self, method):
        """The requests of one method so far."""
        return [request for name, request in self.received if name == method]

    def _answer(self, method, request, context, default):
        self.received.append((method, request))
        self.callers.append(dict(context.invocation_metadata()).get("costd-caller"))
        script = self.scripts.get(method)
        reply = script.popleft() if script else default
        if isinstance(reply, grpc.StatusCode):
            context.abort(reply, f"scripted {reply.name}")
        return reply(request) if callable(reply) else reply

    def Admit(self, request, context):
        return self._answer("Admit", request, context, self._admit)

    def _admit(self, request):
        if request.ask_id not in self.answers:
            self.answers[request.ask_id] = pb.Decision(
                verdict=pb.VERDICT_ALLOW,
                reason=pb.REASON_OK,
                ask_id=request.ask_id,
                reservation_id=f"res-{request.ask_id}",
                provider=request.provider,
                model=request.model,
                hold_nusd=1_000,
                source="daemon",
            )
            self.states[f"res-{request.ask_id}"] = "held"
        return self.answers[request.ask_id]

    def Settle(self, request, context):
        return self._answer("Settle", request, context, self._settle)

    def _settle(self, request):
        self.states[request.reservation_id] = "settled"
        return pb.Settlement(
            reservation_id=request.reservation_id,
            state=pb.RESERVATION_STATE_SETTLED,
            cost_nusd=request.cost_nusd or 77,
        )

    def Void(self, request, context):
        return self._answer("Void", request, context, self._void)

    def _void(self, request):
        self.states[request.reservation_id] = "voided"
        return pb.Settlement(
            reservation_id=request.reservation_id, state=pb.RESERVATION_STATE_VOIDED
        )

    def Extend(self, request, context):
        return self._answer("Extend", request, context, pb.Extension(extended=True))

    def Record(self, request, context):
        reply = pb.Settlement(state=pb.RESERVATION_STATE_SETTLED, cost_nusd=5)
        return self._answer("Record", request, context, reply)

    def Attach(self, messages, context):
        """Knows no allowances, as an older daemon."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "no allowances here")

    def Explain(self, request, context):
        return self._answer("Explain", request, context, pb.Explanation())


class FakeDaemon:
    """The servicer with a socket that can be taken away and given back."""

    def __init__(self, folder):
        self.address = f"unix:{folder}/costd.sock"
        self.admission = FakeAdmission()
        self._server = None

    def start(self):
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        add_AdmissionServicer_to_server(self.admission, self._server)
        assert self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self):
        if self._server:
            self._server.stop(grace=None).wait()
            self._server = None


@pytest.fixture
def daemon(tmp_path):
    daemon = FakeDaemon(tmp_path)
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def admission(daemon):
    return daemon.admission


@pytest.fixture
def client(daemon):
    with Client(daemon.address, caller="unit-test") as client:
        yield client


@pytest.fixture
def provider():
    with FakeProvider() as provider:
        yield provider
