"""The certificate that a host serves, or shows, over TLS."""

from pathlib import Path

from costd.serving.settings import Certified
from costd.telemetry.logs import Log
from costd.trust import Kind, TlsFiles


def certificate_files(settings: Certified, log: Log, kind: Kind, ca: Path | None) -> TlsFiles:
    """Read a host's certificate, and the CA that those of others must come from.

    Errors:  TlsFault.
    """
    return TlsFiles(
        certificate=settings.tls_cert,
        key=settings.tls_key,
        ca=ca,
        kinds=(kind,),
        tell=lambda problem: log.error("tls_files_refused", problem=problem),
    )
