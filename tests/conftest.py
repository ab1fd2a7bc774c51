"""What holds for every test: the scenario player can be imported, no clock fails a test, and there is
a PostgreSQL for those that ask for one."""

import os
import shutil
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "unit" / "engine"))

# Hypothesis fails an example that takes 200 ms, which any example may on a busy machine.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def postgres_url():
    """A PostgreSQL for the whole run, shared by all of its workers; the last one stops it."""
    from costd.coordinator.embedded import EmbeddedPostgres

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")
    # Not below pytest's own folder, which other users may not enter: root has it run by another.
    folder = Path(tempfile.gettempdir()) / f"costd-tests-{run}"
    unsafe = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    server = EmbeddedPostgres(
        folder, server_settings={**unsafe, "max_connections": "200", "deadlock_timeout": "200ms"}
    )
    yield server.start()
    if server.stop():
        shutil.rmtree(folder)


@pytest.fixture
def make_database(postgres_url):
    """Make empty databases, gone after the test; returns their addresses."""
    import psycopg

    made = []

    def make():
        name = f"test_{uuid4().hex}"
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        made.append(name)
        return postgres_url.replace("/postgres?", f"/{name}?")

    yield make
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def open_database(make_database):
    """Open databases with the schema of this release, as `async with open_database() as database`."""
    from costd.coordinator.database import Database
    from costd.coordinator.migrate import Migrator

    @asynccontextmanager
    async def opened(url=""):
        database = Database(url or make_database())
        await database.open()
        try:
            await Migrator(database, release="test").run("test")
            yield database
        finally:
            await database.close()

    return opened


@pytest.fixture
async def database(open_database):
    """An open database with the schema of this release."""
    async with open_database() as opened:
        yield opened
