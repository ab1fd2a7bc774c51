"""One daemon from start to stop: open the books, serve, reload, drain, close."""

import asyncio
import gc
import os
import signal
from functools import partial

import grpc

from costd import __version__
from costd.clock import ticks_ns
from costd.daemon import meters, money_meters
from costd.daemon.admission import AdmissionService
from costd.daemon.books.refusals import audit_refusal
from costd.daemon.clients.attach import Attach
from costd.daemon.control import ControlService
from costd.daemon.envoy import EnvoyService
from costd.daemon.fleet import leaving
from costd.daemon.parts import Parts, assemble
from costd.daemon.servers import ADMISSION, CONTROL, ENVOY, ENVOY_NAME, Servers
from costd.daemon.settings import Settings
from costd.grants import load_public_key
from costd.serving.background import background
from costd.serving.calls import Calls
from costd.serving.certificates import certificate_files
from costd.serving.guard import Guard
from costd.serving.loop import run_until_signalled
from costd.serving.metered import meter_calls, meter_certificate, metered
from costd.serving.spans import Spans, spans_to
from costd.serving.stop import Stop
from costd.serving.supervisor import READY, STOPPING, tell_supervisor
from costd.store.rocks import STORE_FOLDER, RocksStore
from costd.telemetry.exports import NO_EXPORTS, Exports
from costd.telemetry.logs import Log
from costd.telemetry.metrics import Metrics
from costd.trust import Authenticator, Kind, TlsFiles


def run(settings: Settings, log: Log, exports: Exports = NO_EXPORTS) -> None:
    """Run a daemon in this process until SIGTERM or SIGINT.

    Errors: as `serve`.
    """
    run_until_signalled(lambda stop: serve(settings, log, stop, exports))


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
        parts = assemble(settings, store, log)
        async with (
            metered(settings.name, settings.metrics_endpoint, log, exports) as metrics,
            Servers(settings, log, files) as servers,
            background(log, *parts.work()),
        ):
            _meter(metrics, parts, files)
            served = parts.fleet is None or await parts.fleet.ready(stop.asked)
            if served:
                spans = _spans(parts, exports)
                await _serve_agents_and_operators(parts, servers, files, spans)
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, parts.hangup.set)
                _tell_serving(parts, servers, started_ns=started_ns)
                await _until_drained(parts, servers, stop)
        if served:
            parts.save()
    finally:
        store.close()
    log.info("stopped")


async def _serve_agents_and_operators(
    parts: Parts, servers: Servers, files: TlsFiles | None, spans: Spans | None
) -> None:
    for file in parts.kill_files:
        file.read()  # again: what tiers there are is known by now
    calls = Calls(figures=parts.figures, log=parts.log, durable=parts.durable, spans=spans)
    control = ControlService(
        parts.ledger,
        parts.policy,
        parts.desk,
        data_dir=str(parts.settings.data),
        durability=parts.settings.durability,
        flush=parts.durable.wait if parts.durable else None,
        kill_file_problem=lambda: "".join(file.problem for file in parts.kill_files),
    )
    await servers.start(
        agents=_for_agents(parts, calls),
        operators=[calls.handlers(CONTROL, control, guard=_guard(parts, files))],
    )


def _spans(parts: Parts, exports: Exports) -> Spans | None:
    """Make spans of calls, and of their waits for leases, where traces are exported."""
    spans = spans_to(exports.tracer, parts.log, labels=parts.settings.trace_labels)
    if spans is not None and parts.patience is not None:
        parts.patience.waits = spans.waiting
    return spans


def _for_agents(parts: Parts, calls: Calls) -> list[grpc.GenericRpcHandler]:
    """What is served at the agents' addresses; gRPC asks them in turn, so the busiest is first."""
    admission = AdmissionService(parts.ledger, parts.patience)
    envoy = EnvoyService(parts.ledger, admission, parts.log)
    return [
        calls.handlers(ADMISSION, admission, streams={"Attach": _attach(parts)}),
        calls.handlers(ENVOY, envoy, served_as=ENVOY_NAME),
    ]


async def _until_drained(parts: Parts, servers: Servers, stop: Stop) -> None:
    await stop.asked.wait()
    tell_supervisor(STOPPING)
    parts.log.info("draining", open_count=parts.figures.open_count)
    await servers.drain(parts.figures, stop.insisted)
    left_behind = leaving.left_behind(parts.desk)
    await servers.cut()
    if parts.fleet is not None:
        leave = leaving.Leaving(parts.fleet, parts.desk, left_behind)
        await leave.within(parts.settings.leave_s, stop.insisted, parts.log)


def _tell_serving(parts: Parts, servers: Servers, *, started_ns: int) -> None:
    # What start-up made lives until the end; the collector need not walk it again.
    gc.collect()
    gc.freeze()
    tell_supervisor(READY)
    parts.log.info(
        "serving",
        version=__version__,
        name=parts.settings.name,
        pid=os.getpid(),
        data=str(parts.settings.data),
        policy=parts.policy.path,
        revision=parts.policy.policy.revision,
        started_in_ms=(ticks_ns() - started_ns) // 1_000_000,
        **servers.addresses,
    )


def _tls_files(settings: Settings, log: Log) -> TlsFiles | None:
    """Read the certificate for what is served over TCP, if there is to be one."""
    if settings.tls_cert is None:
        return None
    ca = settings.tls_ca if settings.tls_verify_clients else None
    return certificate_files(settings, log, Kind.DAEMON, ca)


def _guard(parts: Parts, files: TlsFiles | None) -> Guard:
    """Watch over the operators' calls, whichever way they come."""
    settings, ledger = parts.settings, parts.ledger
    authenticator = Authenticator(
        wall_ns=lambda: ledger.clock.now().wall_ns,
        audiences=(settings.name,),
        keys={key_id: load_public_key(key) for key_id, key in settings.control_keys.items()},
        files=files,
    )
    return Guard(CONTROL.full_name, authenticator, partial(audit_refusal, ledger))


def _meter(metrics: Metrics, parts: Parts, files: TlsFiles | None) -> None:
    meter_certificate(metrics, files)
    meters.meter_ledger(metrics, parts.ledger)
    money_meters.meter_spending(metrics, parts.ledger)
    money_meters.meter_budgets(metrics, parts.ledger)
    meters.meter_allowances(metrics, parts.desk)
    meters.meter_upkeep(metrics, parts.upkeep, parts.sweeper)
    meters.meter_policy(metrics, parts.policy)
    meters.meter_kill_files(metrics, parts.kill_files)
    if parts.fleet is not None:
        meters.meter_fleet(metrics, parts.fleet)
    clock = parts.timekeeper.clock
    meter_calls(metrics, parts.figures, now_ns=lambda: clock.now().wall_ns)


def _attach(parts: Parts) -> Attach:
    """Streams stay: a quarter of what may be open is left to calls."""
    count_max = max(1, parts.settings.rpcs_count_max * 3 // 4)
    return Attach(parts.desk, parts.durable, streams_count_max=count_max)
