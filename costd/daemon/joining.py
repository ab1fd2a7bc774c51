"""Make a daemon a member of the fleet that its settings name."""

from typing import Final

import grpc

from costd import __version__
from costd.daemon.clients.desk import Desk
from costd.daemon.fleet.fleet import Fleet
from costd.daemon.fleet.policy import FleetPolicy
from costd.daemon.fleet.tenancy import Situation
from costd.daemon.settings import Settings
from costd.daemon.timekeeping import Timekeeper
from costd.serving.certificates import certificate_files
from costd.telemetry.logs import Log
from costd.trust import Kind, channel_credentials, expecting

CHANNEL_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # A coordinator whose host is gone without a word is noticed after a few seconds.
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def membership(
    settings: Settings, log: Log, desk: Desk, *, policy: FleetPolicy, timekeeper: Timekeeper
) -> Fleet:
    """Make a member of what stands behind a desk; `run` joins.

    Errors:  TlsFault for certificates that cannot be used.
    """
    files = None
    if settings.coordinator_insecure:
        log.warning(
            "coordinator_insecure",
            coordinator=",".join(settings.coordinator),
            problem="nothing encrypts or authenticates the coordinator; anybody there is believed",
        )
    else:
        files = certificate_files(settings, log, Kind.DAEMON, settings.tls_ca)

    def open_channel(target: str) -> grpc.aio.Channel:
        if files is None:
            return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        options = (*CHANNEL_OPTIONS, *expecting(Kind.COORDINATOR))
        return grpc.aio.secure_channel(target, channel_credentials(files), options=options)

    situation = Situation(name=settings.name, version=__version__, boot_id=timekeeper.clock.boot_id)
    return Fleet(
        desk,
        policy=policy,
        situation=situation,
        log=log,
        targets=settings.coordinator,
        open_channel=open_channel,
        lost_by_reboot=not timekeeper.stopped_cleanly and settings.durability != "disk",
        outbox_count_max=settings.outbox_count_max if settings.outbox_full == "deny" else 0,
    )
