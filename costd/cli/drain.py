"""`costd drain`: wait until nobody uses a daemon any more; for a container's preStop."""

import os
import time
from typing import Annotated, Final

import grpc
import typer

from costd.cli.address import CONTROL_VARIABLE, default_control_address, grpc_target
from costd.cli.connection import control
from costd.cli.exits import Failure
from costd.clock import ticks_ns
from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2 as pb
from costd.wire.pb.control_pb2_grpc import ControlStub

STILL_USED: Final = 1
LOOK_EVERY_S: Final = 0.2
ANSWER_S_MIN: Final = 2.0
"""A daemon on a busy host is given so long to answer, also where the wait is over before."""
_BUSY: Final = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "it does not answer",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "it takes no more calls now",
}
"""Whoever cannot tell is there all the same, and may have calls open."""


def drain(
    *,
    address: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="The daemon's control socket: a path, or unix:PATH. Default: "
            "COSTD_CONTROL_ADDRESS, else where `costd serve` puts it.",
            show_default=False,
        ),
    ] = "",
    timeout_s: Annotated[
        float, typer.Option(min=0, max=3_600, help="How long to wait at most, in s.")
    ] = 20.0,
    quiet_s: Annotated[
        float,
        typer.Option(min=0, max=60, help="How long nothing may have been asked or open, in s."),
    ] = 2.0,
) -> None:
    """Wait until nobody uses a daemon any more, which serves on meanwhile.

    That is: no client process is attached, no reservation is open, and nothing was
    asked for --quiet-s. Exit with 0 then, or if no daemon is there; with 1, and a
    line that says what is still open, or that the daemon does not answer, after
    --timeout-s.

    A container that is stopped together with those that ask it does this first
    (`preStop`); a native sidecar need not, since it is stopped after them.
    """
    target = grpc_target(address or os.environ.get(CONTROL_VARIABLE) or default_control_address())
    try:
        open_still = _waited(target, timeout_s=timeout_s, quiet_s=quiet_s)
    except Failure as failure:
        typer.echo(f"costd: {failure}", err=True)
        return
    if open_still:
        typer.echo(f"costd: still used after {timeout_s:g} s: {open_still}", err=True)
        raise typer.Exit(STILL_USED)


def _waited(target: str, *, timeout_s: float, quiet_s: float) -> str:
    """Wait; return what is still open at the end, empty if nothing is.

    Errors: Failure where no daemon is there.
    """
    started_ns = quiet_since_ns = ticks_ns()
    asked_count = -1
    with control(target) as stub:
        while True:
            left_s = timeout_s - (ticks_ns() - started_ns) / NS_PER_S
            open_still, decided_count = _look(stub, max(left_s, ANSWER_S_MIN))
            now_ns = ticks_ns()
            if open_still or decided_count != asked_count:
                quiet_since_ns, asked_count = now_ns, decided_count
            if now_ns - quiet_since_ns >= quiet_s * NS_PER_S:
                return ""
            if now_ns - started_ns >= timeout_s * NS_PER_S:
                return open_still or f"something was asked in the last {quiet_s:g} s"
            time.sleep(LOOK_EVERY_S)


def _look(stub: ControlStub, answer_s: float) -> tuple[str, int]:
    """Ask what somebody still uses, empty if nothing, and how many asks were decided."""
    try:
        status = stub.GetStatus(pb.GetStatusRequest(), timeout=answer_s)
    except grpc.RpcError as error:
        if error.code() in _BUSY:
            return _BUSY[error.code()], -1
        raise
    return _open(status), sum(status.decisions.values())


def _open(status: pb.Status) -> str:
    """Say what somebody still uses; empty if nothing."""
    counted = (
        (status.sessions_attached_count, "attached client processes"),
        (status.open_reservations_count, "open reservations"),
    )
    return ", ".join(f"{count} {what}" for count, what in counted if count)
