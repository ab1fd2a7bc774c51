"""One daemon from start to stop: open the books, serve, reload, drain, close."""

import asyncio
import gc
import os
import signal
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from costd import __version__
from costd.clock import ticks_ns
from costd.daemon import meters, money_meters
from costd.daemon.admission import AdmissionService
from costd.daemon.allowances import AllowanceBooks
from costd.daemon.asking import Trust
from costd.daemon.attach import Attach
from costd.daemon.control import ControlService
from costd.daemon.desk import Desk
from costd.daemon.durable import GroupSync
from costd.daemon.fleet import Fleet
from costd.daemon.fleet_policy import FleetPolicy
from costd.daemon.joining import membership
from costd.daemon.kill_file import KillFile
from costd.daemon.ledger import Ledger
from costd.daemon.pages import FilePages, NoPages, Pages
from costd.daemon.refusals import audit_refusal
from costd.daemon.reload import PolicyFile, follow_signal, watch
from costd.daemon.servers import ADMISSION, CONTROL, Servers
from costd.daemon.settings import Settings
from costd.daemon.sweeper import Retention, Sweeper
from costd.daemon.timekeeping import Timekeeper
from costd.daemon.upkeep import Upkeep
from costd.grants import load_public_key
from costd.serving import sockets
from costd.serving.background import background
from costd.serving.calls import CallFigures, Calls
from costd.serving.guard import Guard
from costd.serving.loop import new_loop
from costd.serving.metered import metered
from costd.serving.spans import Spans, spans_to
from costd.serving.stop import Stop
from costd.store.rocks import STORE_FOLDER, RocksStore
from costd.telemetry.exports import NO_EXPORTS, Exports
from costd.telemetry.logs import Log
from costd.telemetry.metrics import Metrics
from costd.trust import Authenticator, Kind, TlsFiles

SWEEP_SLICE_COUNT: Final = 100
"""About 10 ms of expiring; asks are answered between slices."""


def run(settings: Settings, log: Log, exports: Exports = NO_EXPORTS) -> None:
    """Run a daemon in this process until SIGTERM or SIGINT.

    Errors: as `serve`.
    """
    with asyncio.Runner(loop_factory=new_loop()) as runner:
        runner.run(_serve_until_signalled(settings, log, exports))


async def _serve_until_signalled(settings: Settings, log: Log, exports: Exports) -> None:
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
    await serve(settings, log, stop, exports)


async def serve(settings: Settings, log: Log, stop: Stop, exports: Exports = NO_EXPORTS) -> None:
    """Run a daemon until it is asked to stop.

    Ensures: on return the books are written out and closed, and the sockets are gone.
    Errors:  InvalidPolicy, StoreUnavailable, StoreCorrupt, CannotListen, TlsFault; nothing was
             served.
    """
    started_ns = ticks_ns()
    files = _tls_files(settings, log)
    store = RocksStore(settings.data / STORE_FOLDER)
    try:
        timekeeper = Timekeeper(store)
        policy = _policy(settings, store, timekeeper, log)
        ledger = _ledger(settings, store, policy, timekeeper)
        hangup = asyncio.Event()
        books = AllowanceBooks(ledger)
        desk = Desk(ledger, books, _pages(settings, log, books))
        sweeper = Sweeper(ledger, _retention(settings), desk)
        upkeep = Upkeep(sweeper, timekeeper, log)
        durable = GroupSync(store.sync) if settings.durability == "disk" else None
        figures = CallFigures()
        kill_files = _kill_files(settings, ledger, log)
        following = _following(policy, kill_files, hangup, log)
        fleet: Fleet | None = None
        if isinstance(policy, FleetPolicy):
            fleet = membership(settings, log, desk, policy=policy, timekeeper=timekeeper)
            following.append(fleet.run())
        async with (
            metered(settings.name, settings.metrics_endpoint, log, exports) as metrics,
            Servers(settings, log, files) as servers,
            background(log, upkeep.run(), *following),
        ):
            _meter(metrics, upkeep, sweeper, policy)
            meters.meter_kill_files(metrics, kill_files)
            if fleet is not None:
                meters.meter_fleet(metrics, fleet)
                if not await fleet.ready(stop.asked):
                    log.info("stopped")
                    return
            for file in kill_files:
                file.read()  # again: what tiers there are is known by now
            meters.meter_calls(metrics, figures, now_ns=lambda: timekeeper.clock.now().wall_ns)
            spans = _spans(settings, exports, fleet)
            calls = Calls(figures=figures, log=log, durable=durable, spans=spans)
            control = ControlService(
                ledger,
                policy,
                desk,
                data_dir=str(settings.data),
                durability=settings.durability,
                flush=durable.wait if durable else None,
                kill_file_problem=lambda: "".join(file.problem for file in kill_files),
            )
            await servers.start(
                admission=calls.handlers(
                    ADMISSION,
                    AdmissionService(ledger, fleet.patience if fleet else None),
                    streams={"Attach": _attach(settings, desk, durable)},
                ),
                control=calls.handlers(CONTROL, control, guard=_guard(settings, files, ledger)),
            )
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
            _tell_serving(settings, log, policy, servers, started_ns=started_ns)
            await stop.asked.wait()
            log.info("draining", open_count=figures.open_count)
            await servers.drain(figures, stop.insisted)
            if fleet is not None:
                await fleet.leave()
        upkeep.tell_alerts()
        sweeper.save()
        timekeeper.stop()
        store.sync()
    finally:
        store.close()
    log.info("stopped")


def _spans(settings: Settings, exports: Exports, fleet: Fleet | None) -> Spans | None:
    """Make spans of calls, and of their waits for leases, where traces are exported."""
    spans = spans_to(exports.tracer, labels=settings.trace_labels)
    if spans is not None and fleet is not None:
        fleet.patience.waits = spans.waiting
    return spans


def _tell_serving(
    settings: Settings,
    log: Log,
    policy: PolicyFile | FleetPolicy,
    servers: Servers,
    *,
    started_ns: int,
) -> None:
    # What start-up made lives until the end; the collector need not walk it again.
    gc.collect()
    gc.freeze()
    log.info(
        "serving",
        version=__version__,
        name=settings.name,
        pid=os.getpid(),
        data=str(settings.data),
        policy=policy.path,
        revision=policy.policy.revision,
        started_in_ms=(ticks_ns() - started_ns) // 1_000_000,
        **servers.addresses,
    )


def _policy(
    settings: Settings, store: RocksStore, timekeeper: Timekeeper, log: Log
) -> PolicyFile | FleetPolicy:
    """Say where the policy comes from: a file, or the coordinator."""
    if settings.policy is None:
        return FleetPolicy(store, timekeeper.clock, log)
    return PolicyFile(settings.policy.absolute(), timekeeper.clock, log)


def _tls_files(settings: Settings, log: Log) -> TlsFiles | None:
    """Read the certificate for what is served over TCP, if there is to be one."""
    if settings.tls_cert is None:
        return None
    return TlsFiles(
        certificate=settings.tls_cert,
        key=settings.tls_key,
        ca=settings.tls_ca if settings.tls_verify_clients else None,
        kinds=(Kind.DAEMON,),
        tell=lambda problem: log.error("tls_files_refused", problem=problem),
    )


def _guard(settings: Settings, files: TlsFiles | None, ledger: Ledger) -> Guard:
    """Watch over the operators' calls, whichever way they come."""
    authenticator = Authenticator(
        wall_ns=lambda: ledger.clock.now().wall_ns,
        audiences=(settings.name,),
        keys={key_id: load_public_key(key) for key_id, key in settings.control_keys.items()},
        files=files,
    )
    return Guard(CONTROL.full_name, authenticator, partial(audit_refusal, ledger))


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


def _meter(
    metrics: Metrics, upkeep: Upkeep, sweeper: Sweeper, file: PolicyFile | FleetPolicy
) -> None:
    meters.meter_ledger(metrics, sweeper.ledger)
    money_meters.meter_spending(metrics, sweeper.ledger)
    money_meters.meter_budgets(metrics, sweeper.ledger)
    if sweeper.desk is not None:
        meters.meter_allowances(metrics, sweeper.desk)
    meters.meter_upkeep(metrics, upkeep, sweeper)
    meters.meter_policy(metrics, file)


def _attach(settings: Settings, desk: Desk, durable: GroupSync | None) -> Attach:
    """Streams stay: a quarter of what may be open is left to calls."""
    return Attach(desk, durable, streams_count_max=max(1, settings.rpcs_count_max * 3 // 4))


def _pages(settings: Settings, log: Log, books: AllowanceBooks) -> Pages:
    """Make the pages beside the socket; without them, clients hear of changes by the stream."""
    socket = settings.socket.absolute()
    sockets.claim(socket)  # before anything of another daemon's is touched
    try:
        pages = FilePages(socket, mode=settings.socket_mode_bits)
        pages.keep_only({session.page for session in books.sessions.values()})
    except OSError as error:
        log.warning("pages_unavailable", problem=str(error))
        return NoPages()
    return pages


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


def _kill_files(settings: Settings, ledger: Ledger, log: Log) -> list[KillFile]:
    """Put in force what the watched file names, if there is to be one, before anybody asks."""
    if settings.kill_file is None:
        return []
    file = KillFile(settings.kill_file.absolute(), ledger, log)
    file.read()
    return [file]


def _retention(settings: Settings) -> Retention:
    return Retention(
        counters_s=settings.counters_retention_s,
        usage_s=settings.usage_retention_s,
        alerts_s=settings.alerts_retention_s,
        audit_s=settings.audit_retention_s,
        runs_idle_s=settings.runs_retention_s,
        slice_count=SWEEP_SLICE_COUNT,
    )
