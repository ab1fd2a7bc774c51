"""A CA and a certificate of our own: what is stored of them, and when they are made anew."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from costd.model.time import NS_PER_S
from costd.trust.authority import DAYS, Authority, issue_server, make_authority
from costd.trust.certificates import TlsFault, chain_problem, ns_of, read_certificates

DAY_NS: Final = 86_400 * NS_PER_S
RENEW_NS: Final = DAYS * DAY_NS // 3
"""A certificate is made anew when less is left."""
RENEW_CA_NS: Final = 365 * DAY_NS
AHEAD_NS: Final = DAY_NS
"""What begins later than this was made by a clock that was wrong: nobody takes it before."""
CAS_COUNT_MAX: Final = 3
"""Of the newest and those before it, which replicas may still serve under."""


class Made(NamedTuple):
    """What the Secret holds, in PEM."""

    ca_pem: bytes
    """The newest CA first, then those before it."""
    ca_key_pem: bytes
    certificate_pem: bytes
    key_pem: bytes

    @property
    def ends_ns(self) -> int:
        """When the certificate ends."""
        return ns_of(read_certificates(self.certificate_pem, "tls.crt")[0].not_valid_after_utc)


_FILES: Final = {
    "ca.crt": "ca_pem",
    "ca.key": "ca_key_pem",
    "tls.crt": "certificate_pem",
    "tls.key": "key_pem",
}


def read_made(secret: Mapping[str, Any]) -> Made | None:
    """Read a Secret; None where it is not one of ours, or damaged."""
    data = secret.get("data") or {}
    try:
        made = Made(**{field: base64.b64decode(data[name]) for name, field in _FILES.items()})
        certificate = read_certificates(made.certificate_pem, "tls.crt")[0]
        key = serialization.load_pem_private_key(made.key_pem, password=None)
        _authority(made)
    except (KeyError, TypeError, ValueError, binascii.Error, TlsFault):
        return None
    return made if key.public_key() == certificate.public_key() else None


def write_made(made: Made) -> dict[str, str]:
    """Write the data of a Secret."""
    return {name: base64.b64encode(getattr(made, field)).decode() for name, field in _FILES.items()}


def renewed(
    made: Made | None, dns: Sequence[str], wall_ns: int, *, before: bytes = b""
) -> Made | None:
    """Make what is missing, will end soon, or begins too late; None where all is well.

    Ensures: the CAs of `before` stay beside a new one, so that what was issued under them is good
             until it is replaced everywhere.
    """
    ca = None if made is None else _authority(made)
    if ca is None or _is_due_ca(ca.certificate, wall_ns):
        issued = make_authority(f"{dns[0]} {wall_ns // NS_PER_S}", wall_ns)
        older = _pem(read_certificates(before, "ca.crt")[: CAS_COUNT_MAX - 1]) if before else b""
        ca_pem, ca_key_pem = issued.certificate_pem + older, issued.key_pem
    elif made is not None and not _is_due(made, ca, dns, wall_ns):
        return None
    else:
        assert made is not None  # there is a CA
        ca_pem, ca_key_pem = made.ca_pem, made.ca_key_pem
    authority = _authority(Made(ca_pem, ca_key_pem, b"", b""))
    fresh = issue_server(authority, dns, wall_ns)
    return Made(ca_pem, ca_key_pem, fresh.certificate_pem, fresh.key_pem)


def _is_due_ca(ca: x509.Certificate, wall_ns: int) -> bool:
    return _ends(ca) - wall_ns < RENEW_CA_NS or _begins(ca) - wall_ns > AHEAD_NS


def _is_due(made: Made, ca: Authority, dns: Sequence[str], wall_ns: int) -> bool:
    """Tell whether the certificate ends soon, is for other names, or of another CA."""
    chain = read_certificates(made.certificate_pem, "tls.crt")
    # API servers' clocks may differ a little: what was made by one is not made anew by the next.
    begun_ns = max(wall_ns, _begins(chain[0]))
    try:
        names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return True
    return (
        made.ends_ns - wall_ns < RENEW_NS
        or begun_ns - wall_ns > AHEAD_NS
        or set(names.get_values_for_type(x509.DNSName)) != set(dns)
        or chain_problem(chain, [ca.certificate], begun_ns) is not None
    )


def _authority(made: Made) -> Authority:
    certificate = read_certificates(made.ca_pem, "ca.crt")[0]
    key = serialization.load_pem_private_key(made.ca_key_pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TlsFault("ca.key is no elliptic-curve key")
    if key.public_key() != certificate.public_key():
        raise TlsFault("ca.key is not the key of ca.crt")
    return Authority(key, certificate)


def _begins(certificate: x509.Certificate) -> int:
    return ns_of(certificate.not_valid_before_utc)


def _ends(certificate: x509.Certificate) -> int:
    return ns_of(certificate.not_valid_after_utc)


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)
