"""A real fleet of the demo's own: a coordinator with its PostgreSQL, and daemons that join it."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import grpc
import msgspec

from costd.cli.connection import MESSAGE_BYTES_MAX
from costd.cli.demo.fleet.crew import Crew, Order
from costd.cli.demo.fleet.links import Links
from costd.cli.demo.stage import DemoFailed, plain_environment, tail
from costd.wire.pb.control_pb2_grpc import ControlStub
from costd.wire.pb.fleet_control_pb2_grpc import FleetControlStub

TENURE_S: Final = 3
"""Short, so that a partition outlasts it within seconds."""
STOP_S: Final = 20
FOLDER_MODE: Final = 0o711
"""Where root runs this, PostgreSQL is run by another user, who must get in."""
_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


class Process:
    """A process that may be killed and started again."""

    def __init__(self, folder: Path, name: str, arguments: list[str]) -> None:
        self.name = name
        self._folder = folder
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.starts_count = 0

    @property
    def runs(self) -> bool:
        """Whether it is there now."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; its log goes on where it was."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own
                [sys.executable, "-m", "costd.cli.costd", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=plain_environment(),
                # Ctrl-C is for the demo, which then stops everybody itself.
                start_new_session=True,
            )
        self.starts_count += 1

    def kill(self) -> None:
        """Kill it, -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Make sure that it did not end by itself.

        Errors:  DemoFailed with the end of its log if it did.
        """
        code = None if self._process is None else self._process.poll()
        if code is not None and code != -signal.SIGKILL:
            raise DemoFailed(
                f"{self.name} ended with code {code}:\n{tail(self._folder, self._log.name)}"
            )

    def end(self) -> None:
        """Ask it to stop."""
        if self.runs and self._process is not None:
            self._process.terminate()

    def ended(self) -> None:
        """Wait until it has."""
        if self._process is None:
            return
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    @property
    def _log(self) -> Path:
        return self._folder / f"{self.name}.log"


class Stage:
    """The fleet, the links, the agents, and how to ask them."""

    def __init__(self, folder: Path, policy: Path, count: int, links: Links, port: int) -> None:
        self.folder = folder
        self.links = links
        self.names = names(count)
        self.coordinator = Process(
            folder,
            "coordinator",
            [
                "coordinator", f"--data={folder}/coordinator", f"--policy={policy}",
                f"--listen=127.0.0.1:{port}", f"--control-socket={folder}/coordinator.sock",
                f"--tenure-s={TENURE_S}", "--metrics-listen=off", "--name=demo",
            ],
        )  # fmt: skip
        self.daemons = {name: self._daemon(name) for name in self.names}
        self._channels: dict[str, grpc.Channel] = {}

    @property
    def processes(self) -> list[Process]:
        """Everybody of the fleet; the coordinator comes first."""
        return [self.coordinator, *self.daemons.values()]

    def address(self, daemon: str) -> str:
        """Where agents ask a daemon."""
        return f"unix:{self.folder}/{daemon}.sock"

    def control(self, name: str) -> ControlStub:
        """Ask a daemon or the coordinator as an operator."""
        return ControlStub(self._channel(name))  # type: ignore[no-untyped-call]  # generated

    @property
    def fleet(self) -> FleetControlStub:
        """Ask the coordinator what concerns the fleet."""
        return FleetControlStub(self._channel("coordinator"))  # type: ignore[no-untyped-call]

    def check(self) -> None:
        """Make sure that nobody ended by itself.

        Errors:  DemoFailed if somebody did.
        """
        for process in self.processes:
            process.check()

    def close(self) -> None:
        """Stop everybody; the daemons first, whom the coordinator has to hear."""
        for channel in self._channels.values():
            channel.close()
        for group in ([*self.daemons.values()], [self.coordinator]):
            for process in group:
                process.end()
            for process in group:
                process.ended()

    def _daemon(self, name: str) -> Process:
        folder = self.folder
        return Process(
            folder,
            name,
            [
                "serve", f"--name={name}", f"--data={folder}/{name}", "--coordinator-insecure",
                f"--coordinator=127.0.0.1:{self.links.port(name)}", "--metrics-listen=off",
                f"--socket={folder}/{name}.sock", f"--control-socket={folder}/{name}-control.sock",
            ],
        )  # fmt: skip

    def _channel(self, name: str) -> grpc.Channel:
        if name not in self._channels:
            socket_name = "coordinator.sock" if name == "coordinator" else f"{name}-control.sock"
            target = f"unix:{self.folder}/{socket_name}"
            self._channels[name] = grpc.insecure_channel(target, options=_OPTIONS)
        return self._channels[name]


class Agents:
    """The worker process, and its journal."""

    def __init__(self, folder: Path, crew: Crew) -> None:
        self._folder = folder
        with (folder / "agents.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "costd.cli.demo.fleet.crew"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=plain_environment(),
            )
        self._tell(msgspec.json.encode(crew))

    def order(self, order: Order) -> None:
        """Tell them what to do from now on."""
        self._tell(msgspec.json.encode(order))

    def check(self) -> bool:
        """Tell whether they still work.

        Errors:  DemoFailed if they failed.
        """
        code = self._process.poll()
        if code:
            raise DemoFailed(f"the agents ended: {tail(self._folder, 'agents.log')}")
        return code is None

    def dismiss(self) -> None:
        """Let everyone finish the call under way."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def close(self) -> None:
        """End them."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.check()


def names(count: int) -> list[str]:
    """Name so many daemons."""
    return [f"d{number}" for number in range(1, count + 1)]


@contextmanager
def fleet_on(folder: Path, policy: Path, count: int) -> Iterator[Stage]:
    """Have a fleet in a folder, nobody started yet, until the block ends."""
    folder.chmod(FOLDER_MODE)
    with ExitStack() as stack:
        port = _free_port()
        links = stack.enter_context(Links(names(count), port))
        stage = Stage(folder, policy, count, links, port)
        stack.callback(stage.close)
        yield stage


def _free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])
