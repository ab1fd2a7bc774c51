"""TCP addresses as operators write them."""

import ipaddress
from typing import NamedTuple

_OFF = frozenset({"", "0", "off", "none"})
_PORT_MAX = 65_535


class Endpoint(NamedTuple):
    """A host and a port."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        """Write it the way gRPC and people do."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(name: str, text: str) -> Endpoint | None:
    """Read `host:port` or `[v6]:port`; None for empty, 0, off and none.

    Errors: ValueError naming the setting and the form expected.
    """
    if text.strip().lower() in _OFF:
        return None
    host, _, port = text.strip().rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > _PORT_MAX:
        raise ValueError(f"{name}: {text!r} is not host:port, such as 127.0.0.1:50051")
    return Endpoint(host, int(port))


def endpoint_or_fault(name: str, text: str) -> tuple[Endpoint | None, str]:
    """Do the same for who gathers faults: the endpoint, or None and what is wrong with the text."""
    try:
        return parse_endpoint(name, text), ""
    except ValueError as error:
        return None, str(error)
