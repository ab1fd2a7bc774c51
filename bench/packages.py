"""What an installation of each program takes: megabytes on disk, and in memory while it is idle."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.daemon import rss_mib
from bench.figures import Figure
from bench.installed import ROOT, install, link, size_mib
from costd.testing import DaemonProcess
from costd.testing.certifier import Certifier
from costd.testing.fleet import CoordinatorProcess
from costd.testing.process import CostdProcess
from costd.trust import Kind

INSTALL_MIB_MAX: Final = 150
RSS_MIB_MAX: Final = 90
QUIET_S: Final = 2.0
"""After a start, until it is idle."""


class InjectorProcess(CostdProcess):
    """Starts and stops one injector."""

    READY = "injecting"

    def __init__(self) -> None:
        """Make the certificate that it serves with."""
        super().__init__()
        self._pair = Certifier(self.directory).pair(Kind.COORDINATOR, "injector")

    def command(self) -> list[str]:
        """What to run."""
        return [
            "injector",
            *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"),
            *("--tls-cert", str(self._pair.certificate), "--tls-key", str(self._pair.key)),
            *("--sidecar-image", "costd"),
        ]


class Installed:
    """One round: a program of an installation starts, and its memory is read once it is idle."""

    def __init__(
        self, base: Path, stack: ExitStack, name: str, extras: Sequence[str], *, quick: bool
    ) -> None:
        target = base / f"installed-{name}"
        base.chmod(0o711)  # PostgreSQL, as a user of its own, must get to its programs
        python = _linked(base / "linked") if quick else install(target, extras)
        self._name = name
        self._size_mib = size_mib(python.parents[1])
        self._quiet_s = 0.0 if quick else QUIET_S
        self._process = PROCESSES[name]()
        self._process.python = str(python)
        # Not where this source is, which would be found first.
        self._process.source = python.parent
        stack.callback(self._process.close)
        self._rss_mib: list[float] = []

    def round(self) -> None:
        """Measure once."""
        self._process.start()
        time.sleep(self._quiet_s)
        self._rss_mib.append(rss_mib(self._process.pid))
        self._process.stop()

    def figures(self) -> list[Figure]:
        """Hold the daemon's against their targets; the others' are only told."""
        of_daemon = self._name == "daemon"
        return [
            Figure(
                key=f"{self._name}_install_mib",
                what=f"installation of the {self._name}, with bytecode",
                unit="MiB",
                samples=(self._size_mib,),
                target=INSTALL_MIB_MAX if of_daemon else None,
                decimals=0,
            ),
            Figure(
                key=f"{self._name}_rss_mib_idle",
                what=f"memory of an idle {self._name}",
                unit="MiB",
                samples=tuple(self._rss_mib),
                target=RSS_MIB_MAX if of_daemon else None,
                decimals=1,
            ),
        ]


def _linked(target: Path) -> Path:
    """Make one installation for all programs, where figures mean nothing."""
    python = target / "bin" / "python3"
    return python if python.exists() else link(target, ("coordinator", "injector"))


PROCESSES: Final[dict[str, Callable[[], CostdProcess]]] = {
    "daemon": lambda: DaemonProcess(ROOT / "policies" / "quickstart.yaml"),
    "coordinator": CoordinatorProcess,
    "injector": InjectorProcess,
}
EXTRAS: Final = {"daemon": (), "coordinator": ("coordinator",), "injector": ("injector",)}
