"""What the coordinator says of a database that will not have it, and what it does meanwhile."""

import asyncio
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import psycopg
import pytest

from costd.coordinator.database import Database
from costd.coordinator.migrate import FOLDER, Migrator, read_migrations
from costd.coordinator.postgres import PostgresStore
from costd.coordinator.rows import Daemon
from costd.errors import CoordinatorUnavailable, InvariantBroken, StoreCorrupt
from costd.model.events import AuditRecord


def put(rows) -> None:
    rows.put_daemon(Daemon(daemon_id="d"))


def store_of(database: Database) -> PostgresStore:
    return PostgresStore(database, wall_ns=lambda: 0)


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def as_role(url: str, role: str, password: str = "") -> str:
    return url.replace("user=postgres", f"user={role}&password={password}")


@pytest.fixture(scope="module")
def careful(postgres_url):
    """A role that needs its password, s3cret."""
    name = f"careful_{uuid4().hex}"
    execute(postgres_url, f"CREATE ROLE {name} LOGIN PASSWORD 's3cret'")
    yield name
    execute(postgres_url, f"DROP ROLE {name}")


@pytest.fixture(scope="module")
def weak(postgres_url):
    """A role that may make nothing."""
    name = f"weak_{uuid4().hex}"
    execute(postgres_url, f"CREATE ROLE {name} LOGIN")
    yield name
    execute(postgres_url, f"DROP ROLE {name}")


async def test_nobody_there_is_said_with_the_place_and_what_to_do():
    database = Database("postgresql://ann:s3cret@127.0.0.1:1/fleet")
    with pytest.raises(CoordinatorUnavailable) as caught:
        await database.open()
    assert "127.0.0.1:1, database 'fleet' as ann" in str(caught.value)
    assert "cannot be reached" in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_server_that_starts_later_is_waited_for(make_database, tmp_path):
    url = make_database()
    place = urlsplit(url)
    later = tmp_path / "later"
    waiting = Database(f"postgresql:///{place.path[1:]}?user=postgres&host={later}")
    opening = asyncio.create_task(waiting.open(wait_s=20))
    await asyncio.sleep(0)
    later.symlink_to(parse_qs(place.query)["host"][0])
    await opening
    await waiting.close()


@pytest.mark.parametrize("url", ["postgresql://[bad", "host=a nonsense", "http://x"])
async def test_an_address_that_is_none_is_said(url):
    with pytest.raises(CoordinatorUnavailable, match="COSTD_DATABASE_URL cannot be read"):
        Database(url)


@pytest.mark.parametrize("password", ["", "wr0ng"])
async def test_a_refused_password_is_not_tried_again_and_not_told(make_database, careful, password):
    database = Database(as_role(make_database(), careful, password))
    with pytest.raises(
        CoordinatorUnavailable, match=r"as careful_\w+ refuses us.*mend user"
    ) as caught:
        await database.open(wait_s=3_600)
    assert "wr0ng" not in str(caught.value)


async def test_the_right_password_is_taken(make_database, careful):
    database = Database(as_role(make_database(), careful, "s3cret"))
    await database.open()
    await database.close()


async def test_a_database_that_does_not_exist_is_not_waited_for(postgres_url):
    database = Database(postgres_url.replace("/postgres?", "/nowhere?"))
    with pytest.raises(CoordinatorUnavailable, match=r"'nowhere'.*refuses us"):
        await database.open(wait_s=3_600)


async def test_a_read_only_database_is_said_to_be_one(make_database, open_database):
    url = make_database()
    name = urlsplit(url).path[1:]
    execute(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with open_database(url) as database:
        with pytest.raises(CoordinatorUnavailable, match=r"is read-only .*name the primary"):
            await store_of(database).transact(put, daemon_ids=["d"])


async def test_a_role_that_may_not_migrate_hears_what_is_missing(make_database, weak):
    database = Database(as_role(make_database(empty=True), weak))
    await database.open()
    migrator = Migrator(database, release="1")
    with pytest.raises(CoordinatorUnavailable, match=r"0001_fleet\.expand.*Grant the role CREATE"):
        await migrator.run("one")
    left = [str(each) for each in (await migrator.plan()).expansions]
    assert left == [str(each) for each in read_migrations(FOLDER) if each.phase == "expand"]
    await database.close()


async def test_a_schema_that_is_missing_is_said(make_database, open_database):
    async with open_database(make_database(empty=True)) as database:
        with pytest.raises(CoordinatorUnavailable, match=r"another schema .*which migrates it"):
            await store_of(database).transact(put, daemon_ids=["d"])


async def test_a_schema_that_a_newer_release_only_added_to_is_used(make_database, open_database):
    url = make_database()
    execute(url, "INSERT INTO migrations VALUES (9999, 'expand', 'more', '9')")
    async with open_database(url) as database:
        plan = await Migrator(database, release="1").run("one")
        assert plan.unknown == ("9999_more.expand",)
        await store_of(database).transact(put, daemon_ids=["d"])


async def test_a_schema_that_a_newer_release_took_from_is_refused(make_database, open_database):
    url = make_database()
    execute(url, "INSERT INTO migrations VALUES (9999, 'contract', 'less', '9')")
    async with open_database(url) as database:
        with pytest.raises(StoreCorrupt, match=r"newer release .*9999_less\.contract.*start that"):
            await Migrator(database, release="1").run("one")


async def test_a_row_that_cannot_be_is_a_bug_and_said_to_be_one(database):
    def work(rows) -> None:
        rows.put_daemon(Daemon(daemon_id="d", epoch=2**63))

    with pytest.raises((InvariantBroken, OverflowError)):
        await store_of(database).transact(work, daemon_ids=["d"])
    assert await store_of(database).list_daemons() == []


def cut(url: str) -> None:
    """End every other connection to the database, as a restart or a failover would."""
    execute(
        url,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


async def test_a_connection_lost_before_the_commit_wrote_nothing_and_the_next_one_works(database):
    store = store_of(database)

    def work(rows) -> None:
        put(rows)
        cut(database.url)

    with pytest.raises(CoordinatorUnavailable, match="may or may not be written"):
        await store.transact(work, daemon_ids=["d"])
    assert await store.list_daemons() == []
    await store.transact(put, daemon_ids=["d"])
    assert [each.daemon_id for each in await store.list_daemons()] == ["d"]


async def test_connections_that_were_cut_while_idle_are_replaced_unnoticed(database):
    store = store_of(database)
    await store.transact(put, daemon_ids=["d"])
    for _ in range(3):
        cut(database.url)
        await store.transact(put, daemon_ids=["d"])


async def test_a_transaction_that_is_cancelled_is_written_or_not_and_leaves_no_lock(database):
    store = store_of(database)
    running: asyncio.Task[None]

    def work(rows) -> None:
        put(rows)
        rows.audit.append(AuditRecord(at_ns=1, actor="a", action="b", subject="c"))
        running.cancel()

    running = asyncio.create_task(store.transact(work, daemon_ids=["d"]))
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(10):
        await store.transact(lambda rows: None, daemon_ids=["d"])
    assert len(await store.list_daemons()) == len(await store.list_audit())


async def test_a_closed_database_says_so(make_database):
    database = Database(make_database())
    await database.open()
    await database.close()
    await database.close()
    with pytest.raises(CoordinatorUnavailable, match="no connection"):
        await store_of(database).transact(put, daemon_ids=["d"])
