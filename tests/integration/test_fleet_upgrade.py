"""A fleet moves to the next release under load, one process at a time, with the schema changed."""

import asyncio

import psycopg
import pytest
from fleet_load import POLICY, Load

from costd.testing.fleet import CoordinatorProcess
from costd.testing.process import wait_until


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
        contraction = str(expanded[-1]["migration"])[:-6] + "contract"

        def contracted():
            """By whoever comes first: the one that starts, or one that looks again."""
            return [
                line
                for coordinator in (first, second)
                for line in coordinator.lines
                if (line.get("event"), line.get("migration")) == ("migrated", contraction)
            ]

        # A minute is what one is believed for that could not say that it left.
        assert len(await asyncio.to_thread(wait_until, contracted, contraction, 120)) == 1
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
