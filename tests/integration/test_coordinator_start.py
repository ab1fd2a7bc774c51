"""What a coordinator says before it starts, and where it cannot: databases of every state."""

import os
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import psycopg
import pytest
from desk import Desk, poll
from typer.testing import CliRunner

from costd.cli.costd import app
from costd.coordinator.migrate import FOLDER, read_migrations
from costd.testing.fleet import CoordinatorProcess

POLICY = """\
version: 1
unmatched: deny
tiers: {premium: {models: [openai/gpt-4o]}}
task_classes: {draft: {tier: premium, max_output_tokens: 1000}}
budgets: [{id: shared, window: total, limit: $100}]
"""
NEWEST = str(read_migrations(FOLDER)[-1])


def check(folder, url=""):
    """Run `costd coordinator --check`; exit code, and all it said."""
    done = CliRunner().invoke(
        app,
        ["coordinator", "--check", "--data", str(folder), "--name", "checked"],
        env={"COSTD_DATABASE_URL": url},
    )
    return done.exit_code, done.output


def check_as(release, folder, url):
    """The same in a process of its own, as another release unless None."""
    done = subprocess.run(
        [sys.executable, "-m", "costd.cli.costd", "coordinator", "--check", "--data", folder],
        check=False, capture_output=True, text=True, cwd=release, timeout=50,
        env={**os.environ, "COSTD_DATABASE_URL": url},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def execute(url, *statements):
    with psycopg.connect(url, autocommit=True) as connection:
        for each in statements:
            connection.execute(each)


def set_read_only(url):
    execute(url, f"ALTER DATABASE {urlsplit(url).path[1:]} SET default_transaction_read_only = on")


@pytest.fixture
def refused():
    """Start a coordinator that is to be refused; exit code, and its log."""

    def start(url, *flags):
        coordinator = CoordinatorProcess(*flags, database_url=url)
        try:
            coordinator.launch()
            code = coordinator.ended()
            assert "Traceback" not in coordinator.log_text()
            return code, coordinator.log_text()
        finally:
            coordinator.close()

    return start


# ---- --check ------------------------------------------------------------------------------------


def test_on_a_bare_machine_a_check_makes_nothing(tmp_path):
    assert check(tmp_path / "none") == (
        0,
        f"database: {tmp_path}/none/postgres\na start would make it\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_check_of_an_empty_database_says_what_would_run_and_runs_nothing(make_database, tmp_path):
    url = make_database(empty=True)
    for _ in range(2):
        code, said = check(tmp_path, url)
        assert code == 0
        assert f"{NEWEST}: runs at start" in said


def test_a_check_of_a_database_that_is_as_it_should_be(make_database, tmp_path):
    code, said = check(tmp_path, make_database())
    assert code == 0
    assert said.endswith("nothing to migrate\n")


def test_a_check_names_what_a_newer_release_added(make_database, tmp_path):
    url = make_database()
    execute(url, "INSERT INTO migrations VALUES (9999, 'expand', 'more', '9')")
    code, said = check(tmp_path, url)
    assert code == 0
    assert "9999_more.expand: ran already, of a newer release" in said


def test_a_check_says_that_a_start_would_be_refused(make_database, tmp_path):
    url = make_database()
    execute(url, "INSERT INTO migrations VALUES (9999, 'contract', 'less', '9')")
    code, said = check(tmp_path, url)
    assert code == 1
    assert "a start would be refused: its schema is of a newer release" in said


@pytest.mark.parametrize("empty", [True, False])
def test_a_check_says_that_a_database_is_read_only(make_database, tmp_path, empty):
    url = make_database(empty=empty)
    set_read_only(url)
    code, said = check(tmp_path, url)
    assert code == 1
    assert "a start would be refused: it is read-only; name the primary" in said


def test_a_check_does_not_wait_for_a_database_that_is_not_there(tmp_path):
    """A start waits a minute for it, which is longer than this check may take."""
    code, said = check_as(None, tmp_path, "postgresql://ann@127.0.0.1:1/fleet")
    assert code == 1
    assert "127.0.0.1:1, database 'fleet' as ann cannot be reached" in said


# ---- an older schema ----------------------------------------------------------------------------


def test_a_database_of_the_release_before_is_migrated_with_money_out(fleet, next_release, tmp_path):
    running = fleet(POLICY, "--tenure-s", "3").start(daemons=1)
    (coordinator,), (daemon,) = running.coordinators, running.daemons
    desk = Desk(daemon)
    held = desk.hold(30)
    desk.settle(desk.hold(20), 20)
    coordinator.kill()
    code, said = check_as(next_release, tmp_path, coordinator.database_url)
    assert code == 0
    assert "_regions.expand: runs at start" in said
    coordinator.source = next_release
    coordinator.start()
    assert coordinator.wait_for("migrated")["migration"].endswith("_regions.expand")
    desk.settle(held, 30)
    assert not desk.admit(51).reservation_id, "what was used and held before counts"
    poll(lambda: desk.admit(49).reservation_id)


@pytest.mark.parametrize("empty", [True, False])
def test_a_read_only_database_is_refused_at_the_start(make_database, refused, empty):
    url = make_database(empty=empty)
    set_read_only(url)
    code, said = refused(url)
    assert code == 1
    assert "it is read-only; name the primary" in said


def test_a_database_with_tables_of_somebody_else_is_left_alone(make_database, refused):
    url = make_database(empty=True)
    execute(url, "CREATE TABLE daemons (name text)", "INSERT INTO daemons VALUES ('mine')")
    code, said = refused(url)
    assert code == 1
    assert "has tables that costd did not make" in said
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT * FROM daemons").fetchall() == [("mine",)]
        tables = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname = 'pools'"
        assert connection.execute(tables).fetchone() == (0,)


# ---- the way up ---------------------------------------------------------------------------------


def test_a_coordinator_that_waits_for_its_database_says_so_and_can_be_stopped():
    coordinator = CoordinatorProcess(database_url="postgresql://ann@127.0.0.1:1/fleet")
    try:
        coordinator.launch()
        assert "cannot be reached" in coordinator.wait_for("waiting_for_database")["problem"]
        coordinator.signal(signal.SIGTERM)
        assert coordinator.ended() == 0
        assert "stopped" in coordinator.log_text()
    finally:
        coordinator.close()


def test_an_address_of_metrics_that_is_taken_is_named(make_database, refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        code, said = refused(make_database(), "--metrics-listen", place)
    assert code == 1
    assert f"metrics_listen: {place} cannot be bound" in said
