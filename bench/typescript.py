"""One Node process: calls admitted in it by the TypeScript client."""

import fcntl
import json
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.daemon import measured_daemon
from bench.figures import Figure
from bench.workload import unhurried_policy_text

PACKAGE: Final = Path(__file__).parent.parent / "clients" / "typescript"
_TARGET_US: Final = 5.0


class TypeScriptAllowance:
    """One round: admits on a bound scope, then whole calls, timed by the process itself."""

    def __init__(self, directory: Path, stack: ExitStack, *, calls_count: int) -> None:
        self._count = calls_count
        self._rounds: list[dict[str, dict[str, float]]] = []
        self.absence = "" if shutil.which("npm") else "Node is missing"
        if self.absence:
            return
        build()
        daemon = measured_daemon(directory / "typescript", unhurried_policy_text())
        stack.callback(daemon.close)
        daemon.start()
        self._process = subprocess.Popen(
            ["node", "build/bench/allowance.js", daemon.address],
            cwd=PACKAGE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(self._close)

    def round(self) -> None:
        """Measure once.

        Errors:  RuntimeError where the process ended.
        """
        if self.absence:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._count}\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        if not said:
            raise RuntimeError(f"Node ended with {self._process.wait()}; its words are above")
        self._rounds.append(json.loads(said))

    def figures(self) -> list[Figure]:
        """Tell what was measured."""
        return [
            self._figure("ts_allowance_us_p50", "Node, admit on a bound scope, p50", "admit"),
            self._figure("ts_allowance_us_p99", "the same, p99", "admit"),
            self._figure("ts_allowance_call_us_p50", "Node, admit, then settle, p50", "call"),
        ]

    def _figure(self, key: str, what: str, part: str) -> Figure:
        shape: dict[str, Any] = {"key": key, "what": what, "unit": "µs"}
        if key == "ts_allowance_us_p50":
            shape["target"] = _TARGET_US
        if self.absence:
            return Figure(skipped=self.absence, **shape)
        quantile = "p99_us" if key.endswith("p99") else "p50_us"
        return Figure(samples=tuple(one[part][quantile] for one in self._rounds), **shape)

    def _close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def build() -> None:
    """Install what the lock file names, once, and compile; one process at a time.

    Errors:  CalledProcessError, whose output says why.
    """
    folder = PACKAGE / "build"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed, locked = (
            PACKAGE / "node_modules/.package-lock.json",
            PACKAGE / "package-lock.json",
        )
        if not installed.exists() or installed.stat().st_mtime < locked.stat().st_mtime:
            _run("npm", "ci", "--silent")
            installed.touch()
        _run("node_modules/.bin/tsc")


def _run(*command: str) -> None:
    subprocess.run(command, cwd=PACKAGE, check=True)
