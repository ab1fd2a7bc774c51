import re
import shutil
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

import costd
from costd.testing import DaemonProcess
from costd.testing.fleet import FleetProcesses
from costd.testing.postgres import PostgresServer

POLICIES = Path(__file__).parents[2] / "policies"
EXPAND = """\
ALTER TABLE daemons ADD COLUMN region text;
ALTER TABLE shares ADD COLUMN note text;
CREATE TABLE regions (name text PRIMARY KEY);
"""
CONTRACT = """\
UPDATE daemons SET region = '' WHERE region IS NULL;
ALTER TABLE daemons ALTER COLUMN region SET DEFAULT '', ALTER COLUMN region SET NOT NULL;
"""


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


@pytest.fixture(scope="module")
def shared_database(postgres_url, template):
    """A database for all tests of a module; its address."""
    name = f"shared_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield postgres_url.replace("/postgres?", f"/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


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


@pytest.fixture(scope="session")
def next_release(tmp_path_factory):
    """This release as another one: its version, and two migrations more."""
    folder = tmp_path_factory.mktemp("next")
    package = folder / "costd"
    shutil.copytree(
        Path(costd.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    source = package / "__init__.py"
    changed = re.sub(r'(__version__.*?= )"[^"]+"', r'\1"9.9.9"', source.read_text())
    assert "9.9.9" in changed
    source.write_text(changed)
    migrations = package / "coordinator" / "migrations"
    number = max(int(path.name[:4]) for path in migrations.glob("*.sql")) + 1
    (migrations / f"{number:04}_regions.expand.sql").write_text(EXPAND)
    (migrations / f"{number:04}_regions.contract.sql").write_text(CONTRACT)
    return folder
