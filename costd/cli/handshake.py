"""Why two sides could not agree: one speaks TLS, or shows what the other refuses."""

import socket
import ssl
from typing import Final

_PROBE_S: Final = 2.0
_SCHEMES: Final = ("dns:///", "dns:", "ipv4:", "ipv6:")


def disagreement(target: str, details: str, *, tls: bool) -> str | None:
    """Say in people's words why a handshake failed, None if that is not what went wrong."""
    if not tls:
        if speaks_tls(target):
            return (
                "it speaks TLS, and you do not; name the CA of its certificate with --tls-ca (or "
                "COSTCTL_TLS_CA)"
            )
        return None
    if "WRONG_VERSION_NUMBER" in details:
        return (
            "you speak TLS, and it does not; leave --tls-ca (and COSTCTL_TLS_CA) out, or name an "
            "address that is served with TLS"
        )
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return (
            "its certificate was not issued by the CA of --tls-ca, or has expired; `costctl ca "
            "show` tells"
        )
    if "Hostname Verification" in details:
        return (
            "its certificate is not for this address; issue one with `costctl ca issue --dns` or "
            "`--ip`, or use the address it is for"
        )
    if "onnection refused" not in details and speaks_tls(target):
        return (
            "it ended the handshake: it wants a certificate that its own CA issued and that has "
            "not expired; show one with --tls-cert and --tls-key"
        )
    return None


def speaks_tls(target: str) -> bool:
    """Try to shake hands, believing anybody and sending nothing."""
    for scheme in _SCHEMES:
        target = target.removeprefix(scheme)
    host, _, port = target.rpartition(":")
    if not port.isdigit():
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), _PROBE_S) as raw,
            context.wrap_socket(raw),
        ):
            return True
    except ssl.SSLError as error:
        # It answered in TLS that it wants a certificate.
        return "ALERT" in str(error).upper()
    except OSError:
        return False
