"""What an operator sets for one coordinator: flags, then environment, then file, then defaults."""

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, SecretStr

from costd import address
from costd.configuration import Configured, SettingsError, load
from costd.coordinator.lendable import Span
from costd.endpoint import Endpoint, endpoint_or_fault, parse_endpoint
from costd.grants import key_faults
from costd.model.time import NS_PER_S
from costd.serving.settings import (
    ControlKeys,
    LogFormat,
    LogLevel,
    MetricsListen,
    TlsKey,
    certificate_faults,
    metrics_faults,
)

__all__ = ["Settings", "SettingsError", "load_settings"]

DAY_S: Final = 86_400


class Settings(Configured):
    """Everything `costd coordinator` can be told; docs/operating/settings.md lists it."""

    database_url: SecretStr = Field(
        SecretStr(""),
        description="PostgreSQL: postgresql://USER:PASSWORD@HOST/DATABASE. Empty: one of our own "
        "in the data directory.",
    )
    data: Path = Field(
        default_factory=lambda: address.default_data() / "coordinator",
        description="Directory of the embedded database and the kill switches' journal.",
    )
    name: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=128,
        description="This coordinator's name; the audience that role tokens must name.",
    )
    policy: Path | None = Field(
        None, description="Policy file to publish at the start, if it is not the newest."
    )
    listen: str = Field(
        "127.0.0.1:9466", description="TCP address host:port for daemons and operators."
    )
    listen_insecure: bool = Field(
        default=False,
        description="Serve without TLS, also where others can reach it: nothing encrypts or "
        "authenticates them.",
    )
    control_socket: Path = Field(
        default_factory=address.default_coordinator_socket,
        description="Unix socket for operators on this host; 0600 always.",
    )
    tls_cert: Path | None = Field(
        None, description="Certificate (PEM). Read again when it changes."
    )
    tls_key: TlsKey = None
    tls_ca: Path | None = Field(
        None, description="CA (PEM) that issued the certificates of daemons and operators."
    )
    control_keys: ControlKeys = Field(default={})
    metrics_listen: MetricsListen = "127.0.0.1:9467"
    metrics_insecure: bool = Field(
        default=False,
        description="Serve metrics also where others can reach them: nothing encrypts or "
        "authenticates them. `listen_insecure` implies it.",
    )
    notices: Literal["auto", "listen", "poll"] = Field(
        "auto",
        description="How replicas tell each other: `listen` (LISTEN and NOTIFY), `poll` where the "
        "database or a pooler has neither; `auto` tries it at the start.",
    )
    tenure_s: float = Field(
        10.0, ge=1, le=600, description="How long a daemon may spend without being heard, in s."
    )
    skew_max_s: float = Field(
        5.0, ge=0.1, le=60, description="How far a daemon's clock may be off, in s."
    )
    usage_retention_s: int = Field(
        400 * DAY_S, ge=DAY_S, description="How long usage events are kept, in seconds."
    )
    counters_retention_s: int = Field(
        35 * DAY_S, ge=60, description="How long counters of ended windows are kept, in seconds."
    )
    runs_retention_s: int = Field(
        35 * DAY_S,
        ge=60,
        description="How long counters of idle runs and rates are kept, in seconds.",
    )
    daemons_retention_s: int = Field(
        35 * DAY_S,
        ge=3_600,
        description="How long daemons that hold nothing are kept after they were last heard, in "
        "seconds.",
    )
    drain_s: float = Field(
        5.0, ge=0, le=3_600, description="How long a stopping coordinator waits, in s."
    )
    log_level: LogLevel = "info"
    log_format: LogFormat = "json"

    def faults(self) -> Iterator[str]:
        """Yield what is wrong between settings, a line each, that begins with the one to change."""
        yield from certificate_faults(self)
        if self.tls_cert is not None and self.tls_ca is None:
            yield "tls_ca: daemons show certificates; name the CA that issues them"
        if self.tls_cert is not None and self.listen_insecure:
            yield "listen_insecure: there is a certificate; take one of both away"
        yield from key_faults("control_keys", self.control_keys)
        yield from self._address_faults()

    def _address_faults(self) -> Iterator[str]:
        endpoint, fault = endpoint_or_fault("listen", self.listen)
        if fault:
            yield fault
        elif endpoint is None:
            yield "listen: daemons need an address; 127.0.0.1:0 takes a free port"
        elif not endpoint.is_loopback and self.tls_cert is None and not self.listen_insecure:
            yield (
                f"listen: {endpoint} can be reached by others, and nothing encrypts or "
                "authenticates it; give tls_cert, tls_key and tls_ca (`costctl ca init`, "
                "`costctl ca issue`), use 127.0.0.1, or say listen_insecure: true"
            )
        yield from metrics_faults(
            self.metrics_listen,
            is_meant=self.metrics_insecure or self.listen_insecure,
            unless="metrics_insecure",
        )

    @property
    def endpoint(self) -> Endpoint:
        """Where daemons and operators are served over TCP."""
        endpoint = parse_endpoint("listen", self.listen)
        assert endpoint is not None  # `faults` says so before
        return endpoint

    @property
    def metrics_endpoint(self) -> Endpoint | None:
        """Where metrics are served, None for nowhere."""
        return parse_endpoint("metrics_listen", self.metrics_listen)

    @property
    def span(self) -> Span:
        """How long promises last."""
        return Span(
            tenure_ns=int(self.tenure_s * NS_PER_S), skew_ns_max=int(self.skew_max_s * NS_PER_S)
        )


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """Put the settings together from flags, `COSTD_*`, the `config` file and defaults.

    Errors: SettingsError with one line per fault: source, field, what is wrong.
    """
    return load(Settings, flags)
