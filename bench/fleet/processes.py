"""A database, a coordinator and daemons of it, as processes."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import grpc
import psycopg

from costd.coordinator.embedded import EmbeddedPostgres
from costd.testing import DaemonProcess
from costd.testing.fleet import CoordinatorProcess
from costd.wire.pb import control_pb2_grpc as control

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class Server:
    """A PostgreSQL of our own with its ordinary settings: what is committed is on disk."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # As root, the server is run by another user, who must get through.
        for each in (folder, folder.parent):
            each.chmod(each.stat().st_mode | 0o111)
        server = EmbeddedPostgres(folder)
        stack.callback(server.stop)
        self._url = server.start()
        self._pid_file = server.cluster / "postmaster.pid"
        self._made_count = 0

    def database(self) -> str:
        """Make an empty database; returns its address."""
        self._made_count += 1
        name = f"fleet_{self._made_count}"
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {quote(name)}".encode())
        return self._url.replace("/postgres?", f"/{name}?")

    def cpu_s(self) -> float:
        """Processor time of all its processes, of those that ended as well."""
        pid = int(self._pid_file.read_text().splitlines()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        with_ended = sum(cpu_s(int(child)) for child in children)
        return with_ended + cpu_s(pid, with_ended=True)


class Spent(NamedTuple):
    """What was spent from one moment to another."""

    seconds: float
    coordinator_s: float
    """Processor time of the coordinator."""
    database_s: float
    """The same of all processes of the database."""
    transactions_count: int
    """Transactions that took a number: all but those that only read."""
    messages_count: int
    """Requests and reports of the daemons that are enrolled now."""

    def since(self, earlier: "Spent") -> "Spent":
        """Take what was spent before away."""
        return Spent(*(now - then for now, then in zip(self, earlier, strict=True)))  # type: ignore[arg-type]


class Coordinator:
    """A coordinator of a database of its own."""

    def __init__(self, directory: Path, stack: ExitStack, server: Server, policy: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "policy.yaml"
        path.write_text(policy)
        self._server = server
        self.database_url = server.database()
        self.process = CoordinatorProcess(
            *("--name", "bench"),
            database_url=self.database_url,
            policy=path,
            directory=directory,
        )
        stack.callback(self.process.close)
        self.address = self.process.start().address
        self._connection = stack.enter_context(psycopg.connect(self.database_url, autocommit=True))

    @contextmanager
    def operating(self) -> Iterator[Any]:
        """Connect to its control service, blocking."""
        with grpc.insecure_channel(f"unix:{self.process.control_socket}") as channel:
            yield control.ControlStub(channel)  # type: ignore[no-untyped-call]  # generated

    def spent(self) -> Spent:
        """Read what was spent so far.

        Shape:   transactions are counted by PostgreSQL's own numbering of them, which is exact at
                 once, where its statistics come late.
        """
        row = self._connection.execute(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint,"
            " (SELECT coalesce(sum(sequence), 0) FROM daemons)"
        ).fetchone()
        assert row is not None
        return Spent(
            time.monotonic(),
            cpu_s(self.process.pid),
            self._server.cpu_s(),
            int(row[0]),
            int(row[1]),
        )

    def value(self, query: str) -> Any:
        """Ask the database for one value."""
        row = self._connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def cpu_s(pid: int, *, with_ended: bool = False) -> float:
    """Read a process's processor time; with that of its children that ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, fields[11 : 15 if with_ended else 13])) / TICKS_PER_S


def fleet_daemons(
    directory: Path, stack: ExitStack, coordinator: Coordinator, names: Iterable[str]
) -> list[DaemonProcess]:
    """Start daemons of a fleet, all at once, and wait until they serve."""
    daemons = []
    for name in names:
        daemon = DaemonProcess(
            None,
            *("--coordinator", coordinator.address, "--coordinator-insecure", "--name", name),
            *("--claims", "*", "--metrics-listen", "off"),
            directory=directory / name,
        )
        daemon.directory.mkdir(parents=True, exist_ok=True)
        stack.callback(daemon.close)
        daemon.launch()
        daemons.append(daemon)
    for daemon in daemons:
        daemon.wait_for(daemon.READY)
    return daemons
