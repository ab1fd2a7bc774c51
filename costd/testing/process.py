"""A real program in a process of its own, watched by its log."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Final, Self

ANSWER_S: Final = 60.0
"""A program starts in a second; a machine with other things to do may take its time."""


POLL_S: Final = 0.02


class DaemonFailed(Exception):
    """The program ended, or did not do in time what was waited for; carries its log."""


class CostdProcess:
    """Starts, stops, kills and restarts one program in a directory of its own.

    The directory is a short one under /tmp, because a socket's path may have 107 bytes, and
    outlives restarts; `close` removes it. Use it as a context manager.
    """

    READY: str
    """The event in its log that says that it serves."""

    def __init__(self, directory: Path | None = None) -> None:
        """Say where it lives; made if None, and removed by `close` then."""
        self.directory = directory or Path(tempfile.mkdtemp(prefix="costd-", dir="/tmp"))
        self._removes_directory = directory is None
        self.lines: list[dict[str, Any]] = []
        """Its log since it was last started; lines that are not JSON under `text`."""
        self.prefix: tuple[str, ...] = ()
        """What to run it under, such as `ip netns exec NAME`, which becomes the program."""
        self.source: Path | None = None
        """Where the package `costd` of another release lies; None: the one that is installed."""
        self.environment: dict[str, str] = {}
        """Variables that it is started with, beside those of this process."""
        self.python = sys.executable
        """What runs it; another one has other packages."""
        self._process: subprocess.Popen[str] | None = None
        self._reader: Thread | None = None
        self._said = Condition()

    def command(self) -> list[str]:
        """What to run after `python -m costd.cli.costd`."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The process, while there is one."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and has not been seen to end."""
        return self._process is not None

    def start(self) -> Self:
        """Start and wait until it serves.

        Errors: DaemonFailed.
        """
        self.launch()
        self.wait_for(self.READY)
        return self

    def launch(self) -> None:
        """Start without waiting."""
        assert self._process is None
        self.lines = []
        self._process = subprocess.Popen(  # noqa: S603  our own program
            [*self.prefix, self.python, "-m", "costd.cli.costd", *self.command()],
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.source,
            env={**os.environ, **self.environment},
        )
        self._reader = Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        self._reader.start()

    def wait_for(self, event: str, *, at_least: int = 1, **fields: Any) -> dict[str, Any]:
        """Return the n-th line of the log with this event and these fields, once there is one.

        Errors: DaemonFailed if the program ends first, or takes longer than ANSWER_S.
        """

        def found() -> dict[str, Any] | None:
            lines = [
                line
                for line in self.lines
                if line.get("event") == event and fields.items() <= line.items()
            ]
            return lines[at_least - 1] if len(lines) >= at_least else None

        with self._said:
            self._said.wait_for(lambda: found() or self._reader is None, ANSWER_S)
            line = found()
        if line is None:
            raise DaemonFailed(f"no {event!r} {fields or ''} in its log:\n{self.log_text()}")
        return line

    def ended(self) -> int:
        """Wait for it to end by itself; return its exit code."""
        assert self._process is not None
        exit_code = self._process.wait(ANSWER_S)
        reader = self._reader
        if reader is not None:
            reader.join(ANSWER_S)
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._process = None
        return exit_code

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> int:
        """Ask it to stop, wait, and return its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self.ended()

    def kill(self) -> None:
        """End it the way power does, but for the machine's memory."""
        assert self._process is not None
        self._process.kill()
        self.ended()

    def restart(self) -> Self:
        """Start it again on the same books, stopping it first if it runs."""
        if self._process is not None:
            self.stop()
        return self.start()

    def log_text(self) -> str:
        """Write its log for people."""
        return "\n".join(str(line.get("text") or json.dumps(line)) for line in self.lines)

    def close(self) -> None:
        """End it if it runs, and remove its directory."""
        if self._process is not None:
            self.kill()
        if self._removes_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _read(self, stream: Iterable[str]) -> None:
        for text in stream:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"text": text.rstrip()}
            with self._said:
                self.lines.append(line)
                self._said.notify_all()
        with self._said:
            self._reader = None
            self._said.notify_all()


def wait_until(condition: Any, what: str, at_most_s: float = ANSWER_S) -> Any:
    """Return what a condition says once it is true.

    Errors: DaemonFailed.
    """
    end = time.monotonic() + at_most_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise DaemonFailed(f"did not happen within {at_most_s:g} s: {what}")
        time.sleep(POLL_S)
