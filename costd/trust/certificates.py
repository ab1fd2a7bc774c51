"""What a certificate says: who it is for, as what, until when, and which CA stands behind it.

What reads certificates is imported by the first of them: 8 MiB that a daemon without any does not
need.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from costd.model.time import NS_PER_S

if TYPE_CHECKING:
    from cryptography import x509

SCHEME: Final = "costd"
NAME_LENGTH_MAX: Final = 128
CHAIN_LENGTH_MAX: Final = 4
"""A root, two intermediate CAs and the certificate itself; longer ones are nobody's plan."""

_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@-]{{0,{NAME_LENGTH_MAX - 1}}}")
_URI: Final = re.compile(
    rf"{SCHEME}://(?P<kind>[a-z]+)/(?P<name>[^/?#]+)(?:\?role=(?P<role>[a-z]+))?"
)


class TlsFault(Exception):
    """A certificate, key or CA cannot be used; says which file, why, and what to do."""


class Kind(StrEnum):
    """What the holder of a certificate is."""

    COORDINATOR = "coordinator"
    DAEMON = "daemon"
    OPERATOR = "operator"
    AGENT = "agent"


SERVERS: Final = frozenset({Kind.COORDINATOR, Kind.DAEMON})
"""Kinds that serve; all others may only call."""


class Role(IntEnum):
    """What somebody may do; each may do all that those before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def label(self) -> str:
        """Its name as tokens, certificates and people write it."""
        return self.name.lower()


def role_named(text: str) -> Role:
    """Read a role.

    Errors: ValueError naming those there are.
    """
    for role in Role:
        if role.label == text:
            return role
    raise ValueError(f"{text[:80]!r} is no role; roles are {', '.join(r.label for r in Role)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who a certificate says its holder is. Operators have a role, others none."""

    kind: Kind
    name: str
    role: Role | None = None

    @property
    def uri(self) -> str:
        """Write it as the URI in the certificate's subject alternative names."""
        query = "" if self.role is None else f"?role={self.role.label}"
        return f"{SCHEME}://{self.kind}/{self.name}{query}"


def peer_problem(peer: Peer) -> str | None:
    """Say why this cannot be certified, None if it can."""
    if not _NAME.fullmatch(peer.name):
        return (
            f"name {peer.name[:80]!r} must be 1 to {NAME_LENGTH_MAX} letters, digits and ._@-, "
            "beginning with a letter or digit"
        )
    if (peer.kind is Kind.OPERATOR) != (peer.role is not None):
        return "operators, and only they, have a role"
    return None


def server_name(kind: Kind) -> str:
    """Name the host that every certificate of a kind stands for, whatever its address.

    A client that checks it (`grpc.ssl_target_name_override`) speaks to a server of that kind,
    certified so by its CA, and needs no address in the certificate.
    """
    return f"{kind}.costd.internal"


def subject_of(certificate: x509.Certificate) -> Peer:
    """Read whom a certificate is for.

    Shape:  from URI names only: a DNS name that looks like one is none.
    Errors: TlsFault if it has no such name, more than one, or one that is not well formed.
    """
    ours = _names(certificate)
    if len(ours) != 1:
        raise TlsFault(
            f"the certificate of {_subject(certificate)} has {len(ours) or 'no'} {SCHEME}:// "
            f"name{'s' if len(ours) > 1 else ''}, so it says not who it is for; issue it with "
            "`costctl ca issue`"
        )
    try:
        return _peer_named(ours[0])
    except ValueError as error:
        raise TlsFault(f"the certificate's name {ours[0][:200]!r} is not sound: {error}") from error


def kind_problem(certificate: x509.Certificate, kinds: Collection[Kind]) -> str | None:
    """Say why a certificate is for none of these kinds; one that does not say may be for any.

    Errors: TlsFault if what it says makes no sense.
    """
    if not kinds or not _names(certificate):
        return None
    peer = subject_of(certificate)
    if peer.kind in kinds:
        return None
    wanted = " or ".join(sorted(kinds))
    return f"is for the {peer.kind} {peer.name}, and one for a {wanted} is needed here"


def _names(certificate: x509.Certificate) -> list[str]:
    from cryptography import x509  # noqa: PLC0415

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return []
    return [uri for uri in uris if uri.startswith(f"{SCHEME}:")]


def _peer_named(uri: str) -> Peer:
    found = _URI.fullmatch(uri)
    if found is None:
        raise ValueError("it is no costd://KIND/NAME")
    role = None if found["role"] is None else role_named(found["role"])
    peer = Peer(kind=Kind(found["kind"]), name=found["name"], role=role)
    problem = peer_problem(peer)
    if problem:
        raise ValueError(problem)
    return peer


def validity_problem(certificate: x509.Certificate, wall_ns: int) -> str | None:
    """Say why a certificate does not hold now, None if it does."""
    if wall_ns < ns_of(certificate.not_valid_before_utc):
        return f"is not valid before {_moment(certificate.not_valid_before_utc)}"
    if wall_ns >= ns_of(certificate.not_valid_after_utc) + NS_PER_S:
        return f"expired at {_moment(certificate.not_valid_after_utc)}"
    return None


def chain_problem(
    chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], wall_ns: int
) -> str | None:
    """Say why no root stands behind `chain[0]` now, None if one does.

    Shape: pure; `chain[1:]` are intermediate CAs in any order.
    """
    found = chain[0]
    for _ in range(CHAIN_LENGTH_MAX):
        problem = validity_problem(found, wall_ns)
        if problem:
            return f"the certificate of {_subject(found)} {problem}"
        root = next((root for root in roots if _issued(found, root)), None)
        if root is not None:
            problem = validity_problem(root, wall_ns)
            return f"the CA {_subject(root)} {problem}" if problem else None
        issuer = next((each for each in chain[1:] if _issued(found, each)), None)
        if issuer is None:
            break
        found = issuer
    names = ", ".join(map(_subject, roots)) or "none"
    return f"the certificate of {_subject(chain[0])} was not issued by the trusted CA ({names})"


def read_certificates(pem: bytes, what: str) -> tuple[x509.Certificate, ...]:
    """Read one or more certificates.

    Errors: TlsFault.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415

    try:
        found = _parsed(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TlsFault(f"{what} holds no certificate in PEM: {error}") from error
    return found


@lru_cache(maxsize=256)
def _parsed(pem: bytes) -> tuple[x509.Certificate, ...]:
    from cryptography import x509  # noqa: PLC0415

    return tuple(x509.load_pem_x509_certificates(pem))


@lru_cache(maxsize=1024)
def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether one certificate signed another, as a CA; 0.1 ms, hence remembered."""
    from cryptography import x509  # noqa: PLC0415
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    try:
        basic = issuer.extensions.get_extension_for_class(x509.BasicConstraints)
        certificate.verify_directly_issued_by(issuer)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        return False
    return basic.value.ca


def ns_of(moment: datetime) -> int:
    """Turn a certificate's date into wall time."""
    return int(moment.timestamp()) * NS_PER_S


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "no subject"
