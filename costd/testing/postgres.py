"""A PostgreSQL that tests may kill, freeze and start again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import psycopg

from costd.testing.process import DaemonFailed, wait_until

QUICK: Final = {"shared_buffers": "16MB", "max_connections": "60"}
"""Of a server for tests; it still writes everything out, as one in production does."""


class PostgresServer:
    """A PostgreSQL of our own that may be killed, stopped for a while, and started again."""

    def __init__(self, folder: Path | None = None, *, like: Path | None = None) -> None:
        """Make it in a folder, as a copy of another one's cluster where there is one."""
        self.folder = folder or Path(tempfile.mkdtemp(prefix="costd-pg-", dir="/tmp"))
        self.folder.chmod(0o711)
        if like is not None:
            shutil.copytree(like, self.folder, dirs_exist_ok=True, copy_function=_copy)
            (self.folder / "postgres").chmod(0o700)
            _give_to_owner_of(like / "postgres", self.folder / "postgres")
        self.url = ""

    def start(self) -> Self:
        """Start it, or start it again.

        Shape:   by a process of its own: root's way to run it forks, which threads of gRPC here
                 would not survive.
        """
        self.url = _in_python(
            "import json, pathlib, sys; from costd.coordinator.embedded import EmbeddedPostgres;"
            "print(EmbeddedPostgres(pathlib.Path(sys.argv[1]),"
            " server_settings=json.loads(sys.argv[2])).start())",
            *(str(self.folder), json.dumps(QUICK)),
        )
        return self

    def stop(self) -> None:
        """Stop it in order."""
        end_postgres(self.folder / "postgres", signal.SIGINT)

    @property
    def pid(self) -> int:
        """Its first process."""
        return int((self.folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])

    def kill(self) -> None:
        """End all of it at once with -9; nothing is written out."""
        for pid in [self.pid, *_children(self.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def freeze(self) -> None:
        """Stop all of its processes where they are: connections stay, nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal_all(signal.SIGCONT)

    def execute(self, statement: str) -> None:
        """Run one statement as its superuser."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def close(self) -> None:
        """End it and remove its folder."""
        end_postgres(self.folder / "postgres")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal_all(self, number: int) -> None:
        for pid in [self.pid, *_children(self.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _in_python(program: str, *arguments: str) -> str:
    """Run a line of Python in a process of its own; return what it prints."""
    done = subprocess.run(  # noqa: S603  our own program
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DaemonFailed(done.stderr)
    return done.stdout.strip()


def end_postgres(cluster: Path, number: int = signal.SIGQUIT) -> None:
    """End the server of a cluster, if one runs, and wait until it is gone."""
    try:
        pid = int((cluster / "postmaster.pid").read_text().splitlines()[0])
        if b"postgres" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return
    except (OSError, ValueError, IndexError):
        return
    for each in [pid, *_children(pid)]:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGCONT)
    with suppress(ProcessLookupError):
        os.kill(pid, number)
    with suppress(DaemonFailed):
        wait_until(lambda: not _lives(pid), "the server ends")


def _children(pid: int) -> list[int]:
    try:
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except OSError:
        return []


def _lives(pid: int) -> bool:
    try:
        return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _copy(source: str, target: str) -> None:
    if Path(source).name not in {"postmaster.pid", "postgres.users", "postgres.starting"}:
        shutil.copy2(source, target)


def _give_to_owner_of(like: Path, folder: Path) -> None:
    found = like.stat()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, found.st_uid, found.st_gid)
