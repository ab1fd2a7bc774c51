"""What an operator sets for one daemon: flags, then environment, then file, then defaults."""

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from costd import address
from costd.configuration import Configured, Pairs, SettingsError, Words, load
from costd.endpoint import Endpoint, endpoint_or_fault, parse_endpoint
from costd.grants import key_faults
from costd.model.ask import labels_problem
from costd.serving.settings import (
    ControlKeys,
    LogFormat,
    LogLevel,
    MetricsListen,
    TlsKey,
    metrics_faults,
)

__all__ = ["Settings", "SettingsError", "load_settings"]

DAY_S: Final = 86_400


class Settings(Configured):
    """Everything `costd serve` can be told; docs/operating/settings.md lists it."""

    policy: Path | None = Field(
        None,
        description="Policy file. Watched: a good change is in force at once. None with "
        "`coordinator`, which publishes it.",
    )
    data: Path = Field(
        default_factory=address.default_data,
        description="Directory of the books; made if absent. One daemon at a time.",
    )
    name: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=128,
        description="This daemon's name; the audience that override grants must name, unless "
        "a coordinator lends them.",
    )
    socket: Path = Field(
        default_factory=address.default_socket, description="Unix socket agents ask at."
    )
    socket_mode: str = Field(
        "0660", pattern="^0?[0-7]{3}$", description="Permissions of that socket, octal."
    )
    control_socket: Path = Field(
        default_factory=lambda known: known.get("socket", address.default_socket()).with_name(
            address.default_control_socket().name
        ),
        description="Unix socket operators use; 0600 always.",
    )
    tls_cert: Path | None = Field(
        None,
        description="Certificate (PEM) for what is served over TCP. Read again when it changes.",
    )
    tls_key: TlsKey = None
    tls_ca: Path | None = Field(
        None, description="CA (PEM) that issued the certificates of those who connect."
    )
    tls_verify_clients: bool = Field(
        default_factory=lambda known: known.get("tls_ca") is not None,
        description="Whoever connects over TLS must show a certificate of `tls_ca`.",
    )
    listen: str = Field("", description="TCP address host:port for agents as well; none if empty.")
    listen_tls: bool = Field(
        default_factory=lambda known: known.get("tls_cert") is not None,
        description="Serve agents over TCP with TLS.",
    )
    control_listen: str = Field(
        "", description="TCP address host:port for operators as well, TLS always; none if empty."
    )
    control_keys: ControlKeys = Field(default={})
    metrics_listen: MetricsListen = "127.0.0.1:9464"
    listen_insecure: bool = Field(
        default=False,
        description="Accept addresses others can reach, though nothing encrypts or "
        "authenticates them.",
    )
    labels_fixed: Pairs = Field(
        default={},
        description="Labels of every ask here, whatever the caller claims: key=value,….",
    )
    claims: Words = Field(
        default=(),
        description="Critical task classes that callers here may claim: class,…; `*` for all.",
    )
    coordinator: Words = Field(
        default=(),
        description="Coordinators to share budgets by: host:port,…; the first that takes this "
        "daemon in. None if empty.",
    )
    coordinator_insecure: bool = Field(
        default=False,
        description="Talk to the coordinator without TLS: nothing encrypts or authenticates it.",
    )
    outbox_count_max: int = Field(
        1_000_000,
        ge=1_000,
        description="Usage events that may wait for the coordinator; about 500 bytes each.",
    )
    outbox_full: Literal["deny", "grow"] = Field(
        "deny",
        description="With more of them: `deny` new asks until it has stored some, or `grow` "
        "until the disk is full. None is ever dropped.",
    )
    kill_file: Path | None = Field(
        None,
        description="File with a list of kill switches. Watched: one engages by appearing, and "
        "releases by disappearing.",
    )
    durability: Literal["process", "disk"] = Field(
        "process",
        description="What an answer survives: `process` kill -9, `disk` power loss as well.",
    )
    reservations_retention_s: int = Field(
        DAY_S,
        ge=60,
        description="How long closed reservations, and with them replays, are kept, in seconds.",
    )
    counters_retention_s: int = Field(
        35 * DAY_S, ge=60, description="How long counters of ended windows are kept, in seconds."
    )
    runs_retention_s: int = Field(
        30 * DAY_S, ge=60, description="How long counters of idle runs are kept, in seconds."
    )
    usage_retention_s: int = Field(
        35 * DAY_S, ge=60, description="How long usage events are kept, in seconds."
    )
    alerts_retention_s: int = Field(
        30 * DAY_S, ge=60, description="How long alerts are kept, in seconds."
    )
    audit_retention_s: int = Field(
        400 * DAY_S, ge=60, description="How long audit records are kept, in seconds."
    )
    message_bytes_max: int = Field(
        1_048_576, ge=1_024, description="Largest request accepted, in bytes."
    )
    rpcs_count_max: int = Field(
        4_096, ge=1, description="Calls and streams open at once; more are told to back off."
    )
    drain_s: float = Field(
        10.0, ge=0, le=3_600, description="How long a stopping daemon waits for open calls, in s."
    )
    leave_s: float = Field(
        2.0,
        ge=0,
        le=3_600,
        description="How long it then waits until its coordinator has what it gives back and all "
        "usage, in s; longer where the books end with the daemon.",
    )
    log_level: LogLevel = "info"
    log_format: LogFormat = "json"
    trace_labels: Words = Field(
        default=(),
        description="Labels of asks that spans carry too: label,…; they leave this host then.",
    )

    def faults(self) -> Iterator[str]:
        """Yield what is wrong between settings, a line each, that begins with the one to change."""
        yield from self._address_faults()
        yield from self._tls_faults()
        yield from self._control_faults()
        yield from self._label_faults()
        yield from self._policy_faults()

    def _address_faults(self) -> Iterator[str]:
        endpoint, fault = endpoint_or_fault("listen", self.listen)
        if fault:
            yield fault
        is_reachable = endpoint is not None and not endpoint.is_loopback
        is_safe = self.listen_tls and self.tls_verify_clients
        if is_reachable and not is_safe and not self.listen_insecure:
            lacking = "authenticates" if self.listen_tls else "encrypts or authenticates"
            yield (
                f"listen: {endpoint} can be reached by others, and nothing {lacking} it; "
                "use 127.0.0.1, or say listen_insecure: true"
            )
        yield from metrics_faults(self.metrics_listen, is_meant=self.listen_insecure)
        if self.socket == self.control_socket:
            yield f"control_socket: {self.socket} is the agents' socket; operators need their own"

    def _tls_faults(self) -> Iterator[str]:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, lacking = ("tls_cert", "tls_key")[:: 1 if self.tls_key is None else -1]
            yield f"{given}: a certificate and its key go together; give {lacking} too"
        if self.tls_verify_clients and self.tls_ca is None:
            yield "tls_verify_clients: certificates are held against tls_ca; name it"
        if self.listen_tls and self.tls_cert is None:
            yield "listen_tls: TLS needs tls_cert and tls_key"

    def _control_faults(self) -> Iterator[str]:
        yield from key_faults("control_keys", self.control_keys)
        endpoint, fault = endpoint_or_fault("control_listen", self.control_listen)
        if fault:
            yield fault
        if endpoint is None:
            return
        if self.tls_cert is None:
            yield (
                "control_listen: operators are served over TLS only; give tls_cert and tls_key "
                "(`costctl ca init`, `costctl ca issue`)"
            )
        elif not self.tls_verify_clients and not self.control_keys:
            yield (
                "control_listen: nobody could say who they are; give tls_ca for operators' "
                "certificates, control_keys for role tokens, or both"
            )

    def _label_faults(self) -> Iterator[str]:
        problem = labels_problem(dict(self.labels_fixed))
        if problem:
            yield f"labels_fixed: {problem}"
        for key, value in self.labels_fixed.items():
            if not value:
                yield (
                    f"labels_fixed: {key} is empty, so any value could be claimed for it; give it "
                    "one (a pod's label that is missing is empty), or leave it out"
                )
            elif "$(" in value:
                yield (
                    f"labels_fixed: {key} is {value!r}, a variable that nobody filled in; in a "
                    "container's `env` it must be defined above, by that very name"
                )

    def _policy_faults(self) -> Iterator[str]:
        if not self.coordinator:
            if self.policy is None:
                yield (
                    "policy: needed; give --policy, COSTD_POLICY or --config, or name a coordinator"
                )
            return
        found = [endpoint_or_fault("coordinator", each) for each in self.coordinator]
        yield from (fault for _, fault in found if fault)
        if (None, "") in found:
            yield "coordinator: write it as host:port,host:port"
        if self.policy is not None:
            yield (
                "policy: the coordinator publishes it; take it away here, and publish it there "
                "with `costctl policy apply FILE`"
            )
        if not self.coordinator_insecure and (self.tls_cert is None or self.tls_ca is None):
            yield (
                "coordinator: it wants to know who this is, over TLS; give tls_cert, tls_key and "
                "tls_ca (`costctl ca issue NAME --kind daemon`), or say coordinator_insecure: true"
            )

    @property
    def control_endpoint(self) -> Endpoint | None:
        """Where operators are served over TCP, None for nowhere."""
        return parse_endpoint("control_listen", self.control_listen)

    @property
    def listen_endpoint(self) -> Endpoint | None:
        """Where agents are served over TCP, None for nowhere."""
        return parse_endpoint("listen", self.listen)

    @property
    def metrics_endpoint(self) -> Endpoint | None:
        """Where metrics are served, None for nowhere."""
        return parse_endpoint("metrics_listen", self.metrics_listen)

    @property
    def socket_mode_bits(self) -> int:
        """The permissions of the agents' socket as a number."""
        return int(self.socket_mode, 8)


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """Put the settings together from flags, `COSTD_*`, the `config` file and defaults.

    Errors: SettingsError with one line per fault: source, field, what is wrong.
    """
    return load(Settings, flags)
