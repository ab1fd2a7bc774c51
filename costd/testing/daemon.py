"""A real daemon in a process of its own, for tests, benchmarks and demonstrations."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Self

ANSWER_S = 30.0
"""A daemon starts in a second; a machine with other things to do may take its time."""


class DaemonFailed(Exception):
    """The daemon ended, or did not do in time what was waited for; carries its log."""


class DaemonProcess:
    """Starts, stops, kills and restarts one daemon in a directory of its own.

    The directory is a short one under /tmp, because a socket's path may have 107 bytes, and
    outlives restarts; `close` removes it. Use it as a context manager.
    """

    def __init__(self, policy: Path | str, *flags: str, directory: Path | None = None) -> None:
        """Say what to run; `flags` are those of `costd serve` and come last."""
        self.directory = directory or Path(tempfile.mkdtemp(prefix="costd-", dir="/tmp"))
        self._removes_directory = directory is None
        self.policy = Path(policy)
        self.flags = flags
        self.data = self.directory / "data"
        self.socket = self.directory / "s" / "costd.sock"
        self.control_socket = self.directory / "s" / "control.sock"
        self.lines: list[dict[str, Any]] = []
        """Its log since it was last started; lines that are not JSON under `text`."""
        self._process: subprocess.Popen[str] | None = None
        self._reader: Thread | None = None
        self._said = Condition()

    @property
    def address(self) -> str:
        """Where agents ask, as a gRPC target."""
        return f"unix:{self.socket}"

    @property
    def control_address(self) -> str:
        """Where operators ask, as a gRPC target."""
        return f"unix:{self.control_socket}"

    @property
    def listen_address(self) -> str:
        """Where agents ask over TCP, with the port it got."""
        return str(self.wait_for("serving")["listen"])

    @property
    def metrics_url(self) -> str:
        """Where metrics are."""
        return f"http://{self.wait_for('metrics_listening')['address']}/metrics"

    @property
    def pid(self) -> int:
        """The process, while there is one."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start and wait until it serves.

        Errors: DaemonFailed.
        """
        self.launch()
        self.wait_for("serving")
        return self

    def launch(self) -> None:
        """Start without waiting."""
        assert self._process is None
        self.lines = []
        self._process = subprocess.Popen(  # noqa: S603  our own daemon
            [
                *(sys.executable, "-m", "costd.cli.costd", "serve"),
                *("--policy", str(self.policy), "--data", str(self.data)),
                *("--socket", str(self.socket), "--control-socket", str(self.control_socket)),
                *("--metrics-listen", "127.0.0.1:0"),
                *self.flags,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        self._reader.start()

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Return the first line of the log with this event and these fields, once there is one.

        Errors: DaemonFailed if the daemon ends first, or takes longer than ANSWER_S.
        """

        def found() -> dict[str, Any] | None:
            return next(
                (
                    line
                    for line in self.lines
                    if line.get("event") == event and fields.items() <= line.items()
                ),
                None,
            )

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
