"""The real daemon under the measured policy, and a client of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from bench.workload import policy_text
from costd.testing import DaemonProcess
from costd.wire.pb import admission_pb2_grpc as rpc
from costd.wire.pb import control_pb2_grpc as control

_KIB_PER_MIB: Final = 1024


def measured_daemon(
    directory: Path, policy: str | None = None, more_flags: Sequence[str] = ()
) -> DaemonProcess:
    """Make a daemon, not yet started, whose books stand in `directory/data`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "policy.yaml"
    path.write_text(policy if policy is not None else policy_text())
    flags = ("--name", "bench", "--claims", "*", "--metrics-listen", "off")
    return DaemonProcess(path, *flags, *more_flags, directory=directory)


@contextmanager
def asking(daemon: DaemonProcess) -> Iterator[Any]:
    """Connect to a daemon that listens, blocking."""
    with grpc.insecure_channel(daemon.address) as channel:
        yield admission_stub(channel)


@contextmanager
def operating(daemon: DaemonProcess) -> Iterator[Any]:
    """Connect to its control service, blocking."""
    with grpc.insecure_channel(daemon.control_address) as channel:
        yield control.ControlStub(channel)  # type: ignore[no-untyped-call]  # generated


def admission_stub(channel: grpc.Channel | grpc.aio.Channel) -> Any:
    """Make the generated stub; blocking or asynchronous, as the channel is."""
    return rpc.AdmissionStub(channel)  # type: ignore[no-untyped-call]  # generated without types


def rss_mib(pid: int) -> float:
    """Read a process's resident memory from the kernel."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / _KIB_PER_MIB
