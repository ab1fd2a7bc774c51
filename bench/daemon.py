"""The real daemon as a process: started, asked, killed."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from costd.daemon.sockets import is_answered
from costd.wire.pb import admission_pb2_grpc as rpc

START_S_MAX: Final = 60.0
STOP_S_MAX: Final = 30.0
_LOOK_EVERY_S: Final = 0.001
_KIB_PER_MIB: Final = 1024


class DaemonFailed(Exception):  # noqa: N818  reads as the sentence it is
    """The daemon ended by itself; carries the end of its log."""


class Daemon:
    """`costd serve` on a data directory, one process after the other on the same sockets."""

    def __init__(self, directory: Path, policy: str, *, data: Path | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.socket = directory / "costd.sock"
        self.control_socket = directory / "control.sock"
        self.data = data or directory / "data"
        self._log = directory / "daemon.log"
        policy_path = directory / "policy.yaml"
        policy_path.write_text(policy)
        self._command = [
            *(sys.executable, "-m", "costd.cli.costd", "serve"),
            *("--policy", str(policy_path), "--data", str(self.data), "--name", "bench"),
            *("--socket", str(self.socket), "--control-socket", str(self.control_socket)),
            *("--metrics-listen", "off", "--claims", "*", "--log-level", "warning"),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where agents ask, as gRPC writes it."""
        return f"unix:{self.socket}"

    @property
    def control_address(self) -> str:
        """Where operators ask, as gRPC writes it."""
        return f"unix:{self.control_socket}"

    def spawn(self) -> None:
        """Start the process and return at once."""
        assert self.process is None, "it runs already"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def await_socket(self) -> None:
        """Return once somebody listens.

        Errors: DaemonFailed if it ended instead, or took too long.
        """
        give_up = time.monotonic() + START_S_MAX
        while not (self.socket.exists() and is_answered(self.socket)):
            self.look_alive()
            if time.monotonic() > give_up:
                raise DaemonFailed(f"the daemon did not listen within {START_S_MAX:.0f} s")
            time.sleep(_LOOK_EVERY_S)

    def look_alive(self) -> None:
        """Check that nothing ended it but us.

        Errors: DaemonFailed with the end of its log.
        """
        if self.process is not None and self.process.poll() is not None:
            said = self._log.read_text(errors="replace")[-2_000:]
            raise DaemonFailed(f"the daemon ended with {self.process.returncode}:\n{said}")

    def kill(self) -> None:
        """Kill -9, and take the body away."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        assert self.process is not None, "it does not run"
        self.process.terminate()
        code = self.process.wait(STOP_S_MAX)
        self.process = None
        return code

    def rss_mib(self) -> float:
        """Read the process's resident memory from the kernel."""
        assert self.process is not None, "it does not run"
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / _KIB_PER_MIB


@contextmanager
def running(daemon: Daemon) -> Iterator[Daemon]:
    """Run a daemon until the end of the block; it is killed whatever happens."""
    daemon.spawn()
    try:
        daemon.await_socket()
        yield daemon
    finally:
        daemon.kill()


@contextmanager
def asking(daemon: Daemon) -> Iterator[Any]:
    """Connect to a daemon that listens."""
    with grpc.insecure_channel(daemon.address) as channel:
        yield admission_stub(channel)


def admission_stub(channel: grpc.Channel | grpc.aio.Channel) -> Any:
    """Make the generated stub; blocking or asynchronous, as the channel is."""
    return rpc.AdmissionStub(channel)  # type: ignore[no-untyped-call]  # generated without types
