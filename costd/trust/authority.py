"""A small certificate authority: one key that signs who everybody is."""

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from costd.model.time import NS_PER_S
from costd.trust.certificates import (
    SERVERS,
    Peer,
    TlsFault,
    peer_problem,
    read_certificates,
    server_name,
    validity_problem,
)
from costd.trust.files import parse_key, read_file

CA_CERTIFICATE: Final = "ca.crt"
CA_KEY: Final = "ca.key"
CA_DAYS: Final = 3_650
DAYS: Final = 90
DAYS_MAX: Final = 825
"""The most that other people's clients take from a private CA."""

_FILE_MODE: Final = 0o600
_BACKDATED: Final = timedelta(minutes=5)
"""Clocks of hosts that just got a certificate may be a little slow."""

_INTERNAL: Final = ".costd.internal"


class Issued(NamedTuple):
    """A key and its certificate, both in PEM."""

    key_pem: bytes
    certificate_pem: bytes


class Authority(NamedTuple):
    """A CA's key and certificate, ready to sign."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def make_authority(name: str, wall_ns: int, *, days: int = CA_DAYS) -> Issued:
    """Make a CA that signs certificates of peers, and no other CAs.

    Source: P-256, because gRPC's BoringSSL offers no Ed25519 in its handshakes
            (docs/adr/0015-certificates-and-roles.md).
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, subject, key.public_key(), wall_ns, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _issued(key, certificate)


def read_authority(directory: Path, wall_ns: int) -> Authority:
    """Read the CA that `make_authority` wrote.

    Errors: TlsFault: unreadable, key and certificate apart, no CA, or not valid now.
    """
    paths = directory / CA_CERTIFICATE, directory / CA_KEY
    if not any(path.exists() for path in paths):
        raise TlsFault(
            f"{directory} holds no CA; make one with `costctl ca init --out {directory}`"
        )
    certificate = read_certificates(read_file(paths[0]), str(paths[0]))[0]
    key = parse_key(read_file(paths[1]), paths[1])
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TlsFault(f"{paths[1]} is no elliptic-curve key; make a CA with `costctl ca init`")
    if key.public_key() != certificate.public_key():
        raise TlsFault(f"{paths[1]} is not the key of {paths[0]}")
    problem = validity_problem(certificate, wall_ns)
    if problem:
        raise TlsFault(f"the CA {paths[0]} {problem}; make a new one with `costctl ca init`")
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        basic = None
    if basic is None or not basic.ca:
        raise TlsFault(f"{paths[0]} is no CA's certificate; `costctl ca show` tells what it is")
    return Authority(key, certificate)


def issue(
    authority: Authority,
    peer: Peer,
    wall_ns: int,
    *,
    dns: Sequence[str] = (),
    ip: Sequence[str] = (),
    days: int = DAYS,
) -> Issued:
    """Make a key and certify whose it is.

    Ensures: it ends no later than the CA; kinds that do not serve cannot be used as servers.
    Errors:  ValueError naming what cannot be certified.
    """
    problem = peer_problem(peer)
    if problem:
        raise ValueError(problem)
    if not 1 <= days <= DAYS_MAX:
        raise ValueError(f"{days} days; certificates hold for 1 to {DAYS_MAX}")
    serves = peer.kind in SERVERS
    if (dns or ip) and not serves:
        raise ValueError(f"a certificate for a {peer.kind} has no address; leave --dns and --ip")
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(peer.uri)]
    if serves:
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names.append(x509.DNSName(server_name(peer.kind)))
        names += map(_dns_name, dns)
        names += map(_ip_address, ip)
    return _certified(authority, peer.name, wall_ns, days, names=names, uses=uses)


def issue_server(
    authority: Authority, dns: Sequence[str], wall_ns: int, *, days: int = DAYS
) -> Issued:
    """Make a key and certify a server that is known by its names alone, and is nobody in costd.

    Ensures: it ends no later than the CA.
    Errors:  ValueError naming what cannot be certified.
    """
    return _certified(
        authority,
        dns[0],
        wall_ns,
        days,
        names=[_dns_name(each) for each in dns],
        uses=[ExtendedKeyUsageOID.SERVER_AUTH],
    )


def _certified(
    authority: Authority,
    name: str,
    wall_ns: int,
    days: int,
    *,
    names: Sequence[x509.GeneralName],
    uses: Sequence[x509.ObjectIdentifier],
) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    issuer = authority.certificate
    certificate = (
        _builder(subject, issuer.subject, key.public_key(), wall_ns, days, until=issuer)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
        .sign(authority.key, hashes.SHA256())
    )
    return _issued(key, certificate)


def write_pair(issued: Issued, certificate: Path, key: Path) -> None:
    """Write key and certificate, readable by their owner only.

    Ensures: nothing is overwritten, and nothing is left if only one could be written.
    Errors:  TlsFault.
    """
    for path in (certificate, key):
        if path.exists() or path.is_symlink():
            raise TlsFault(f"{path} exists already; keys and certificates are never overwritten")
    _write_new(key, issued.key_pem)
    try:
        _write_new(certificate, issued.certificate_pem)
    except TlsFault:
        key.unlink(missing_ok=True)
        raise


def _write_new(path: Path, raw: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    except FileExistsError as error:
        raise TlsFault(f"{path} exists already; nothing is overwritten") from error
    except OSError as error:
        raise TlsFault(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(raw)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    wall_ns: int,
    days: int,
    *,
    until: x509.Certificate | None = None,
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(wall_ns // NS_PER_S, tz=UTC)
    ends, begins = now + timedelta(days=days), now - _BACKDATED
    if until is not None:
        ends = min(ends, until.not_valid_after_utc)
        begins = max(begins, until.not_valid_before_utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _dns_name(text: str) -> x509.GeneralName:
    if not text.isascii() or not text or text != text.strip() or "/" in text or ":" in text:
        raise ValueError(f"{text[:80]!r} is no DNS name")
    if text.lower().rstrip(".").endswith(_INTERNAL):
        raise ValueError(f"{text!r}: names under {_INTERNAL[1:]} say what kind a server is; --kind")
    return x509.DNSName(text)


def _ip_address(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError as error:
        raise ValueError(f"{text[:80]!r} is no IP address") from error


def _issued(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Issued:
    pem = serialization.Encoding.PEM
    return Issued(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        certificate.public_bytes(pem),
    )
