"""costctl against a scripted daemon: real gRPC on a unix socket, answers set by each test."""

import json
from concurrent import futures
from types import SimpleNamespace

import grpc
import pytest
from typer.testing import CliRunner

from costd.cli.costctl import app
from costd.wire.pb import admission_pb2, admission_pb2_grpc, control_pb2, control_pb2_grpc


class ScriptedDaemon:
    """Answers each method with what the test put under its name, and keeps every request.

    An answer that is a (StatusCode, details) pair becomes a gRPC error; one that can be called
    is given the context, and returns the answer.
    """

    def __init__(self, directory):
        self.answers = {}
        self.requests = {}
        self.callers = {}
        self.address = f"unix:{directory}/costd.sock"
        self.control = f"unix:{directory}/control.sock"

    def answer(self, method, request, context):
        self.requests.setdefault(method, []).append(request)
        self.callers[method] = dict(context.invocation_metadata()).get("costd-caller", "")
        answer = self.answers[method]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            answer = answer(context)
        if isinstance(answer, tuple):
            context.abort(*answer)
        return answer

    def last(self, method):
        return self.requests[method][-1]


def _servicer(base, daemon):
    """Make a servicer whose every method asks the script."""

    def method(name):
        return lambda _self, request, context: daemon.answer(name, request, context)

    names = [name for name in vars(base) if not name.startswith("_")]
    return type(base.__name__, (base,), {name: method(name) for name in names})()


@pytest.fixture
def daemon(tmp_path):
    """Serve both services, each on its own socket, as the real daemon does."""
    scripted = ScriptedDaemon(tmp_path)
    servers = []
    for base, add, address in (
        (
            admission_pb2_grpc.AdmissionServicer,
            admission_pb2_grpc.add_AdmissionServicer_to_server,
            scripted.address,
        ),
        (
            control_pb2_grpc.ControlServicer,
            control_pb2_grpc.add_ControlServicer_to_server,
            scripted.control,
        ),
    ):
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
        add(_servicer(base, scripted), server)
        server.add_insecure_port(address)
        server.start()
        servers.append(server)
    yield scripted
    for server in servers:
        server.stop(None).wait()


@pytest.fixture
def environ(tmp_path):
    """The variables every command runs under: no colour, a wide screen, no daemon but ours."""
    return {
        "COSTD_ADDRESS": f"unix:{tmp_path}/costd.sock",
        "COSTD_CONTROL_ADDRESS": f"unix:{tmp_path}/control.sock",
        "COLUMNS": "220",
        "NO_COLOR": "1",
        "TZ": "UTC",
    }


@pytest.fixture
def costctl(environ):
    """Run costctl in this process: `costctl("status", "--json")`."""

    def run(*arguments, text=None, env=None):
        result = CliRunner().invoke(
            app, [str(each) for each in arguments], input=text, env=environ | (env or {})
        )
        ended = result.exception is None or isinstance(result.exception, SystemExit)
        if not ended:
            raise result.exception
        return SimpleNamespace(
            code=result.exit_code,
            out=result.stdout,
            err=result.stderr,
            json=lambda: json.loads(result.stdout),
        )

    return run


@pytest.fixture
def pb():
    """Both files' messages under one name."""
    return SimpleNamespace(
        **vars(control_pb2),
        **{
            name: value
            for name, value in vars(admission_pb2).items()
            if not name.startswith("_") and name not in vars(control_pb2)
        },
    )
