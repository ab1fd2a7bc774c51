"""`costd up`: a coordinator and a daemon on one machine, each a process that is started again."""

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer

from costd import address
from costd.clock import ticks_ns
from costd.model.time import NS_PER_S

AGAIN_S_FIRST: Final = 0.5
AGAIN_S_MAX: Final = 10.0
"""Between two starts of what dies at once; half a second where it had lived for a while."""
LIVED_NS: Final = 10 * NS_PER_S
LINE_BYTES_MAX: Final = 16 * 1024 * 1024
KEPT: Final = ("COSTD_DATABASE_URL",)
"""Of costd's own environment: whatever else is there may be meant for one of both only."""

_PR_SET_PDEATHSIG: Final = 1
"""From Linux' <linux/prctl.h>; kept across exec."""
_PRCTL: Final = getattr(ctypes.CDLL(None), "prctl", None)
"""None where the system has no such thing; then children outlive a parent that is killed -9."""

Tell = Callable[[str, str], None]
"""Writes one line of somebody."""


@dataclass(slots=True)
class Part:
    """One of the processes: how it is started, and which event its log has once it serves."""

    name: str
    command: Sequence[str]
    served: str
    first_only: Sequence[str] = ()
    """Arguments of the first start; not of those after a crash."""
    serves: asyncio.Event = field(default_factory=asyncio.Event)
    process: asyncio.subprocess.Process | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `costd up` was told."""

    policy: Path | None
    data: Path
    socket: Path
    listen: str
    name: str = ""
    claims: str = ""
    with_metrics: bool = True
    log_level: str = "info"
    log_format: str = "console"

    @property
    def coordinator_socket(self) -> Path:
        """Where operators ask the coordinator."""
        return self.socket.with_name("coordinator.sock")

    def parts(self) -> tuple[Part, Part]:
        """The coordinator, and the daemon that joins it.

        Shape:   a policy is published at the first start only: a coordinator that comes back after
                 a crash goes on with whatever was published meanwhile.
        """
        both = {"log-level": self.log_level, "log-format": self.log_format}
        both |= {"name": self.name} if self.name else {}
        both |= {} if self.with_metrics else {"metrics-listen": "off"}
        coordinator = both | {
            "data": self.data / "coordinator",
            "listen": self.listen,
            "control-socket": self.coordinator_socket,
        }
        daemon = both | {"data": self.data, "socket": self.socket, "coordinator": self.listen}
        daemon |= {"claims": self.claims} if self.claims else {}
        return (
            Part(
                "coordinator",
                _command("coordinator", coordinator),
                "coordinating",
                () if self.policy is None else (f"--policy={self.policy}",),
            ),
            Part("daemon", [*_command("serve", daemon), "--coordinator-insecure"], "serving"),
        )


def up(
    *,
    policy: Annotated[
        Path | None,
        typer.Option(help="Policy file to publish at the start, if it is not the newest."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the daemon's books; the coordinator's are in `coordinator` in it."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The name of both; the host's if empty.")] = "",
    socket: Annotated[
        Path | None,
        typer.Option(
            help="Unix socket agents ask at; control.sock and coordinator.sock lie beside it."
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where the daemon reaches the coordinator.")
    ] = "127.0.0.1:9466",
    claims: Annotated[
        str,
        typer.Option(help="Critical task classes that callers may claim: class,…; `*` for all."),
    ] = "",
    no_metrics: Annotated[
        bool, typer.Option("--no-metrics", help="Serve no Prometheus endpoints.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="Least level that is logged.")] = "info",
    log_format: Annotated[
        str, typer.Option(help="`json` for machines, `console` for people.")
    ] = "console",
) -> None:
    """Run a coordinator and a daemon on this machine, until SIGTERM or SIGINT.

    Two processes, each of which is started again when it dies. For fleets, and for
    settings beyond these, run `costd coordinator` and `costd serve --coordinator`.

    Of the environment only COSTD_DATABASE_URL is read.

    Signals: SIGTERM and SIGINT end the daemon, then the coordinator; a second
    one ends both at once.

    Exit codes: 0 stopped; else that of the one that could not start.

    Example: costd up --policy policy.yaml
    """
    plan = Plan(
        policy=policy,
        data=(data or address.default_data()).absolute(),
        socket=(socket or address.default_socket()).absolute(),
        listen=listen,
        name=name,
        claims=claims,
        with_metrics=not no_metrics,
        log_level=log_level,
        log_format=log_format,
    )
    code = run(plan)
    if code:
        raise typer.Exit(code)


def run(plan: Plan) -> int:
    """Run both until SIGTERM or SIGINT; returns the exit code.

    Shape:   0 where it was asked to stop; what could not start the first time ends both, with its
             own exit code.
    """
    return asyncio.run(_run(plan))


async def _run(plan: Plan) -> int:
    stopping = asyncio.Event()
    parts = plan.parts()

    def stop() -> None:
        if stopping.is_set():  # asked twice: whoever is still there need not be gentle
            for part in parts:
                _signal(part)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    tell = _teller(max(len(part.name) for part in parts))
    keeping: list[asyncio.Task[int]] = []
    try:
        for part in parts:
            keeping.append(asyncio.create_task(_keep(part, stopping, tell)))
            if not await _first_start(part, keeping[-1], stopping):
                break
        else:
            tell("up", f"agents ask at unix:{plan.socket}")
            tell("up", f"operators: costctl fleet --control unix:{plan.coordinator_socket}")
        waits = [*keeping, asyncio.create_task(stopping.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.set()
        # The daemon first: what it gives back, the coordinator has to hear.
        for part, task in reversed(list(zip(parts, keeping, strict=False))):
            _signal(part)
            await task
    return max((task.result() for task in keeping), default=0)


async def _first_start(part: Part, keeping: asyncio.Task[int], stopping: asyncio.Event) -> bool:
    """Wait until a part serves; false if it ends or is stopped before."""
    waits = [asyncio.create_task(event.wait()) for event in (part.serves, stopping)]
    await asyncio.wait([keeping, *waits], return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    return part.serves.is_set() and not stopping.is_set()


async def _keep(part: Part, stopping: asyncio.Event, tell: Tell) -> int:
    """Run a part, and run it again whenever it dies, until stopped; returns its exit code."""
    arguments, wait_s = [*part.command, *part.first_only], AGAIN_S_FIRST
    while True:
        started_ns = ticks_ns()
        code = await _once(part, arguments, tell)
        if stopping.is_set():
            return 0
        if not part.serves.is_set():
            return code if code > 0 else 1
        if ticks_ns() - started_ns > LIVED_NS:
            wait_s = AGAIN_S_FIRST
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        tell("up", f"{part.name} ended with {how}; it is started again in {wait_s:g} s")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await stopping.wait()
                return 0
        arguments, wait_s = [*part.command], min(2 * wait_s, AGAIN_S_MAX)


async def _once(part: Part, arguments: Sequence[str], tell: Tell) -> int:
    """Start a part, and pass its log on until it ends."""
    part.process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(),
        limit=LINE_BYTES_MAX,
        # Ctrl-C is for us, who stop them one after the other.
        start_new_session=True,
        preexec_fn=_end_with(os.getpid()),
    )
    assert part.process.stderr is not None
    async for raw in part.process.stderr:
        line = raw.decode(errors="replace").rstrip("\n")
        tell(part.name, line)
        if re.search(rf'(\] |"event": "){part.served}\b', line):
            part.serves.set()
    return await part.process.wait()


def _end_with(parent: int) -> Callable[[], None]:
    """Make what a child does before its program: have it told to stop when its parent dies.

    A parent that is killed -9 can tell nobody; what it started would hold the sockets and the
    books, and the next `costd up` could not start.
    """

    def bind() -> None:
        if _PRCTL is not None:
            _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            os.kill(os.getpid(), signal.SIGTERM)

    return bind


def _signal(part: Part) -> None:
    if part.process is not None and part.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            part.process.terminate()


def _environment() -> Mapping[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("COSTD_") or name in KEPT
    }


def _command(command: str, settings: Mapping[str, object]) -> list[str]:
    flags = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "costd.cli.costd", command, *flags]


def _teller(width: int) -> Tell:
    def tell(name: str, line: str) -> None:
        sys.stderr.write(f"{name:<{width}} | {line}\n")
        sys.stderr.flush()

    return tell
