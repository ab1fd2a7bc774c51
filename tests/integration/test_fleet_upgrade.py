"""A fleet moves to the next release under load, one process at a time, with the schema changed."""

import asyncio
import re
import shutil
from pathlib import Path

import psycopg
import pytest
from fleet_load import POLICY, Load

import costd
from costd.testing.fleet import CoordinatorProcess

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


async def renew(process, release):
    """Stop a process in order, and start the next release in its place."""
    assert await asyncio.to_thread(process.stop) == 0
    process.source = release
    await asyncio.to_thread(process.start)


@pytest.mark.slow
async def test_a_rolling_update_under_load_loses_nothing(fleet, make_database, next_release):
    database_url = make_database(empty=True)
    running = fleet(POLICY, "--tenure-s", "3", database_url=database_url)
    await asyncio.to_thread(lambda: running.start(coordinators=2, daemons=2))
    load = Load(running)
    first, second = running.coordinators
    async with load.running():
        await renew(first, next_release)
        first.wait_for("migrated")
        expanded = [line for line in first.lines if line.get("event") == "migrated"]
        assert all(str(line["migration"]).endswith("expand") for line in expanded), (
            "an older coordinator still runs: nothing is taken away from it"
        )
        await load.admitted()
        await renew(second, next_release)
        second.wait_for("migrated", migration=str(expanded[-1]["migration"])[:-6] + "contract")
        await load.admitted()
        for daemon in running.daemons:
            await renew(daemon, next_release)
            await load.admitted()
    assert await asyncio.to_thread(load.problems) == []
    for coordinator in running.coordinators:
        assert {row.version for row in coordinator.daemons().values()} == {"9.9.9"}
    with psycopg.connect(database_url) as connection:
        releases = connection.execute("SELECT DISTINCT release FROM coordinators").fetchall()
    assert releases == [("9.9.9",)]
    older = CoordinatorProcess(database_url=database_url)
    try:
        older.launch()
        assert await asyncio.to_thread(older.ended) == 1
        assert "newer release" in older.log_text()
    finally:
        older.close()
