"""Schemas that two releases share: what adds runs at start, what takes away once nobody needs it."""

import asyncio
import os
import re
import subprocess
from pathlib import Path

import psycopg
import pytest

from costd.coordinator import embedded
from costd.coordinator.database import Database
from costd.coordinator.migrate import FOLDER, Migrator, read_migrations
from costd.coordinator.postgres import PostgresStore
from costd.coordinator.rows import Daemon, Share
from costd.model.lease import Pool

SCHEMA = Path(__file__).with_name("schema.sql")

ONE = {
    "0001_begin.expand.sql": "CREATE TABLE coordinators (instance_id text PRIMARY KEY,"
    " release text, schema_number int, address text, started_at timestamptz DEFAULT now(),"
    " seen_at timestamptz DEFAULT now()); CREATE TABLE things (old text); INSERT INTO things"
    " VALUES ('100 %')",
}
TWO = {
    **ONE,
    "0002_rename.expand.sql": "ALTER TABLE things ADD new text; UPDATE things SET new = old",
    "0002_rename.contract.sql": "ALTER TABLE things DROP old",
}


@pytest.fixture
async def empty(make_database, open_database):
    async with open_database(make_database(empty=True)) as opened:
        yield opened


@pytest.fixture
def release(empty, tmp_path):
    """Make a release's migrator from its files."""

    def make(name: str, files: dict[str, str], database: Database = empty) -> Migrator:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for path, text in files.items():
            (folder / path).write_text(text)
        return Migrator(database, release=name, folder=folder)

    return make


async def ask(database: Database, text: str):
    async with database.connection() as connection:
        return await (await connection.execute(text)).fetchall()


def named(migrations) -> list[str]:
    return [str(each) for each in migrations]


def dump(url: str) -> str:
    """Write a schema without what differs from one dump, or one server, to the next."""
    program = embedded._binaries(embedded.MAJOR) / "pg_dump"
    told = subprocess.run(
        [program, "--schema-only", "--no-owner", "--no-privileges", url],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    kept = [
        line
        for line in told.splitlines()
        if line and not line.startswith(("--", "SET ", "SELECT pg_catalog.", "\\"))
    ]
    return "\n".join(kept) + "\n"


async def test_migrating_from_nothing_makes_the_schema_that_is_committed(empty):
    await Migrator(empty, release="1").run("one")
    made = dump(empty.url)
    if os.environ.get("WRITE_SCHEMA"):
        SCHEMA.write_text(made)
    assert made == SCHEMA.read_text(), "if this is meant: WRITE_SCHEMA=1 pytest " + __file__


async def test_a_plan_changes_nothing(empty):
    plan = await Migrator(empty, release="1").plan()
    assert named(plan.expansions)[0] == "0001_fleet.expand"
    assert await ask(empty, "SELECT relname FROM pg_class WHERE relname = 'migrations'") == []
    await Migrator(empty, release="1").run("one")
    plan = await Migrator(empty, release="1").plan()
    assert (plan.expansions, plan.contractions, plan.waiting, plan.refusal) == ((), (), (), None)


async def test_every_migration_runs_once_however_many_start_at_once(empty):
    starts = [Migrator(empty, release="1").run(f"instance-{number}") for number in range(6)]
    ran = [plan.expansions for plan in await asyncio.gather(*starts)]
    assert sum(map(len, ran)) == len(read_migrations(FOLDER))
    assert len(await ask(empty, "SELECT FROM coordinators")) == 6


async def test_an_expansion_keeps_what_is_there_and_the_release_before_goes_on(release, empty):
    await release("1", ONE).run("old")
    plan = await release("2", TWO).run("new")
    assert named(plan.expansions) == ["0002_rename.expand"]
    assert named(plan.waiting) == ["0002_rename.contract"]
    assert plan.older == ("old (1)",)
    assert plan.lines() == [
        "0002_rename.expand: runs at start",
        "0002_rename.contract: waits until old (1) left",
    ]
    assert await ask(empty, "SELECT old, new FROM things") == [("100 %", "100 %")]


async def test_a_contraction_waits_until_no_older_coordinator_is_connected(release, empty):
    await release("1", ONE).run("old")
    newer = release("2", TWO)
    await newer.run("new")
    assert (await newer.contract()).contractions == ()
    async with empty.connection() as connection:
        await connection.execute(
            "UPDATE coordinators SET seen_at = now() - interval '61 s' WHERE instance_id = 'old'"
        )
    assert named((await newer.plan()).contractions) == ["0002_rename.contract"]
    assert named((await newer.contract()).contractions) == ["0002_rename.contract"]
    assert (await newer.contract()).contractions == ()
    assert await ask(empty, "SELECT * FROM things") == [("100 %",)]


async def test_an_older_coordinator_that_left_is_not_waited_for(release, empty):
    await release("1", ONE).run("old")
    newer = release("2", TWO)
    await newer.run("new")
    await PostgresStore(empty, wall_ns=lambda: 0).leave("old")
    assert named((await newer.contract()).contractions) == ["0002_rename.contract"]


async def test_a_new_database_gets_everything_at_once(release, empty):
    plan = await release("2", TWO).run("new")
    assert named(plan.contractions) == ["0002_rename.contract"]
    assert await ask(empty, "SELECT * FROM things") == [("100 %",)]


async def test_after_a_contraction_the_release_before_is_turned_away(release, empty):
    await release("2", TWO).run("new")
    plan = await release("1", ONE).plan()
    assert "0002_rename.contract ran already" in plan.refusal
    assert plan.unknown == ("0002_rename.expand", "0002_rename.contract")
    assert plan.lines()[-1] == "0002_rename.contract: ran already, of a newer release"


async def test_a_migration_that_fails_leaves_nothing_of_itself(release, empty):
    await release("1", ONE).run("old")
    broken = {**ONE, "0002_bad.expand.sql": "ALTER TABLE things ADD half text; SELECT 1/0"}
    with pytest.raises(Exception, match="division by zero"):
        await release("2", broken).run("new")
    assert await ask(empty, "SELECT * FROM things") == [("100 %",)]
    assert await ask(empty, "SELECT number FROM migrations") == [(1,)]


@pytest.mark.parametrize("name", ["1_short.expand.sql", "0001_x.sql", "0001_x.other.sql"])
def test_a_file_that_is_no_migration_is_refused(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=re.escape(name)):
        read_migrations(tmp_path)


def test_two_migrations_of_one_number_are_refused(tmp_path):
    for name in ("0001_a.expand.sql", "0001_b.expand.sql"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=r"0001_b.*same number"):
        read_migrations(tmp_path)


def test_our_expansions_only_add():
    for each in read_migrations(FOLDER):
        if each.phase == "expand":
            taken = re.findall(r"(?im)^\s*(?:ALTER TABLE.*)?\b(?:DROP|RENAME|TRUNCATE)\b", each.sql)
            assert not taken, each


async def test_replicas_are_known_while_they_beat_and_until_they_leave(empty):
    store = PostgresStore(empty, wall_ns=lambda: 0)
    migrator = Migrator(empty, release="1.2")
    await migrator.run("a", address="host:1")
    await migrator.run("b")
    [first, second] = await store.list_instances()
    assert (first.instance_id, first.release, first.address) == ("a", "1.2", "host:1")
    assert first.schema_number == migrator.schema_number
    assert second.instance_id == "b"
    assert await store.beat("a") is True
    await store.leave("a")
    assert [each.instance_id for each in await store.list_instances()] == ["b"]
    assert await store.beat("a") is False


async def test_a_beat_is_written_four_times_in_what_it_is_believed_for(empty):
    store = PostgresStore(empty, wall_ns=lambda: 0)
    await Migrator(empty, release="1").run("a")
    seen_at = "SELECT seen_at FROM coordinators"
    before = await ask(empty, seen_at)
    assert await store.beat("a") is True
    assert await ask(empty, seen_at) == before
    async with empty.connection() as connection:
        await connection.execute("UPDATE coordinators SET seen_at = now() - interval '16 s'")
    assert await store.beat("a") is True
    assert await ask(empty, "SELECT seen_at > now() - interval '10 s' FROM coordinators") == [
        (True,)
    ]


async def test_columns_are_those_of_the_structs(empty):
    """A field that is added to a struct needs a migration, and a place in the queries."""
    await Migrator(empty, release="1").run("one")
    columns = {
        table: {name for (name,) in await ask(empty, f"SELECT attname FROM pg_attribute"
            f" WHERE attrelid = '{table}'::regclass AND attnum > 0")}
        for table in ("daemons", "pools", "shares")
    }  # fmt: skip
    assert columns["daemons"] == set(Daemon.__struct_fields__)
    assert columns["pools"] == {"counter_key", *Pool.__struct_fields__}
    assert set(Share.__struct_fields__) - {"stand"} < columns["shares"]


def test_the_driver_speaks_of_the_server_that_the_wheel_has():
    assert psycopg.pq.version() >= 160000
