"""`costd health`: ask whether a daemon or a coordinator serves; for probes and scripts."""

import os
from typing import Annotated, Final

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from costd.cli.address import ADDRESS_VARIABLE, default_address, grpc_target, is_local

NOT_HEALTHY: Final = 1
_ALIVE: Final = grpc.StatusCode.RESOURCE_EXHAUSTED
"""Whoever says that too many calls are open serves; ending them would help nobody."""


def health(
    *,
    address: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Who is asked: a socket's path, unix:PATH, or host:port without TLS. Default: "
            "COSTD_ADDRESS, else COSTD_SOCKET, else where `costd serve` listens.",
            show_default=False,
        ),
    ] = "",
    timeout_s: Annotated[
        float, typer.Option(min=0.1, max=60.0, help="How long an answer may take, in s.")
    ] = 2.0,
) -> None:
    """Exit with 0 if a daemon or coordinator serves; else with 1, and a line that says why not.

    A daemon serves while it decides, whatever its coordinator does; it does not while it waits
    for its first policy, or drains.
    """
    problem = problem_at(
        grpc_target(address or os.environ.get(ADDRESS_VARIABLE) or default_address()), timeout_s
    )
    if problem:
        typer.echo(f"costd: {problem}", err=True)
        raise typer.Exit(NOT_HEALTHY)


def problem_at(target: str, timeout_s: float) -> str:
    """Say why whoever is at an address does not serve; empty if they do."""
    options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(target, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            return "" if error.code() is _ALIVE else _why(target, error, timeout_s)
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return f"{target} answers {status}: it is starting, or drains"


def _why(target: str, error: grpc.RpcError, timeout_s: float) -> str:
    code, details = error.code(), error.details() or "no details given"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"{target} did not answer within {timeout_s:g} s"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{target} is no costd: it does not tell of its health"
    if code is grpc.StatusCode.UNAVAILABLE and is_local(target):
        return f"nobody serves {target} (yet): {details}"
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"{target} cannot be reached without TLS: {details}"
    return f"{target} answered {code.name}: {details}"
