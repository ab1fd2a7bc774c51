"""Unix sockets: who may reach them, and whose they are."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

DIRECTORY_MODE: Final = 0o750
OTHERS_ENTER: Final = 0o005
PATH_BYTES_MAX: Final = 107
"""What the kernel's address structure holds, less its closing zero."""

_PROBE_S: Final = 1.0


class CannotListen(Exception):
    """An address cannot be served; says which and what to do."""


def directory_mode(mode: int) -> int:
    """Return the permissions of a directory for those who may use a socket of this mode in it."""
    return DIRECTORY_MODE | (OTHERS_ENTER if mode & stat.S_IWOTH else 0)


def claim(path: Path, mode: int = 0) -> None:
    """Make room for a socket of this mode: its directory made, a dead daemon's socket removed.

    Ensures: a directory made here lets others in only where the socket does; one that exists
             keeps its mode.
    Errors:  CannotListen if a live daemon answers there, something else is in the way, or the
             directory belongs to somebody who could put another socket in its place.
    """
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise CannotListen(
            f"{path} is longer than the {PATH_BYTES_MAX} bytes a socket's path may have; "
            "name a shorter one"
        )
    _claim_directory(path.parent, directory_mode(mode))
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise CannotListen(f"{path} exists and is no socket; remove it, or name another path")
    if is_answered(path):
        raise CannotListen(f"another daemon serves {path}; stop it, or name another socket")
    path.unlink(missing_ok=True)


def is_answered(path: Path) -> bool:
    """Tell whether somebody listens on a Unix socket.

    A listener that is too busy to answer is one: only a refusal shows that nobody is there.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


@contextmanager
def created_with(mode: int) -> Iterator[None]:
    """Let files made inside have this mode at most, from their first moment on."""
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)


def remove_if_ours(path: Path, inode: int) -> None:
    """Remove a socket unless somebody else's has taken its place."""
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        pass  # gRPC removes its sockets itself when it gets that far


def _claim_directory(directory: Path, mode: int) -> None:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            directory.mkdir(mode=mode)
            directory.chmod(mode)
        except FileExistsError:
            pass
        status = directory.stat()
    except OSError as error:
        raise CannotListen(
            f"{directory} cannot hold a socket: {error.strerror}; name another directory"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise CannotListen(f"{directory} is no directory; name another")
    if status.st_uid not in {0, os.geteuid()}:
        raise CannotListen(
            f"{directory} belongs to uid {status.st_uid}, who could put another socket in place "
            "of ours; use a directory of your own"
        )
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise CannotListen(
            f"{directory} can be written by everybody, who could put another socket in place of "
            "ours; take that away (chmod o-w), or use another directory"
        )
