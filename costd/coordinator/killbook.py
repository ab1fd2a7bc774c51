"""The fleet's kill switches: in memory, in a journal, and in the database when it is there.

A switch is engaged whether or not PostgreSQL can be reached: it is written to the journal, told to
every daemon, and stored once the database is back.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from costd.errors import CoordinatorUnavailable, StoreUnavailable
from costd.model.events import AuditRecord
from costd.model.kill import KillSwitch
from costd.model.time import NS_PER_S
from costd.wire import fleet as wire
from costd.wire.pb import fleet_pb2 as pb

KEEP_NS = 30 * 86_400 * NS_PER_S
"""A released switch is told for so long to whoever joins; a daemon that was away longer than this
would go on with it, until a person releases it there."""

STORED_WITHIN_S: Final = 1.0
"""How long an operator waits until the database has what the journal has already."""


class KillStore(Protocol):
    """Where kill switches are kept for all replicas; implemented by the fleet stores."""

    def put_kill(self, kill: KillSwitch) -> Awaitable[int]:
        """Store one, unless a later state of it is there. Errors: CoordinatorUnavailable."""
        ...

    def list_kills(
        self, *, include_released: bool = False
    ) -> Awaitable[tuple[int, list[KillSwitch]]]:
        """Return all that are kept. Errors: CoordinatorUnavailable."""
        ...

    def append_audit(self, records: Sequence[AuditRecord]) -> Awaitable[None]:
        """Append audit records. Errors: CoordinatorUnavailable."""
        ...


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What the database has not got yet: a switch's new state, None for a drill; who did that."""

    switch: KillSwitch | None
    audit: AuditRecord


class KillBook:
    """All switches that this replica knows of."""

    def __init__(
        self,
        store: KillStore,
        journal: Path,
        tell: Callable[[pb.KillList], None],
        *,
        storing: Callable[[Coroutine[Any, Any, bool]], Awaitable[bool]] = lambda work: work,
    ) -> None:
        """Read the journal; `storing` says how long an operator waits for the database."""
        self._storing = storing
        self._store = store
        self._journal = journal
        self._tell = tell
        self.switches: dict[str, KillSwitch] = {}
        self._unstored: list[_Entry] = []
        self._is_storing = False
        self.version = 0
        for line in journal.read_bytes().splitlines() if journal.exists() else ():
            entry = _read(line)
            if entry is not None:
                self._unstored.append(entry)
        if self._merge(entry.switch for entry in self._unstored if entry.switch is not None):
            tell(self.message())

    def get(self, kill_id: str) -> KillSwitch | None:
        """Return a switch, engaged or released."""
        return self.switches.get(kill_id)

    async def put(self, switch: KillSwitch, audit: AuditRecord) -> bool:
        """Put a switch's new state in force everywhere; whether the database has it yet.

        Ensures: it survives a kill -9 of this replica once this has returned, or has told anybody.
        Errors:  StoreUnavailable if the journal cannot be written; then nobody was told.
        """
        self._enter(_Entry(switch=switch, audit=audit))
        self._merge([switch])
        self._tell(self.message())
        return await self._storing(self.store_all())

    async def note(self, audit: AuditRecord) -> bool:
        """Have it audited that a switch was drilled; whether the database has it yet.

        Errors:  StoreUnavailable if the journal cannot be written.
        """
        self._enter(_Entry(switch=None, audit=audit))
        return await self._storing(self.store_all())

    def learn(self, switches: Iterable[KillSwitch]) -> None:
        """Take over what the database has already, such as a budget's halt; tell everybody."""
        if self._merge(switches):
            self._tell(self.message())

    async def store_all(self) -> bool:
        """Store what only the journal has; whether all of it is stored.

        Ensures: each entry is stored once, also where a beat comes while an operator's is stored:
                 whoever came first stores what was added meanwhile.
        """
        if self._is_storing:
            return False
        self._is_storing = True
        try:
            while self._unstored:
                entry = self._unstored[0]
                if entry.switch is not None:
                    await self._store.put_kill(entry.switch)
                await self._store.append_audit([entry.audit])
                self._unstored.remove(entry)
                # Where it cannot be written it still has this entry, which is stored once more.
                with contextlib.suppress(StoreUnavailable):
                    self._write_journal()
        except CoordinatorUnavailable:
            return False
        finally:
            self._is_storing = False
        return True

    async def refresh(self, now_ns: int) -> None:
        """Learn what other replicas stored; tell everybody if something is new.

        Ensures: what a database that was set back to a backup lacks is stored there again.
        Errors:  CoordinatorUnavailable.
        """
        await self.store_all()
        known = [] if self._unstored else list(self.switches.values())
        _, kept = await self._store.list_kills(include_released=True)
        changed_ns = {switch.kill_id: switch.changed_ns for switch in kept}
        for switch in known:
            if (
                not _is_over(switch, now_ns)
                and changed_ns.get(switch.kill_id, -1) < switch.changed_ns
            ):
                await self._store.put_kill(switch)
        # The store keeps them for longer, as it keeps the audit.
        self.learn(switch for switch in kept if not _is_over(switch, now_ns))
        for kill_id, switch in list(self.switches.items()):
            if _is_over(switch, now_ns):
                del self.switches[kill_id]

    def message(self) -> pb.KillList:
        """What daemons are told."""
        return pb.KillList(
            version=self.version,
            kills=[wire.kill_to_pb(switch) for switch in self.switches.values()],
        )

    def _merge(self, told: Iterable[KillSwitch]) -> bool:
        """Take over what is later than what is known."""
        changed = False
        for switch in told:
            known = self.switches.get(switch.kill_id)
            if known is None or known.changed_ns < switch.changed_ns:
                self.switches[switch.kill_id] = switch
                self.version = max(self.version + 1, switch.changed_ns)
                changed = True
        return changed

    def _enter(self, entry: _Entry) -> None:
        """Write it to the journal, or leave all as it was."""
        self._unstored.append(entry)
        try:
            self._write_journal()
        except StoreUnavailable:
            self._unstored.pop()
            raise

    def _write_journal(self) -> None:
        if not self._unstored and not self._journal.exists():
            return
        beside = self._journal.with_suffix(".new")
        try:
            with beside.open("wb") as file:
                for entry in self._unstored:
                    file.write(msgspec.json.encode(entry) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._journal)
        except OSError as error:
            raise StoreUnavailable(
                f"{self._journal} cannot be written ({error.strerror}); the kill switch is not "
                "engaged here: make room, or engage it at the daemons' own sockets"
            ) from error


async def stored_soon(work: Coroutine[Any, Any, bool]) -> bool:
    """Wait a moment for the database; one that hangs must not keep an operator from an answer."""
    task = asyncio.create_task(work)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    await asyncio.wait({task}, timeout=STORED_WITHIN_S)
    return task.done() and task.result()


_under_way: Final[set[asyncio.Task[bool]]] = set()
"""The loop itself refers to tasks weakly."""


def _is_over(switch: KillSwitch, now_ns: int) -> bool:
    """Tell whether a switch was released so long ago that nobody needs to be told."""
    return 0 < switch.released_ns < now_ns - KEEP_NS


def _read(line: bytes) -> _Entry | None:
    try:
        return msgspec.json.decode(line, type=_Entry)
    except msgspec.DecodeError:
        return None  # the end of a file that was cut; `replace` makes this all but impossible
