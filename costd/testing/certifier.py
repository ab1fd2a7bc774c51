"""A certificate authority in a directory, for tests and demonstrations."""

from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from costd.clock import SystemClock
from costd.trust import Kind, Peer, Role, TlsFiles
from costd.trust.authority import (
    CA_CERTIFICATE,
    CA_KEY,
    Authority,
    Issued,
    issue,
    make_authority,
    read_authority,
    write_pair,
)

DAY_NS = 86_400 * 10**9


class Pair(NamedTuple):
    """A certificate and its key on disk, with the CA that issued it."""

    certificate: Path
    key: Path
    ca: Path

    def files(self) -> TlsFiles:
        """Read them as one side of mutual TLS."""
        return TlsFiles(certificate=self.certificate, key=self.key, ca=self.ca)


def replace(pair: Pair, issued: Issued) -> None:
    """Put another certificate and key in place, the way that tools do: renamed over the old."""
    for path, raw in ((pair.key, issued.key_pem), (pair.certificate, issued.certificate_pem)):
        fresh = path.with_suffix(".new")
        fresh.write_bytes(raw)
        fresh.chmod(0o600)
        fresh.replace(path)


class Certifier:
    """Makes a CA in a directory of its own, and issues certificates beside it."""

    def __init__(self, directory: Path, name: str = "costd test CA", *, born_ns: int = 0) -> None:
        """Make the CA as of `born_ns`, ten days ago if not given."""
        self.directory = directory
        self.now_ns = SystemClock().now().wall_ns
        born_ns = born_ns or self.now_ns - 10 * DAY_NS
        self.ca, key = directory / CA_CERTIFICATE, directory / CA_KEY
        write_pair(make_authority(name, born_ns), self.ca, key)
        self.authority: Authority = read_authority(directory, self.now_ns)

    def pair(
        self, kind: Kind, name: str, role: Role | None = None, *, age_days: int = 0, days: int = 5
    ) -> Pair:
        """Issue a certificate as of some days ago; below zero, from then on.

        Ensures: servers are certified for 127.0.0.1 and localhost; a name's older files go.
        """
        folder = self.directory / kind
        pair = Pair(folder / f"{name}.crt", folder / f"{name}.key", self.ca)
        for path in pair[:2]:
            path.unlink(missing_ok=True)
        issued = self.issued(kind, name, role, age_days=age_days, days=days)
        write_pair(issued, pair.certificate, pair.key)
        return pair

    def issued(
        self, kind: Kind, name: str, role: Role | None = None, *, age_days: int = 0, days: int = 5
    ) -> Issued:
        """Issue a certificate without writing it."""
        serves = kind in {Kind.DAEMON, Kind.COORDINATOR}
        return issue(
            self.authority,
            Peer(kind=kind, name=name, role=role),
            self.now_ns - age_days * DAY_NS,
            dns=["localhost"] if serves else [],
            ip=["127.0.0.1"] if serves else [],
            days=days,
        )

    @property
    def certificate(self) -> x509.Certificate:
        """The CA's own certificate."""
        return self.authority.certificate
