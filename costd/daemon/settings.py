"""What an operator sets for one daemon: flags, then environment, then file, then defaults."""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from costd import address
from costd.daemon.endpoint import Endpoint, parse_endpoint
from costd.grants import load_public_key

ENV_PREFIX: Final = "COSTD_"
DAY_S: Final = 86_400


class SettingsError(Exception):
    """The daemon cannot start with these settings; names source and field of each."""


def _pairs(value: object) -> object:
    """Read `project=api,team=x`, or a JSON object, where text stands for a mapping."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return json.loads(value)
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    for key, equals, _ in pairs:
        if not equals or not key.strip():
            raise ValueError("write it as key=value,key=value or as a JSON object")
    return {key.strip(): text.strip() for key, _, text in pairs}


def _words(value: object) -> object:
    """Read `a,b`, or a JSON array, where text stands for a list."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


Pairs = Annotated[dict[str, str], NoDecode, BeforeValidator(_pairs)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]


class Settings(BaseSettings):
    """Everything `costd serve` can be told; docs/operating/settings.md lists it."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    config: Path | None = Field(None, description="YAML file with any of these settings.")
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
    tls_cert: Path | None = Field(
        None,
        description="Certificate (PEM) for what is served over TCP. Read again when it changes.",
    )
    tls_key: Path | None = Field(None, description="Its key; readable by its owner only.")
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
    control_keys: Pairs = Field(
        default={},
        description="Public keys of role tokens, by id: id=key,…; from `costctl token keygen`.",
    )
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
        for name, safe in (
            ("listen", self.listen_tls and self.tls_verify_clients),
            ("metrics_listen", False),
        ):
            endpoint = parse_endpoint(name, getattr(self, name))
            reachable = endpoint is not None and not endpoint.is_loopback
            if reachable and not safe and not self.listen_insecure:
                lacking = "authenticates" if self.listen_tls else "encrypts or authenticates"
                raise ValueError(
                    f"{name}: {endpoint} can be reached by others, and nothing "
                    f"{'encrypts or authenticates' if name == 'metrics_listen' else lacking} it; "
                    "use 127.0.0.1, or say listen_insecure: true"
                )
        if self.socket == self.control_socket:
            raise ValueError(
                f"control_socket: {self.socket} is the agents' socket; operators need their own"
            )
        return self

    @model_validator(mode="after")
    def _tls_makes_sense(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            lacking = "tls_key" if self.tls_key is None else "tls_cert"
            raise ValueError(f"{lacking}: a certificate and its key go together; name both")
        if self.tls_verify_clients and self.tls_ca is None:
            raise ValueError("tls_verify_clients: certificates are held against tls_ca; name it")
        if self.listen_tls and self.tls_cert is None:
            raise ValueError("listen_tls: TLS needs tls_cert and tls_key")
        for key_id, text in self.control_keys.items():
            try:
                load_public_key(text)
            except ValueError as error:
                raise ValueError(f"control_keys: {key_id}: {error}") from error
        if parse_endpoint("control_listen", self.control_listen) is not None:
            if self.tls_cert is None:
                raise ValueError(
                    "control_listen: operators are served over TLS only; give tls_cert and tls_key "
                    "(`costctl ca init`, `costctl ca issue`)"
                )
            if not self.tls_verify_clients and not self.control_keys:
                raise ValueError(
                    "control_listen: nobody could say who they are; give tls_ca for operators' "
                    "certificates, control_keys for role tokens, or both"
                )
        return self

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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags, environment, YAML file."""
        del dotenv_settings, file_secret_settings
        path = _config_path(init_settings()) or _config_path(env_settings())
        written = {} if path is None else read_config(path)
        return init_settings, env_settings, InitSettingsSource(settings_cls, dict(written))


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """Put the settings together from flags, `COSTD_*`, the `config` file and defaults.

    Errors: SettingsError with one line per fault: source, field, what is wrong.
    """
    try:
        return Settings(**flags)
    except ValidationError as error:
        config = _config_path(flags) or _config_path({"config": os.environ.get("COSTD_CONFIG")})
        faults = [
            _fault(detail, flags, config)
            for detail in error.errors(include_url=False)
            # A default that depends on another setting is no fault of its own.
            if detail["type"] != "default_factory_not_called"
        ]
        raise SettingsError("\n".join(faults)) from error


def read_config(path: Path) -> Mapping[str, Any]:
    """Read a settings file; the mapping knows the line of each key.

    Errors: SettingsError naming the file, and the line where YAML knows it.
    """
    try:
        written = YAML(typ="rt").load(path)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SettingsError(f"{where}: not YAML: {reason}") from error
    if written is None:
        return {}
    if not isinstance(written, Mapping):
        raise SettingsError(f"{path}:1: must be `setting: value` lines")
    return written


def _config_path(values: Mapping[str, Any]) -> Path | None:
    value = values.get("config")
    return Path(value) if value else None


def _fault(detail: Any, flags: Mapping[str, Any], config: Path | None) -> str:
    """Write one line: where the setting came from, its name, and what is wrong with it."""
    message = detail["msg"].removeprefix("Value error, ")
    location = detail["loc"]
    if not location:
        # Rules over several settings begin with the one to change.
        field, _, message = message.partition(": ")
    else:
        field = str(location[0])
        if detail["type"] == "missing":
            return (
                f"{field}: needed; give --{_kebab(field)}, {ENV_PREFIX}{field.upper()} or --config"
            )
        if detail["type"] == "extra_forbidden":
            message = "no such setting"
        else:
            message = f"{message[0].lower()}{message[1:]}, not {detail['input']!r}"
    return f"{_source(field, flags, config)}: {message}"


def _source(field: str, flags: Mapping[str, Any], config: Path | None) -> str:
    if field in flags:
        return f"--{_kebab(field)}"
    variable = f"{ENV_PREFIX}{field.upper()}"
    if os.environ.get(variable):
        return f"environment {variable}"
    if config is not None:
        written = read_config(config)
        if field in written:
            line = written.lc.key(field)[0] + 1  # type: ignore[attr-defined]  # ruamel's mapping
            return f"{config}:{line}: {field}"
    return f"{field} (default)"


def _kebab(field: str) -> str:
    return field.replace("_", "-")
