"""A real daemon of the demo's own: started, reached, stopped; nothing outside its directory."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from costd.cli.connection import MESSAGE_BYTES_MAX
from costd.clock import ticks_ns
from costd.model.time import NS_PER_S
from costd.wire.pb import control_pb2 as pb
from costd.wire.pb.control_pb2_grpc import ControlStub

DAEMON_NAME = "demo"
START_S = 30
"""A start takes about a second; a busy machine may need several."""
STOP_S = 20
LOG_SHOWN_BYTES = 2_000


class DemoFailed(Exception):
    """The demo cannot go on; says why and where to look."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A running daemon and the directory everything of this run is in."""

    folder: Path
    address: str
    control: ControlStub
    daemon: subprocess.Popen[bytes]

    def problem(self) -> str:
        """Say why the daemon is gone; empty while it runs."""
        code = self.daemon.poll()
        return "" if code is None else f"the daemon ended with code {code}:\n{tail(self.folder)}"

    def pass_time(self, seconds: float) -> None:
        """Let time pass.

        Errors:  DemoFailed if the daemon ends meanwhile.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.daemon.wait(seconds)
        if self.problem():
            raise DemoFailed(self.problem())


@contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """Make a directory for the run; it goes away at the end unless it is kept.

    Ensures: sockets have a short path, whatever `keep` is.
    Errors:  DemoFailed if `keep` cannot be written.
    """
    folder = Path(tempfile.mkdtemp(prefix="costd-demo-"))
    try:
        yield folder
    finally:
        try:
            if keep is not None:
                _keep(folder, keep)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _keep(folder: Path, keep: Path) -> None:
    try:
        keep.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            if file.is_file():
                shutil.copy2(file, keep / file.name)
    except OSError as error:
        raise DemoFailed(f"--keep {keep}: {error.strerror}; name another directory") from error


@contextmanager
def running(folder: Path, policy: str) -> Iterator[Stage]:
    """Run a daemon with this policy on a Unix socket until the block ends.

    Errors:  DemoFailed with the end of its log if it does not start.
    """
    policy_path = folder / "policy.yaml"
    policy_path.write_text(policy)
    with (folder / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(  # noqa: S603  our own daemon
            _command(folder, policy_path),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=plain_environment(),
            # Ctrl-C is for the demo, which then stops its daemon itself.
            start_new_session=True,
        )
    options = (
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    )
    try:
        with grpc.insecure_channel(f"unix:{folder}/control.sock", options=options) as channel:
            control = ControlStub(channel)  # type: ignore[no-untyped-call]  # generated
            stage = Stage(folder, f"unix:{folder}/costd.sock", control, daemon)
            _await_ready(stage)
            yield stage
    finally:
        _stop(daemon)


def plain_environment() -> dict[str, str]:
    """Copy the environment without settings meant for another daemon or client."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COSTD_")}


def tail(folder: Path, name: str = "daemon.log") -> str:
    """Read the end of a log."""
    with (folder / name).open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_SHOWN_BYTES))
        return log.read().decode(errors="replace").strip()


def _command(folder: Path, policy: Path) -> list[str]:
    settings = {
        "policy": policy,
        "data": folder / "data",
        "socket": folder / "costd.sock",
        "control-socket": folder / "control.sock",
        "metrics-listen": "off",
        "claims": "*",
        "name": DAEMON_NAME,
    }
    flags = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "costd.cli.costd", "serve", *flags]


def _await_ready(stage: Stage) -> None:
    deadline_ns = ticks_ns() + START_S * NS_PER_S
    while True:
        if stage.problem():
            raise DemoFailed(stage.problem())
        try:
            stage.control.GetStatus(pb.GetStatusRequest(), timeout=1, wait_for_ready=True)
        except grpc.RpcError as error:
            if ticks_ns() > deadline_ns:
                raise DemoFailed(
                    f"the daemon does not answer after {START_S} s:\n{tail(stage.folder)}"
                ) from error
        else:
            return


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    if daemon.poll() is None:
        daemon.terminate()
    try:
        daemon.wait(STOP_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
