"""What holds for every test: the scenario player can be imported, no clock fails a test, and there is
a PostgreSQL for those that ask for one."""

import asyncio
import gc
import os
import shutil
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings

from costd.coordinator.database import Database
from costd.coordinator.embedded import EmbeddedPostgres, _Lock
from costd.coordinator.migrate import Migrator

sys.path.insert(0, str(Path(__file__).parent / "unit" / "engine"))

# Hypothesis fails an example that takes 200 ms, which any example may on a busy machine.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# One mutant is caught the same way each time, by the first example that fails, however large.
settings.register_profile(
    "mutants",
    settings.get_profile("unhurried"),
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("unhurried")


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores it, and so would all that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Keep the garbage collector from walking all tests and imports: they stay to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def postgres_url():
    """A PostgreSQL for the whole run, shared by all of its workers; the last one stops it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")
    # Not below pytest's own folder, which other users may not enter: root has it run by another.
    folder = Path(tempfile.gettempdir()) / f"costd-tests-{run}"
    unsafe = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    server = EmbeddedPostgres(
        folder, server_settings={**unsafe, "max_connections": "200", "deadlock_timeout": "200ms"}
    )
    url = server.start()
    with _Lock(folder / "rules"):
        rules = server.cluster / "pg_hba.conf"
        needs_password = 'local all "/^careful_" scram-sha-256\n'
        if needs_password not in rules.read_text():
            rules.write_text(needs_password + rules.read_text())
            _execute(url, "SELECT pg_reload_conf()")
    yield url
    if server.stop():
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def template(postgres_url):
    """A database with the schema of this release, to copy: ten times faster than migrating."""
    name = f"template_{uuid4().hex}"
    _execute(postgres_url, f"CREATE DATABASE {name}")

    async def migrate():
        database = Database(_address(postgres_url, name))
        await database.open()
        await Migrator(database, release="test").run("test")
        await database.close()

    # A test's own loop may be running in this thread already.
    with ThreadPoolExecutor(1) as other:
        other.submit(asyncio.run, migrate()).result()
    return name


@pytest.fixture
def make_database(postgres_url, request):
    """Make databases, gone after the test: of this release's schema, or empty. Returns addresses."""
    made = []

    def make(*, empty=False):
        source = "template1" if empty else request.getfixturevalue("template")
        made.append(f"test_{uuid4().hex}")
        new = f"CREATE DATABASE {made[-1]} TEMPLATE {source} STRATEGY file_copy"
        _execute(postgres_url, new)
        return _address(postgres_url, made[-1])

    yield make
    for name in made:
        _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def open_database(make_database):
    """Open databases with the schema of this release, as `async with open_database() as database`."""

    @asynccontextmanager
    async def opened(url=""):
        database = Database(url or make_database())
        await database.open()
        try:
            yield database
        finally:
            await database.close()

    return opened


@pytest.fixture
async def database(open_database):
    """An open database with the schema of this release."""
    async with open_database() as opened:
        yield opened


def _execute(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def _address(url, name):
    return url.replace("/postgres?", f"/{name}?")
