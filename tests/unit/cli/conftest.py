"""costctl against a scripted daemon: real gRPC on a unix socket, answers set by each test."""

import json
from concurrent import futures
from types import SimpleNamespace

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from typer.testing import CliRunner

from costd.cli.costctl import app
from costd.wire.pb import (
    admission_pb2,
    admission_pb2_grpc,
    control_pb2,
    control_pb2_grpc,
    fleet_control_pb2,
    fleet_control_pb2_grpc,
)

UNKNOWN_METHOD = (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


class ScriptedDaemon:
    """Answers each method with what the test put under its name, and keeps every request.

    An answer that is a (StatusCode, details) pair becomes a gRPC error; one that can be called
    is given the context, and returns the answer. What has no answer is not served.
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
        answer = self.answers.get(method, UNKNOWN_METHOD)
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


def _served(scripted, addresses):
    servers = []
    for address, services in addresses.items():
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
        healthy = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        for module in services:
            name = next(name for name in vars(module) if name.endswith("Servicer"))
            base = getattr(module, name)
            getattr(module, f"add_{name}_to_server")(_servicer(base, scripted), server)
            service = f"costd.v1.{name.removesuffix('Servicer')}"
            healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
        server.add_insecure_port(address)
        server.start()
        servers.append(server)
    yield scripted
    for server in servers:
        server.stop(None).wait()


@pytest.fixture
def daemon(tmp_path):
    """Serve both services, each on its own socket, as the real daemon does."""
    scripted = ScriptedDaemon(tmp_path)
    addresses = {scripted.address: [admission_pb2_grpc], scripted.control: [control_pb2_grpc]}
    yield from _served(scripted, addresses)


@pytest.fixture
def coordinator(tmp_path):
    """Serve what operators ask of a coordinator, where commands of a fleet look for one."""
    scripted = ScriptedDaemon(tmp_path)
    scripted.control = f"unix:{tmp_path}/coordinator.sock"
    yield from _served(scripted, {scripted.control: [control_pb2_grpc, fleet_control_pb2_grpc]})


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
def fleetctl(costctl, coordinator):
    """Run costctl at the scripted coordinator."""

    def run(*arguments, env=None, **more):
        return costctl(
            *arguments, env={"COSTD_CONTROL_ADDRESS": coordinator.control} | (env or {}), **more
        )

    return run


@pytest.fixture
def pb():
    """All files' messages under one name."""
    return SimpleNamespace(**vars(admission_pb2) | vars(fleet_control_pb2) | vars(control_pb2))
