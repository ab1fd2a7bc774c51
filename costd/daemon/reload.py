"""The policy file: what it said when it was good, and what happens when it changes."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from watchfiles import awatch

from costd.clock import Clock
from costd.errors import CostdError, InvalidPolicy
from costd.model.policy import PolicySet
from costd.policy.load import parse_policy
from costd.policy.source import read_file
from costd.telemetry.logs import Log

SETTLE_MS: Final = 100
"""A file is read once its directory has been quiet for so long: half of it may be written."""
ABSENT_S: Final = 1.0
"""How often it is read while its directory is not there."""
RECHECK_MS: Final = 5_000
"""And read again this often, for file systems and links that tell nobody of a change."""


class Governed(Protocol):
    """What a policy is put in force in; implemented by the ledger."""

    def swap_policy(self, policy: PolicySet, *, actor: str) -> None:
        """Put a policy in force. Errors: InvalidPolicy; then the old one stays."""
        ...

    def audit(self, actor: str, action: str, subject: str, detail: str = "") -> None:
        """Append one audit record."""
        ...


class Reading(NamedTuple):
    """What a file said when it was read: a policy, a mistake, or (neither) the same as before."""

    text: str = ""
    policy: PolicySet | None = None
    mistake: InvalidPolicy | None = None


class PolicyFile:
    """The policy in force, and why the file on disk is not it, if it is not.

    `text`, `policy` and `loaded_ns` are those of the policy in force; `error` is empty, or says
    why what is on disk was refused.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        log: Log,
        *,
        parse: Callable[[str, str], PolicySet] = parse_policy,
    ) -> None:
        """Read the file for the first time.

        Errors: InvalidPolicy.
        """
        self._path = path
        self._parse = parse
        self._turn = asyncio.Lock()
        self._reloads_count = 0
        """Readings by `reload`, which may come while `follow` waits for its own."""
        self._clock = clock
        self._log = log
        self._ledger: Governed | None = None
        self.path = str(path)
        self.text = read_file(path)
        self.policy = parse(self.text, self.path)
        self.loaded_ns = clock.now().wall_ns
        self.error = ""
        self.loaded_count = 1
        self.refused_count = 0

    def govern(self, ledger: Governed) -> None:
        """Say in which ledger later policies are put in force."""
        self._ledger = ledger

    def reload(self, actor: str) -> None:
        """Read the file again and put it in force if it says something else.

        Ensures: a refused file changes nothing but `error`; it is audited and logged once,
                 however often it is read.
        Errors:  InvalidPolicy.
        """
        self._reloads_count += 1
        self._put_in_force(self._read(self.text), actor)

    async def follow(self, actor: str = "file") -> None:
        """Reload for nobody who waits for an answer; whatever is wrong is in the log.

        Shape:   reads and parses in a thread, since a large policy takes the better part of a
                 second, and asks are answered meanwhile; puts it in force on the loop.
        Ensures: what was read later is never replaced by what was read before.
        """
        async with self._turn:
            while True:
                count = self._reloads_count
                reading = await asyncio.to_thread(self._read, self.text)
                if count == self._reloads_count:
                    break  # else somebody's `reload` may have seen a newer file
            try:
                self._put_in_force(reading, actor)
            except InvalidPolicy:
                pass  # logged where it was refused
            except CostdError as error:
                self._log.error("policy_reload_failed", path=self.path, problem=str(error))

    def _read(self, known: str) -> Reading:
        """Read and parse the file; touches nothing else, so that any thread may."""
        try:
            text = read_file(self._path)
            return Reading() if text == known else Reading(text, self._parse(text, self.path))
        except InvalidPolicy as error:
            return Reading(mistake=error)

    def _put_in_force(self, reading: Reading, actor: str) -> None:
        ledger, policy = self._ledger, reading.policy
        assert ledger is not None
        try:
            if reading.mistake is not None:
                raise reading.mistake
            if policy is None:
                self.error = ""
                return
            ledger.swap_policy(policy, actor=actor)
        except InvalidPolicy as error:
            self._refused(ledger, str(error), actor)
            raise
        self.text, self.policy, self.error = reading.text, policy, ""
        self.loaded_ns = self._clock.now().wall_ns
        self.loaded_count += 1
        self._log.info("policy_loaded", path=self.path, revision=policy.revision, actor=actor)

    def _refused(self, ledger: Governed, problem: str, actor: str) -> None:
        if problem == self.error:
            return
        self.error = problem
        self.refused_count += 1
        self._log.error(
            "policy_refused",
            path=self.path,
            problem=problem,
            in_force=self.policy.revision,
            actor=actor,
        )
        ledger.audit(actor, "policy_refused", self.path, problem)


async def watch(path: Path, changed: Callable[[], Awaitable[None]], log: Log) -> None:
    """Call `changed` whenever a file may have changed, until cancelled.

    The directory is watched, not the file: editors rename a new file over it, and Kubernetes
    swaps a link beside it. So `changed` is called too often rather than too rarely.
    Where the directory is gone, or another is in its place, that one is watched as soon as it is
    there; what is wrong is logged once.
    """
    problem = ""

    def failed(what: str) -> None:
        nonlocal problem
        if what != problem:
            log.warning("watch_failed", directory=str(path.parent), problem=what)
        problem = what

    while True:
        watched = _identity(path.parent)
        if watched is None:
            failed("it is not there")
            await asyncio.sleep(ABSENT_S)
            await changed()
            continue
        if problem:
            log.info("watch_resumed", directory=str(path.parent))
            problem = ""
            await changed()
        try:
            async for _ in awatch(
                path.parent,
                watch_filter=None,
                step=SETTLE_MS,
                recursive=False,
                rust_timeout=RECHECK_MS,
                yield_on_timeout=True,
            ):
                await changed()
                if _identity(path.parent) != watched:
                    break
        except (OSError, RuntimeError) as error:
            failed(str(error))
            await asyncio.sleep(RECHECK_MS / 1_000)
            await changed()


def _identity(directory: Path) -> tuple[int, int] | None:
    """Tell one directory from another of its name; None if there is none."""
    try:
        found = directory.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


async def follow_signal(file: PolicyFile, signalled: asyncio.Event) -> None:
    """Follow the file whenever a signal asks for it, until cancelled."""
    while True:
        await signalled.wait()
        signalled.clear()
        await file.follow("SIGHUP")
