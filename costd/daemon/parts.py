"""What one daemon is made of, put together before anything is served."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from costd.daemon.books.asking import Trust
from costd.daemon.books.durable import GroupSync
from costd.daemon.books.ledger import Ledger
from costd.daemon.clients.allowances import AllowanceBooks
from costd.daemon.clients.desk import Desk
from costd.daemon.clients.pages import FilePages, NoPages, Pages
from costd.daemon.fleet.fleet import Fleet
from costd.daemon.fleet.patience import Patience
from costd.daemon.fleet.policy import FleetPolicy
from costd.daemon.joining import membership
from costd.daemon.kill_file import KillFile
from costd.daemon.reload import PolicyFile, follow_signal, watch
from costd.daemon.settings import Settings
from costd.daemon.sweeper import Retention, Sweeper
from costd.daemon.timekeeping import Timekeeper
from costd.daemon.upkeep import Upkeep
from costd.serving import sockets
from costd.serving.calls import CallFigures
from costd.store.rocks import RocksStore
from costd.telemetry.logs import Log

SWEEP_SLICE_COUNT: Final = 100
"""About 10 ms of expiring; asks are answered between slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A daemon's parts, each made once and known to those that need it."""

    settings: Settings
    log: Log
    timekeeper: Timekeeper
    policy: PolicyFile | FleetPolicy
    ledger: Ledger
    desk: Desk
    sweeper: Sweeper
    upkeep: Upkeep
    durable: GroupSync | None
    kill_files: Sequence[KillFile]
    fleet: Fleet | None
    hangup: asyncio.Event
    figures: CallFigures

    @property
    def patience(self) -> Patience | None:
        """Who waits for leases; None where there is no coordinator."""
        return self.fleet.patience if self.fleet else None

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What goes on beside the services, each until cancelled."""
        following = _following(self.policy, self.kill_files, self.hangup, self.log)
        fleet = [self.fleet.run()] if self.fleet else []
        return [self.upkeep.run(), *following, *fleet]

    def save(self) -> None:
        """Write out what is only stored now and then, once nothing is served any more."""
        self.upkeep.tell_alerts()
        self.sweeper.save()
        self.timekeeper.stop()
        self.ledger.store.sync()


def assemble(settings: Settings, store: RocksStore, log: Log) -> Parts:
    """Put a daemon together over its open store; kill switches are in force on return.

    Errors:  InvalidPolicy, StoreUnavailable, StoreCorrupt, CannotListen, TlsFault.
    """
    timekeeper = Timekeeper(store)
    policy = _policy(settings, store, timekeeper, log)
    ledger = _ledger(settings, store, policy, timekeeper)
    books = AllowanceBooks(ledger)
    desk = Desk(ledger, books, _pages(settings, log, books))
    sweeper = Sweeper(ledger, _retention(settings), desk)
    kill_files = _kill_files(settings, ledger, log)
    fleet: Fleet | None = None
    if isinstance(policy, FleetPolicy):
        fleet = membership(settings, log, desk, policy=policy, timekeeper=timekeeper)
    return Parts(
        settings=settings,
        log=log,
        timekeeper=timekeeper,
        policy=policy,
        ledger=ledger,
        desk=desk,
        sweeper=sweeper,
        upkeep=Upkeep(sweeper, timekeeper, log),
        durable=GroupSync(store.sync) if settings.durability == "disk" else None,
        kill_files=kill_files,
        fleet=fleet,
        hangup=asyncio.Event(),
        figures=CallFigures(),
    )


def _policy(
    settings: Settings, store: RocksStore, timekeeper: Timekeeper, log: Log
) -> PolicyFile | FleetPolicy:
    """Say where the policy comes from: a file, or the coordinator."""
    if settings.policy is None:
        return FleetPolicy(store, timekeeper.clock, log)
    return PolicyFile(settings.policy.absolute(), timekeeper.clock, log)


def _ledger(
    settings: Settings, store: RocksStore, file: PolicyFile | FleetPolicy, timekeeper: Timekeeper
) -> Ledger:
    """Open the books under the policy in force, which its source governs from then on."""
    ledger = Ledger(
        store,
        file.policy,
        timekeeper.clock,
        trust=Trust(settings.name, dict(settings.labels_fixed), frozenset(settings.claims)),
        closed_keep_s=settings.reservations_retention_s,
        in_fleet=bool(settings.coordinator),
    )
    file.govern(ledger)
    return ledger


def _pages(settings: Settings, log: Log, books: AllowanceBooks) -> Pages:
    """Make the pages beside the socket; without them, clients hear of changes by the stream."""
    socket = settings.socket.absolute()
    sockets.claim(
        socket, settings.socket_mode_bits
    )  # before anything of another daemon's is touched
    try:
        pages = FilePages(socket, mode=settings.socket_mode_bits)
        pages.keep_only({session.page for session in books.sessions.values()})
    except OSError as error:
        log.warning("pages_unavailable", problem=str(error))
        return NoPages()
    return pages


def _kill_files(settings: Settings, ledger: Ledger, log: Log) -> list[KillFile]:
    """Put in force what the watched file names, if there is to be one, before anybody asks."""
    if settings.kill_file is None:
        return []
    file = KillFile(settings.kill_file.absolute(), ledger, log)
    file.read()
    return [file]


def _following(
    policy: PolicyFile | FleetPolicy,
    kill_files: Sequence[KillFile],
    hangup: asyncio.Event,
    log: Log,
) -> list[Coroutine[Any, Any, None]]:
    """What follows files, each until cancelled."""
    following = [watch(file.path, file.follow, log) for file in kill_files]
    if isinstance(policy, PolicyFile):
        following.append(watch(Path(policy.path), policy.follow, log))
        following.append(follow_signal(policy, hangup))
    return following


def _retention(settings: Settings) -> Retention:
    return Retention(
        counters_s=settings.counters_retention_s,
        usage_s=settings.usage_retention_s,
        alerts_s=settings.alerts_retention_s,
        audit_s=settings.audit_retention_s,
        runs_idle_s=settings.runs_retention_s,
        slice_count=SWEEP_SLICE_COUNT,
    )
