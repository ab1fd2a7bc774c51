"""One coordinator from start to stop: the database, the policy, the streams, the operators."""

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from costd import __version__
from costd.clock import Clock, SystemClock, ticks_ns
from costd.coordinator import meters
from costd.coordinator.control import FleetControlService
from costd.coordinator.database import Database
from costd.coordinator.drills import Drills
from costd.coordinator.embedded import EmbeddedPostgres
from costd.coordinator.join import Join
from costd.coordinator.killbook import KillBook, stored_soon
from costd.coordinator.lease_spans import LeaseSpans
from costd.coordinator.listen import is_heard
from costd.coordinator.migrate import Migrator, Plan
from costd.coordinator.operators import ControlService
from costd.coordinator.postgres import PostgresStore
from costd.coordinator.publishing import Publishing
from costd.coordinator.reception import Reception
from costd.coordinator.servers import CONTROL, FLEET, FLEET_CONTROL, Servers
from costd.coordinator.settings import Settings
from costd.coordinator.upkeep import Upkeep
from costd.errors import StoreUnavailable
from costd.serving.background import background
from costd.serving.calls import CallFigures, Calls
from costd.serving.loop import run_until_signalled
from costd.serving.metered import meter_calls, meter_certificate, metered
from costd.serving.spans import spans_to
from costd.serving.stop import Stop
from costd.serving.supervisor import READY, STOPPING, tell_supervisor
from costd.telemetry.exports import NO_EXPORTS, Exports
from costd.telemetry.logs import Log
from costd.telemetry.metrics import Metrics
from costd.trust import peer_of

DATABASE_WAIT_S: Final = 60.0
"""How long a start waits for a database that is not there yet: in a pod both start at once."""


def run(settings: Settings, log: Log, exports: Exports = NO_EXPORTS) -> None:
    """Run a coordinator in this process until SIGTERM or SIGINT.

    Errors: as `serve`.
    """
    run_until_signalled(lambda stop: serve(settings, log, stop, exports))


async def plan(settings: Settings) -> tuple[str, Plan | None]:
    """Tell where the database is and what a start would do to it; changes nothing.

    Shape:   None where there is no database yet, which a start would make.
    Errors:  CoordinatorUnavailable, StoreCorrupt.
    """
    embedded = _embedded(settings)
    if embedded is not None and not embedded.exists():
        return str(embedded.cluster), None
    async with _database(settings, embedded) as database:
        await database.open()
        return database.where, await Migrator(database, release=__version__).plan()


async def serve(settings: Settings, log: Log, stop: Stop, exports: Exports = NO_EXPORTS) -> None:
    """Run a coordinator until it is asked to stop.

    Errors:  InvalidPolicy, CoordinatorUnavailable, StoreCorrupt, CannotListen, TlsFault; nothing
             was served.
    """
    started_ns = ticks_ns()
    _make(settings.data)
    clock = SystemClock()
    instance_id = f"{settings.name}-{uuid.uuid4().hex[:12]}"
    async with contextlib.AsyncExitStack() as stack:
        embedded = _embedded(settings)
        database = await stack.enter_async_context(_database(settings, embedded))
        if not await database.open(
            wait_s=DATABASE_WAIT_S,
            stopped=stop.asked,
            tell=lambda problem: log.warning("waiting_for_database", problem=problem),
        ):
            log.info("stopped")
            return
        migrator = Migrator(database, release=__version__)
        await _migrate(migrator, instance_id, settings, log)
        polls = await _polls(settings, database, log)
        store = PostgresStore(database, wall_ns=lambda: clock.now().wall_ns, polls=polls)
        publishing = Publishing(store, clock, log)
        published = await publishing.first(settings.policy)
        reception = Reception(store, clock, published, settings.span)
        publishing.reception = reception
        kills = KillBook(
            store, settings.data / "kills.journal", reception.kill, storing=stored_soon
        )
        await kills.refresh(clock.now().wall_ns)
        reception.halted = kills.learn
        lease_spans = LeaseSpans(exports.tracer) if exports.tracer is not None else None
        join = Join(reception, log, peer_of=_certified_name, spans=lease_spans)
        drills = Drills(store, reception, clock, instance_id)
        upkeep = Upkeep(
            store,
            migrator,
            instance_id,
            clock=clock,
            log=log,
            reception=reception,
            publishing=publishing,
            kills=kills,
            drills=drills,
            settings=settings,
            revive=embedded.start if embedded else None,
        )
        metrics = await stack.enter_async_context(
            metered(settings.name, settings.metrics_endpoint, log, exports)
        )
        meters.meter_fleet(metrics, reception, join, kills, upkeep, alerts=store.alerts)
        servers = await stack.enter_async_context(Servers(settings, log, clock, store))
        meter_certificate(metrics, servers.files)
        beside = (
            *(join.run(), upkeep.run(), upkeep.listen(), drills.tell()),
            *(upkeep.forget(), upkeep.contract()),
        )
        await stack.enter_async_context(background(log, *beside))
        control = ControlService(store, reception, kills, clock, settings.name)
        fleet = FleetControlService(store, reception, kills, clock, publishing, drills=drills)
        calls = Calls(
            figures=_figures(metrics, clock), log=log, spans=spans_to(exports.tracer, log)
        )
        await servers.start(_handlers(servers, calls, join, control, fleet))
        told = {"database": database.where, "policy": reception.published.message.number}
        _tell_coordinating(settings, log, told | servers.addresses, started_ns=started_ns)
        await stop.asked.wait()
        tell_supervisor(STOPPING)
        log.info("draining", daemons=len(reception.attached))
        await servers.drain()
        await _leave(upkeep.leave(), database, settings, log)
    log.info("stopped")


def _tell_coordinating(
    settings: Settings, log: Log, told: dict[str, Any], *, started_ns: int
) -> None:
    tell_supervisor(READY)
    log.info(
        "coordinating",
        version=__version__,
        name=settings.name,
        pid=os.getpid(),
        started_in_ms=(ticks_ns() - started_ns) // 1_000_000,
        **told,
    )


async def _migrate(migrator: Migrator, instance_id: str, settings: Settings, log: Log) -> None:
    """Bring the database to this release, and register this replica in it."""
    migrated = await migrator.run(instance_id, address=settings.listen)
    for each in (*migrated.expansions, *migrated.contractions):
        log.info("migrated", migration=str(each))


async def _leave(
    word: Coroutine[Any, Any, None], database: Database, settings: Settings, log: Log
) -> None:
    """Tell the database that this replica is gone, if it listens."""
    leaving = asyncio.create_task(word)
    await asyncio.wait({leaving}, timeout=settings.drain_s)
    is_silent = not leaving.done()
    if is_silent:
        log.warning("database_left", problem=f"{database.where} does not answer")
        database.cut()
    try:
        await leaving
    except Exception as error:  # noqa: BLE001  whatever that was, this replica stops
        if not is_silent:
            log.warning("database_left", problem=str(error))


def _figures(metrics: Metrics, clock: Clock) -> CallFigures:
    """Count calls, where metrics see it."""
    figures = CallFigures()
    meter_calls(metrics, figures, now_ns=lambda: clock.now().wall_ns)
    return figures


def _handlers(
    servers: Servers, calls: Calls, join: Join, control: ControlService, fleet: FleetControlService
) -> dict[ServiceDescriptor, grpc.GenericRpcHandler]:
    """Wrap the services, each with who watches over it."""
    return {
        FLEET: calls.handlers(FLEET, None, streams={"Join": join}, guard=servers.guard(FLEET)),
        CONTROL: calls.handlers(CONTROL, control, guard=servers.guard(CONTROL), some=True),
        FLEET_CONTROL: calls.handlers(FLEET_CONTROL, fleet, guard=servers.guard(FLEET_CONTROL)),
    }


def _certified_name(context: Any) -> str:
    """Who a stream is from, as far as a certificate says."""
    peer = peer_of(context)
    return peer.name if peer is not None else ""


def _make(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"data: {data} cannot be made ({error.strerror}); name another directory"
        ) from error


async def _polls(settings: Settings, database: Database, log: Log) -> bool:
    """Choose how replicas tell each other."""
    if settings.notices != "auto":
        return settings.notices == "poll"
    if await is_heard(database):
        return False
    log.warning(
        "notices_polled",
        problem=f"{database.where} carries no notifications; replicas ask it again and again, and "
        "all of them must: say notices: poll for each",
    )
    return True


def _embedded(settings: Settings) -> EmbeddedPostgres | None:
    """The database of our own, where none is named."""
    if settings.database_url.get_secret_value():
        return None
    return EmbeddedPostgres(settings.data)


@contextlib.asynccontextmanager
async def _database(
    settings: Settings, embedded: EmbeddedPostgres | None
) -> AsyncIterator[Database]:
    """Name the database, not opened yet; one of our own runs until this ends."""
    url = settings.database_url.get_secret_value()
    if embedded is not None:
        url = await asyncio.to_thread(embedded.start)
    try:
        database = Database(url)
        try:
            yield database
        finally:
            await database.close()
    finally:
        if embedded is not None:
            await asyncio.to_thread(embedded.stop)
