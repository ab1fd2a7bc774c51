"""Who calls: read from the connection and its metadata, never from a request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from costd.errors import Unauthenticated
from costd.trust.certificates import (
    Kind,
    Peer,
    Role,
    TlsFault,
    chain_problem,
    read_certificates,
    subject_of,
)
from costd.trust.files import TlsFiles

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

AUTHORIZATION: Final = "authorization"
_BEARER: Final = "bearer "


class Shown(StrEnum):
    """What somebody showed to say who they are."""

    SOCKET = "socket"
    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105  a word, not a secret
    NOTHING = "nothing"
    """Only where the host was told to believe anybody, for trying out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who calls, as far as it is proven."""

    shown: Shown
    name: str
    """Empty on a Unix socket: that somebody could open it says what they may, not who they are."""
    role: Role | None
    """None for a certificate that is no operator's."""
    kind: Kind | None = None
    """Of the certificate that `name` is from; None if it is from none."""

    @property
    def actor(self) -> str:
        """The name that goes into the audit; empty if nobody proved one."""
        if self.shown is Shown.CERTIFICATE and self.kind is not Kind.OPERATOR:
            return f"{self.kind}/{self.name}"
        return self.name


SOCKET_OWNER: Final = Identity(shown=Shown.SOCKET, name="", role=Role.ADMIN)
"""Whoever may open a socket of mode 0600 may do everything."""

ANYBODY: Final = Identity(shown=Shown.NOTHING, name="", role=Role.ADMIN)
"""Whoever comes unencrypted to a host that was told to believe anybody."""


class Connection(Protocol):
    """What is read of a call; implemented by `grpc.aio.ServicerContext` and its sync sister."""

    def peer(self) -> Any:
        """Name the other end's address."""
        ...

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Tell what the handshake showed."""
        ...

    def invocation_metadata(self) -> Any:
        """Tell the call's metadata."""
        ...


def certificate_of(context: Connection) -> x509.Certificate | None:
    """Return the certificate that the other end showed and gRPC checked at the handshake."""
    pem = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
    return None if pem is None else read_certificates(bytes(pem), "the connection")[0]


def peer_of(context: Connection) -> Peer | None:
    """Say whom the other end's certificate is for, None if it showed none.

    Errors: Unauthenticated if the certificate does not say.
    """
    try:
        certificate = certificate_of(context)
        return None if certificate is None else subject_of(certificate)
    except TlsFault as fault:
        raise Unauthenticated(str(fault)) from fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticator:
    """Knows whom to believe: the CA, the keys of role tokens, and the names they must be for."""

    wall_ns: Callable[[], int]
    audiences: Collection[str]
    keys: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)
    files: TlsFiles | None = None
    insecure: bool = False
    """Believe anybody who shows nothing on a connection without TLS; for trying out."""

    def identify(self, context: Connection) -> Identity:
        """Say who calls.

        Shape:   a token decides if there is one, then the certificate, then the Unix socket.
        Ensures: a bad token is refused whatever else was shown, and any that came in the clear; a
                 certificate is held against
                 dates and CA at each call, so that one whose CA was taken out of the file on disk
                 is of no use on a connection that is still open.
        Errors:  Unauthenticated.
        """
        certified = self._certified(context)
        token = _token_of(context)
        if token is not None and not is_local(context) and not _is_encrypted(context):
            raise Unauthenticated(
                "the role token came in the clear, and whoever listens has it by now; send it over "
                "TLS only, and take its key out of control_keys"
            )
        if token is not None:
            from costd.trust.tokens import verify_token  # noqa: PLC0415  the first token needs it

            name, role = verify_token(
                token, keys=self.keys, audiences=self.audiences, wall_ns=self.wall_ns()
            )
            return Identity(shown=Shown.TOKEN, name=name, role=role)
        if certified is not None:
            return Identity(
                shown=Shown.CERTIFICATE,
                name=certified.name,
                role=certified.role,
                kind=certified.kind,
            )
        if is_local(context):
            return SOCKET_OWNER
        if self.insecure and not _is_encrypted(context):
            return ANYBODY
        raise Unauthenticated(
            "nobody said who calls; send a role token (`costctl --token-file`, from `costctl token "
            "issue`) or show an operator's certificate (`--tls-cert`, from `costctl ca issue`)"
        )

    def _certified(self, context: Connection) -> Peer | None:
        try:
            certificate = certificate_of(context)
            if certificate is None:
                return None
            roots = () if self.files is None else self.files.current().roots
            problem = chain_problem([certificate], roots, self.wall_ns())
            if problem:
                raise Unauthenticated(f"{problem}; issue another with `costctl ca issue`")
            return subject_of(certificate)
        except TlsFault as fault:
            raise Unauthenticated(str(fault)) from fault


def is_local(context: Connection) -> bool:
    """Tell whether a call came over a Unix socket of the file system."""
    return str(context.peer()).startswith("unix:") and not _is_encrypted(context)


def _is_encrypted(context: Connection) -> bool:
    return b"ssl" in context.auth_context().get("transport_security_type", ())


def _token_of(context: Connection) -> str | None:
    """Return the bearer token, None if there is no authorization at all.

    Errors: Unauthenticated for another scheme, or two of them.
    """
    found = [value for key, value in context.invocation_metadata() or () if key == AUTHORIZATION]
    if not found:
        return None
    text = found[0] if isinstance(found[0], str) else bytes(found[0]).decode(errors="replace")
    if len(found) > 1 or not text.lower().startswith(_BEARER):
        raise Unauthenticated("authorization must be one `Bearer TOKEN`")
    return text[len(_BEARER) :].strip()
