"""Turn files into what gRPC wants for its servers and channels."""

from typing import Final

import grpc

from costd.trust.certificates import Kind, TlsFault, server_name
from costd.trust.files import Material, TlsFiles

KINDS_OPTION: Final = "grpc.ssl_target_name_override"


def server_credentials(
    files: TlsFiles, *, client_certificates: bool | None = None
) -> grpc.ServerCredentials:
    """Serve TLS 1.2 or 1.3 with the certificate that is on disk at each handshake.

    Shape:  clients must show a certificate of the CA, if there is one, unless told otherwise.
    Errors: TlsFault without a certificate, or without a CA to hold the clients' against.
    Source: docs/adr/0015-certificates-and-roles.md for what gRPC offers here.
    """
    material = files.current()
    required = bool(material.roots) if client_certificates is None else client_certificates
    if required and not material.roots:
        raise TlsFault("clients' certificates cannot be checked without a CA; name its file")
    # `_configuration` raises here, before anything is served, if there is no certificate.
    told = material.version
    initial = _configuration(material)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal told
        fresh = files.current()
        if fresh.version == told:
            return None  # as it was
        told = fresh.version
        return _configuration(fresh)

    return grpc.dynamic_ssl_server_credentials(
        initial,
        fetch,  # type: ignore[arg-type]  # None is how gRPC is told "as before"; the stubs forgot
        require_client_authentication=required,
    )


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Call servers with the certificate that is on disk now.

    A channel keeps what it was made with, so make a new one, with new credentials, when
    `files.current().version` has risen or a connection is lost.

    Errors: TlsFault without a CA.
    """
    material = files.current()
    if material.ca_pem is None:
        raise TlsFault("a server's certificate cannot be checked without a CA; name its file")
    return grpc.ssl_channel_credentials(material.ca_pem, material.key_pem, material.certificate_pem)


def expecting(kind: Kind) -> tuple[tuple[str, str], ...]:
    """Make the channel options that accept any server of this kind, and no other server."""
    return ((KINDS_OPTION, server_name(kind)),)


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    if material.key_pem is None or material.certificate_pem is None:
        raise TlsFault("a server needs a certificate and its key; name both files")
    return grpc.ssl_server_certificate_configuration(
        [(material.key_pem, material.certificate_pem)], root_certificates=material.ca_pem
    )
