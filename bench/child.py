"""A server of somebody else's, for as long as it is measured."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from costd.serving.sockets import is_answered

_START_S: Final = 20.0


@contextmanager
def child_at(path: Path, command: Sequence[str]) -> Iterator[None]:
    """Run a server in a process of its own, from when it answers at a Unix socket.

    Errors:  RuntimeError where it does not; what it said is above.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + _START_S
        while not is_answered(path):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{command[0]} did not start at {path}; its error is above")
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()
