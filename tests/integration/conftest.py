from pathlib import Path

import pytest

from costd.testing import DaemonProcess
from costd.testing.fleet import FleetProcesses, PostgresServer

POLICIES = Path(__file__).parents[2] / "policies"


@pytest.fixture(scope="module")
def daemon():
    """A running daemon under policies/quickstart.yaml whose callers may claim every class."""
    with DaemonProcess(POLICIES / "quickstart.yaml", "--claims", "*", "--name", "test") as running:
        yield running


@pytest.fixture
def fresh_daemon(tmp_path):
    """Make daemons, not yet running, under a policy given as text or path, with flags."""
    made = []

    def make(policy, *flags):
        if isinstance(policy, str):
            path = tmp_path / f"policy-{len(made)}.yaml"
            path.write_text(policy)
            policy = path
        process = DaemonProcess(policy, *flags)
        made.append(process)
        return process

    yield make
    for process in made:
        process.close()


@pytest.fixture
def fleet(make_database, tmp_path):
    """Make fleets under a policy given as text: `fleet(POLICY).start(coordinators=2, daemons=2)`."""
    made = []

    def make(policy, *coordinator_flags, database_url=""):
        path = tmp_path / f"fleet-policy-{len(made)}.yaml"
        path.write_text(policy)
        processes = FleetProcesses(
            *coordinator_flags, database_url=database_url or make_database(), policy=path
        )
        made.append(processes)
        return processes

    yield make
    for processes in made:
        processes.close()


@pytest.fixture(scope="session")
def made_cluster():
    """A PostgreSQL cluster that does not run, for tests to copy and do harm to."""
    server = PostgresServer().start()
    server.stop()
    yield server.folder
    server.close()


@pytest.fixture
def own_postgres(made_cluster):
    """A running PostgreSQL that this test may kill."""
    server = PostgresServer(like=made_cluster)
    yield server.start()
    server.close()
