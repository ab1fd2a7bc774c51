"""Certificate, key and CA on disk, checked when read and read again when they change."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from costd.clock import SystemClock
from costd.model.time import NS_PER_S
from costd.trust.certificates import (
    Kind,
    TlsFault,
    chain_problem,
    kind_problem,
    ns_of,
    read_certificates,
    validity_problem,
)

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

BYTES_MAX: Final = 1024 * 1024
AGAIN_NS: Final = 10 * NS_PER_S
"""What was refused is looked at again after this: a certificate of a CA whose clock is ahead is not
valid yet, and no file changes when it is."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_OF_ROOTS: Final = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO


class Material(NamedTuple):
    """What the files held when they last made sense together."""

    version: int
    """Rises when the files were read anew."""
    certificate_pem: bytes | None
    key_pem: bytes | None
    ca_pem: bytes | None
    roots: tuple[x509.Certificate, ...]
    expires_ns: int | None = None
    """When the certificate does; None without one."""


class TlsFiles:
    """Names the files of one side of TLS, and keeps the last sound content of them.

    A server has a certificate and its key, and a CA if its clients must show certificates; a
    client has a CA, and a certificate and key if it shows one.
    """

    def __init__(
        self,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        ca: Path | None = None,
        kinds: Collection[Kind] = (),
        wall_ns: Callable[[], int] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Read them; `tell` hears why files that changed later were not taken.

        A certificate that is for none of `kinds` is refused, if any are given; one that does not
        say what it is for, as other CAs issue them, is not.

        Errors: TlsFault.
        """
        if (certificate is None) != (key is None):
            raise TlsFault("a certificate needs its key, and a key its certificate; name both")
        self.certificate, self.key, self.ca = certificate, key, ca
        self._kinds = kinds
        clock = SystemClock()
        self.wall_ns = wall_ns or (lambda: clock.now().wall_ns)
        self._tell = tell or (lambda _problem: None)
        self.problem = ""
        """Why the files as they are now were not taken; empty if they were."""
        self._refused_ns = 0
        self._seen = self._fingerprint()
        self._material = self._read(1)

    def current(self) -> Material:
        """Return what holds now; looks at the files, and reads those that changed.

        Ensures: files that make no sense (half replaced, expired, not valid yet) leave the last
                 good ones in force, and are looked at again, at their next change at the latest.
        """
        seen = self._fingerprint()
        if seen != self._seen or (self.problem and self._may_be_valid_now()):
            try:
                self._material = self._read(self._material.version + 1)
                self.problem = ""
            except TlsFault as fault:
                if str(fault) != self.problem:
                    self._tell(str(fault))
                self.problem, self._refused_ns = str(fault), self.wall_ns()
            self._seen = seen
        return self._material

    def _may_be_valid_now(self) -> bool:
        # Also where the clock was set back meanwhile.
        return not 0 <= self.wall_ns() - self._refused_ns < AGAIN_NS

    def _read(self, version: int) -> Material:
        certificate_pem = key_pem = ca_pem = None
        roots: tuple[x509.Certificate, ...] = ()
        expires_ns: int | None = None
        now_ns = self.wall_ns()
        if self.ca is not None:
            ca_pem = read_file(self.ca)
            roots = read_certificates(ca_pem, str(self.ca))
            problems = [validity_problem(root, now_ns) for root in roots]
            if all(problems):
                raise TlsFault(f"the CA {self.ca} {problems[0]}")
        if self.certificate is not None and self.key is not None:
            certificate_pem = read_file(self.certificate)
            chain = read_certificates(certificate_pem, str(self.certificate))
            key_pem = read_file(self.key)
            key = parse_key(key_pem, self.key)
            if key.public_key() != chain[0].public_key():
                raise TlsFault(f"{self.key} is not the key of {self.certificate}")
            problem = validity_problem(chain[0], now_ns)
            if problem:
                raise TlsFault(f"the certificate {self.certificate} {problem}; issue a new one")
            problem = kind_problem(chain[0], self._kinds)
            if problem:
                raise TlsFault(f"the certificate {self.certificate} {problem}")
            problem = chain_problem(chain, roots, now_ns) if roots else None
            if problem:
                raise TlsFault(
                    f"{self.certificate} and {self.ca} do not belong together: {problem}"
                )
            expires_ns = ns_of(chain[0].not_valid_after_utc)
        return Material(version, certificate_pem, key_pem, ca_pem, roots, expires_ns)

    def _fingerprint(self) -> tuple[object, ...]:
        return tuple(map(_stamp, (self.certificate, self.key, self.ca)))


def read_file(path: Path) -> bytes:
    """Read a small file.

    Errors: TlsFault.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise TlsFault(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > BYTES_MAX:
        raise TlsFault(f"{path} is larger than {BYTES_MAX} bytes; no certificate or key is")
    return raw


def parse_key(raw: bytes, path: Path) -> PrivateKeyTypes:
    """Read a private key from a file that nobody else can read.

    Errors: TlsFault.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    check_private(path)
    try:
        return serialization.load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TlsFault(f"{path} is no unencrypted private key in PEM") from error


def check_private(path: Path) -> None:
    """See that nobody else can read or change a secret.

    Shape:  a file of ours may be read by us alone; one of root's by its group as well, which is
            how secrets are mounted for a service (PostgreSQL has the same rule).
    Errors: TlsFault.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise TlsFault(f"{path} cannot be read: {error.strerror}") from error
    forbidden = _OTHERS_OF_ROOTS if status.st_uid == 0 else _OTHERS
    if status.st_mode & forbidden:
        raise TlsFault(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, so others can read or change "
            f"this secret; chmod 600 {path}"
        )


def _stamp(path: Path | None) -> object:
    """Tell one content of a file from the next without reading it."""
    if path is None:
        return None
    try:
        status = os.stat(path)  # noqa: PTH116  the plain call, once a handshake
    except OSError as error:
        return error.errno
    return status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode
