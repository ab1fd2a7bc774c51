"""The embedded PostgreSQL: begun, shared, killed and found again."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from costd.coordinator import embedded
from costd.coordinator.embedded import SYSTEM_USER, EmbeddedPostgres
from costd.errors import CoordinatorUnavailable, StoreCorrupt

FAST = {"fsync": "off", "shared_buffers": "1MB", "max_connections": "10"}
AS_ROOT = os.geteuid() == 0


@pytest.fixture
def folder():
    """Not below pytest's own, which the server's user may not enter where root runs the tests."""
    path = Path(tempfile.mkdtemp(prefix="costd-embedded-"))
    path.chmod(0o711)
    yield path
    for cluster in path.rglob("postmaster.pid"):
        with suppress(ProcessLookupError):
            os.kill(postmaster_of(cluster.parent), signal.SIGQUIT)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cluster that was made once, for tests to copy."""
    path = Path(tempfile.mkdtemp(prefix="costd-embedded-"))
    with EmbeddedPostgres(path, server_settings=FAST):
        pass
    yield path
    shutil.rmtree(path)


@pytest.fixture
def cluster_folder(folder, made):
    """A folder with a cluster in it that does not run."""
    subprocess.run(["cp", "-a", f"{made}/.", str(folder)], check=True)
    return folder


def postmaster_of(cluster: Path) -> int:
    return int((cluster / "postmaster.pid").read_text().splitlines()[0])


def is_running(pid: int) -> bool:
    try:
        return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def has_ended(pid: int) -> bool:
    """Tell whether a server that was stopped ends: its pid file goes a moment before it does."""
    ends = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < ends:
        time.sleep(0.01)
    return not is_running(pid)


def ask(url: str, text: str):
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(text).fetchone()[0]


def test_a_server_begins_where_there_was_nothing(folder):
    server = EmbeddedPostgres(folder / "new", server_settings=FAST)
    assert not server.exists()
    with server:
        assert server.exists()
        url = server.start()
        assert ask(url, "SELECT current_setting('server_version')").startswith("18")
        assert ask(url, "SELECT current_setting('data_checksums')") == "on"
        assert ask(url, "SELECT pg_encoding_to_char(encoding) FROM pg_database LIMIT 1") == "UTF8"


def test_nobody_but_its_user_reaches_it(cluster_folder):
    server = EmbeddedPostgres(cluster_folder, server_settings=FAST)
    with server:
        url = server.start()
        assert ask(url, "SELECT current_setting('listen_addresses')") == ""
        assert stat.S_IMODE(server.cluster.stat().st_mode) == 0o700
        place = server.cluster / ".s.PGSQL.5432"
        assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_coordinators_share_it_and_the_last_one_stops_it(cluster_folder):
    first = EmbeddedPostgres(cluster_folder, server_settings=FAST)
    second = EmbeddedPostgres(cluster_folder, server_settings=FAST)
    url = first.start()
    pid = postmaster_of(first.cluster)
    assert second.start() == url
    assert first.stop() is False
    assert ask(url, "SELECT 1") == 1
    assert second.stop() is True
    assert has_ended(pid)
    assert second.stop() is False


CRASHER = """
import sys, time
from pathlib import Path
from costd.coordinator import embedded
from costd.coordinator.embedded import EmbeddedPostgres
import psycopg
url = EmbeddedPostgres(Path(sys.argv[1]), server_settings={"max_connections": "10"}).start()
with psycopg.connect(url, autocommit=True) as connection:
    connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
print("ready", flush=True)
time.sleep(600)
"""


def test_a_killed_coordinator_leaves_a_server_that_the_next_one_takes_over(cluster_folder):
    child = subprocess.Popen(
        [sys.executable, "-c", CRASHER, str(cluster_folder)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    child.kill()
    child.wait()
    child.stdout.close()
    server = EmbeddedPostgres(cluster_folder)
    pid = postmaster_of(server.cluster)
    assert is_running(pid)
    url = server.start()
    assert postmaster_of(server.cluster) == pid
    assert ask(url, "SELECT number FROM kept") == 7
    assert server.stop() is True
    assert has_ended(pid)


def test_a_server_that_was_killed_recovers_what_was_committed(cluster_folder):
    settings = {**FAST, "fsync": "on"}
    server = EmbeddedPostgres(cluster_folder, server_settings=settings)
    url = server.start()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        pid = postmaster_of(server.cluster)
        os.kill(pid, signal.SIGKILL)
        # Its children end by themselves once they notice, this connection's among them.
        with suppress(psycopg.OperationalError):
            while connection.execute("SELECT 1"):
                pass
    second = EmbeddedPostgres(cluster_folder, server_settings=settings)
    assert ask(second.start(), "SELECT number FROM kept") == 7
    second.stop()
    server.stop()


def test_a_process_that_took_a_dead_servers_number_is_not_taken_for_it(cluster_folder):
    server = EmbeddedPostgres(cluster_folder, server_settings=FAST)
    url = server.start()
    lines = (server.cluster / "postmaster.pid").read_text().splitlines()
    server.stop()
    lines[0] = str(os.getpid())
    stale = server.cluster / "postmaster.pid"
    stale.write_text("\n".join(lines) + "\n")
    shutil.chown(stale, SYSTEM_USER if AS_ROOT else os.geteuid())
    with server:
        assert ask(url, "SELECT 1") == 1


def test_a_cluster_whose_making_was_interrupted_is_made_anew(folder):
    (folder / "postgres.new" / "base").mkdir(parents=True)
    with EmbeddedPostgres(folder, server_settings=FAST) as server:
        assert server.exists()
    assert not (folder / "postgres.new").exists()


def test_a_damaged_cluster_is_refused_and_left_alone(folder):
    (folder / "postgres" / "base").mkdir(parents=True)
    with pytest.raises(StoreCorrupt, match="no PG_VERSION"):
        EmbeddedPostgres(folder).start()
    assert (folder / "postgres" / "base").is_dir()


def test_a_cluster_of_a_version_that_is_not_here_is_refused(folder):
    (folder / "postgres").mkdir()
    (folder / "postgres" / "PG_VERSION").write_text("11\n")
    with pytest.raises(StoreCorrupt, match=r"PostgreSQL 11's.*16, 18.*COSTD_DATABASE_URL"):
        EmbeddedPostgres(folder).start()


def test_what_kept_it_from_starting_is_said(cluster_folder):
    server = EmbeddedPostgres(cluster_folder, server_settings={"shared_buffers": "lots"})
    with pytest.raises(CoordinatorUnavailable, match=r"(?s)pg_ctl.*invalid value.*lots"):
        server.start()
    with EmbeddedPostgres(cluster_folder, server_settings=FAST) as second:
        assert second.exists()


def test_the_socket_of_a_long_path_goes_where_it_fits(folder):
    long = folder / ("d" * 60) / ("e" * 60)
    long.parent.mkdir()
    long.parent.chmod(0o755)
    server = EmbeddedPostgres(long, server_settings=FAST)
    with server:
        url = server.start()
        assert str(long) not in url
        assert ask(url, "SELECT 1") == 1
        place = Path(url.partition("host=")[2])
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    place.rmdir()


@pytest.mark.skipif(not AS_ROOT, reason="only for root does another user run the server")
def test_root_opens_nothing_that_was_closed(folder):
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(CoordinatorUnavailable, match=f"cannot enter {closed}"):
        EmbeddedPostgres(closed / "data").start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.skipif(not AS_ROOT, reason="only for root does another user run the server")
def test_binaries_that_the_servers_user_cannot_reach_are_copied(cluster_folder, monkeypatch):
    closed = Path(tempfile.mkdtemp(prefix="costd-venv-"))
    found = embedded._binaries("18")
    shutil.copytree(found.parent, closed / "pginstall18", symlinks=True)
    monkeypatch.setattr(embedded, "_binaries", lambda major: closed / "pginstall18" / "bin")
    try:
        with EmbeddedPostgres(cluster_folder, server_settings=FAST) as server:
            assert ask(server.start(), "SELECT 1") == 1
        assert (cluster_folder / "postgresql-pginstall18" / "bin" / "postgres").exists()
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(closed)
