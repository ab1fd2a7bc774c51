"""What one sidecar is to be like, and how settings and annotations say so."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, cast

from costd.endpoint import endpoint_or_fault
from costd.injector.names import METRICS_PORT
from costd.injector.quantity import parse_quantity

Mode = Literal["native", "container"]

NONE: Final = "none"
"""Takes away what the injector's settings give."""
DRAIN_S_MAX: Final = 3_600.0
WORD_LENGTH_MAX: Final = 256

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
_FILE: Final = re.compile(r"[-._A-Za-z0-9]{1,253}", re.ASCII)
_IMAGE: Final = re.compile(
    r"[A-Za-z0-9][-A-Za-z0-9._:/\[\]]{0,400}(@sha256:[0-9a-f]{64})?", re.ASCII
)

HOST_IP: Final = "$(HOST_IP)"
"""In an address: that of the pod's node."""
_COLLECTOR: Final = re.compile(
    r"https?://(\$\(HOST_IP\)|[-.A-Za-z0-9]{1,253}|\[[:0-9A-Fa-f]{2,45}\])(:\d{1,5})?", re.ASCII
)


class FileOf(NamedTuple):
    """A file of a ConfigMap."""

    name: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """What one sidecar is to be like."""

    image: str
    image_pull_policy: str = ""
    mode: Mode = "native"
    policy: FileOf | None = None
    kill_switches: FileOf | None = None
    coordinator: tuple[str, ...] = ()
    coordinator_tls: str = ""
    coordinator_insecure: bool = False
    claims: tuple[str, ...] = ()
    cpu: str = "50m"
    memory: str = "96Mi"
    cpu_limit: str = ""
    memory_limit: str = "256Mi"
    data_claim: str = ""
    data_size: str = ""
    drain_s: float = 10.0
    metrics_port: int = METRICS_PORT
    log_level: str = "info"
    otlp_endpoint: str = ""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together: which field, and why."""
        for request, limit in (("cpu", "cpu_limit"), ("memory", "memory_limit")):
            asked, most = getattr(self, request), getattr(self, limit)
            if asked and most and parse_quantity(asked) > parse_quantity(most):
                yield limit, f"{most} is less than the {request} of {asked}"
        if self.data_claim and self.data_size:
            yield "data_size", "a claim says its own size; leave one of both out"
        if self.coordinator and not self.coordinator_tls and not self.coordinator_insecure:
            yield (
                "coordinator",
                "it wants to know who asks, over TLS; name the Secret of a daemon's certificate",
            )
        if not self.coordinator and self.policy is None:
            yield "policy", "a sidecar without a coordinator needs one: NAME or NAME/FILE"


def read_image(text: str) -> str:
    """Read an image's name."""
    if not _IMAGE.fullmatch(text):
        raise ValueError(f"{text[:200]!r} is no image, such as registry.example/costd:1.0")
    return text


def read_name(text: str) -> str:
    """Read an object's name; `none` is none."""
    if text == NONE:
        return ""
    if not _SUBDOMAIN.fullmatch(text):
        raise ValueError(f"{text[:200]!r} is no object's name (a-z, 0-9, - and .)")
    return text


def read_file_of(text: str, default: str) -> FileOf | None:
    """Read `NAME` or `NAME/FILE` of a ConfigMap; `none` is none."""
    name, slash, key = text.partition("/")
    if not read_name(name):
        return None
    if slash and (not _FILE.fullmatch(key) or key in {".", ".."}):
        raise ValueError(f"{key[:200]!r} is no file of a ConfigMap; write NAME or NAME/FILE")
    return FileOf(name, key or default)


def read_policy(text: str) -> FileOf | None:
    """Read where the policy is."""
    return read_file_of(text, "policy.yaml")


def read_kill_switches(text: str) -> FileOf | None:
    """Read where the kill switches are."""
    return read_file_of(text, "kills.yaml")


def read_coordinators(text: str) -> tuple[str, ...]:
    """Read `host:port,…`; `none` is none."""
    if text == NONE:
        return ()
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for each in found:
        endpoint, fault = endpoint_or_fault("", each)
        if endpoint is None or not re.fullmatch(r"[-.:\[\]A-Za-z0-9]{1,280}", each):
            raise ValueError(fault.removeprefix(": ") or f"{each[:200]!r} is not host:port")
    if not found:
        raise ValueError("write it as host:port,host:port or none")
    return found


def read_claims(text: str) -> tuple[str, ...]:
    """Read `class,…`; `*` is all, `none` is none."""
    if text == NONE:
        return ()
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for each in found:
        if len(each) > WORD_LENGTH_MAX or not re.fullmatch(r"\*|[\w.:/-]+", each, re.ASCII):
            raise ValueError(f"{each[:80]!r} is no task class; write class,class or none")
    if not found:
        raise ValueError("write it as class,class or none")
    return found


def read_amount(text: str) -> str:
    """Read an amount of CPU or memory; `none` is none."""
    if text == NONE:
        return ""
    if parse_quantity(text) == 0:
        raise ValueError("0 is nothing; write none to leave it out")
    return text


def read_collector(text: str) -> str:
    """Read where a collector is, `$(HOST_IP)` for one on the pod's node; `none` is none."""
    if text == NONE:
        return ""
    if not _COLLECTOR.fullmatch(text):
        raise ValueError(f"{text[:200]!r} is no http://host:port or https://host:port")
    return text


def read_seconds(text: str) -> float:
    """Read a number of seconds."""
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?", text, re.ASCII) or float(text) > DRAIN_S_MAX:
        raise ValueError(f"{text[:40]!r} is no number of seconds from 0 to {DRAIN_S_MAX:.0f}")
    return float(text)


def read_port(text: str) -> int:
    """Read a port; `none` is 0."""
    if text == NONE:
        return 0
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or not 1 <= int(text) <= 65_535:  # noqa: PLR2004
        raise ValueError(f"{text[:40]!r} is no port from 1 to 65535, or none")
    return int(text)


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text[:40]!r} is none of {', '.join(words)}")
        return text

    return read


READERS: Final[dict[str, Callable[[str], Any]]] = {
    "image": read_image,
    "image_pull_policy": _one_of("Always", "IfNotPresent", "Never"),
    "mode": cast("Callable[[str], Mode]", _one_of("native", "container")),
    "policy": read_policy,
    "kill_switches": read_kill_switches,
    "coordinator": read_coordinators,
    "coordinator_tls": read_name,
    "claims": read_claims,
    "cpu": read_amount,
    "memory": read_amount,
    "cpu_limit": read_amount,
    "memory_limit": read_amount,
    "data_claim": read_name,
    "data_size": read_amount,
    "drain_s": read_seconds,
    "metrics_port": read_port,
    "log_level": _one_of("debug", "info", "warning", "error"),
    "otlp_endpoint": read_collector,
}
"""How each field is read where it is text: in an annotation `costd.dev/cpu-limit`, in a setting
`sidecar_cpu_limit`."""
