"""Each part of a fleet is killed under load in turn: the books of all parts agree afterwards, and
are what the callers were told, to the nano-dollar."""

import asyncio
from types import SimpleNamespace

import pytest
from fleet_load import POLICY, Load

from costd.testing.fleet import FleetProcesses
from costd.testing.postgres import PostgresServer

TENURE_S = 3


@pytest.fixture(scope="module")
def loaded(made_cluster, tmp_path_factory):
    """Two coordinators, two daemons and a PostgreSQL of their own, and who asks there."""
    policy = tmp_path_factory.mktemp("crashes") / "policy.yaml"
    policy.write_text(POLICY)
    postgres = PostgresServer(like=made_cluster).start()
    fleet = FleetProcesses(*("--tenure-s", str(TENURE_S)), database_url=postgres.url, policy=policy)
    try:
        fleet.start(coordinators=2, daemons=2)
        yield SimpleNamespace(fleet=fleet, postgres=postgres, load=Load(fleet))
    finally:
        fleet.close()
        postgres.close()


async def do(call, *arguments):
    return await asyncio.to_thread(call, *arguments)


async def test_a_daemon_is_killed_and_comes_back(loaded):
    async with loaded.load.running() as load:
        for daemon in loaded.fleet.daemons:
            await do(daemon.kill)
            await do(daemon.start)
            await load.progress()
        await load.admitted()
    assert await do(loaded.load.problems) == []


async def test_a_coordinator_is_killed_and_its_daemons_go_to_the_other(loaded):
    async with loaded.load.running() as load:
        for coordinator in loaded.fleet.coordinators:
            await do(coordinator.kill)
            await load.admitted()
            await do(coordinator.start)
            await load.admitted()
    assert await do(loaded.load.problems) == []


async def test_both_coordinators_are_killed_and_come_back(loaded):
    async with loaded.load.running() as load:
        for coordinator in loaded.fleet.coordinators:
            await do(coordinator.kill)
        await load.progress()
        for coordinator in loaded.fleet.coordinators:
            await do(coordinator.start)
        await load.admitted()
    assert await do(loaded.load.problems) == []


async def test_postgresql_is_killed_and_started_again(loaded):
    async with loaded.load.running() as load:
        await do(loaded.postgres.kill)
        await load.progress()
        await do(loaded.postgres.start)
        await load.admitted()
    assert await do(loaded.load.problems) == []


async def test_postgresql_stands_still_for_longer_than_a_tenure(loaded):
    async with loaded.load.running() as load:
        await do(loaded.postgres.freeze)
        try:
            # Nothing answers any more; asks are decided all the same, in the end without a lease.
            await asyncio.sleep(TENURE_S)  # this long, and no condition: it is what is tested
            await load.progress()
        finally:
            await do(loaded.postgres.thaw)
        await load.admitted()
    assert await do(loaded.load.problems) == []


@pytest.mark.slow
async def test_all_parts_are_killed_at_once_and_come_back(loaded):
    async with loaded.load.running() as load:
        for _ in range(2):
            await do(loaded.postgres.kill)
            for each in (*loaded.fleet.coordinators, *loaded.fleet.daemons):
                await do(each.kill)
            await do(loaded.postgres.start)
            for each in (*loaded.fleet.daemons, *loaded.fleet.coordinators):
                await do(each.launch)
            await load.admitted()
    assert await do(loaded.load.problems) == []
