"""What an operator sets for one daemon: flags, then environment, then file, then defaults."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from costd import address
from costd.configuration import Configured, Pairs, SettingsError, Words, load
from costd.endpoint import Endpoint, parse_endpoint

__all__ = ["Settings", "SettingsError", "load_settings"]

DAY_S: Final = 86_400


class Settings(Configured):
    """Everything `costd serve` can be told; docs/operating/settings.md lists it."""

    policy: Path = Field(description="Policy file. Watched: a good change is in force at once.")
    data: Path = Field(
        default_factory=address.default_data,
        description="Directory of the books; made if absent. One daemon at a time.",
    )
    name: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=128,
        description="This daemon's name; the audience that override grants must name.",
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
    listen: str = Field("", description="TCP address host:port for agents as well; none if empty.")
    metrics_listen: str = Field(
        "127.0.0.1:9464", description="Address of the Prometheus endpoint; `off` for none."
    )
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
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged, to standard error."
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="`json` for machines, `console` for people."
    )

    @model_validator(mode="after")
    def _addresses_make_sense(self) -> Self:
        for name in ("listen", "metrics_listen"):
            endpoint = parse_endpoint(name, getattr(self, name))
            if endpoint is not None and not endpoint.is_loopback and not self.listen_insecure:
                raise ValueError(
                    f"{name}: {endpoint} can be reached by others, and nothing encrypts or "
                    "authenticates it; use 127.0.0.1, or say listen_insecure: true"
                )
        if self.socket == self.control_socket:
            raise ValueError(
                f"control_socket: {self.socket} is the agents' socket; operators need their own"
            )
        return self

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
