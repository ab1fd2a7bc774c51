"""Settings that hosts have in common: what they say, and what is wrong with them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field

from costd.configuration import Pairs
from costd.endpoint import endpoint_or_fault

TlsKey = Annotated[Path | None, Field(description="Its key; readable by its owner only.")]
"""Beside `tls_cert`."""
ControlKeys = Annotated[
    Pairs,
    Field(
        description="Public keys of role tokens, by id: id=key,…; from `costctl token keygen`.",
    ),
]
MetricsListen = Annotated[
    str, Field(description="Address of the Prometheus endpoint; `off` for none.")
]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    Field(description="Least level that is logged, to standard error."),
]
LogFormat = Annotated[
    Literal["json", "console"], Field(description="`json` for machines, `console` for people.")
]


class Certified(Protocol):
    """Settings that name a certificate; those of every host do."""

    @property
    def tls_cert(self) -> Path | None:
        """The certificate."""
        ...

    @property
    def tls_key(self) -> Path | None:
        """Its key."""
        ...


def certificate_faults(settings: Certified) -> Iterator[str]:
    """Yield what is wrong where one of certificate and key is named."""
    if (settings.tls_cert is None) != (settings.tls_key is None):
        lacking = "tls_key" if settings.tls_key is None else "tls_cert"
        yield f"{lacking}: a certificate and its key go together; name both"


def metrics_faults(
    metrics_listen: str, *, is_meant: bool, unless: str = "listen_insecure"
) -> Iterator[str]:
    """Yield what is wrong with where metrics are served; `unless` lets others read them."""
    endpoint, fault = endpoint_or_fault("metrics_listen", metrics_listen)
    if fault:
        yield fault
    if endpoint is not None and not endpoint.is_loopback and not is_meant:
        yield (
            f"metrics_listen: {endpoint} can be reached by others, and nothing encrypts or "
            f"authenticates it; use 127.0.0.1, or say {unless}: true"
        )
