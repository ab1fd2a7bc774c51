"""TLS of the webhook: the certificate that is in force at each handshake."""

import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from costd.trust import TlsFault, TlsFiles


class Pair(NamedTuple):
    """A certificate with those of the CAs between, and its key, both in PEM."""

    certificate_pem: bytes
    key_pem: bytes


class Source(Protocol):
    """Where the certificate comes from: files that somebody writes, or a Secret of our own.

    Implemented by `Files` and `costd.injector.bootstrap.Bootstrap`; exists so that serving does
    not know which.
    """

    def pair(self) -> Pair | None:
        """Return what is in force now, the same object as long as it is; None if there is none."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether the API server can be expected to accept it."""
        ...


class Files:
    """Implements `Source` by files, read again when they change."""

    def __init__(self, files: TlsFiles) -> None:
        """Take what is in the files.

        Errors: TlsFault where they name no certificate.
        """
        self.files = files
        self._version = 0
        self._pair: Pair | None = None
        if self.pair() is None:
            raise TlsFault(
                "tls_cert: the webhook is served over HTTPS only; give tls_cert and tls_key, or "
                "say bootstrap: true"
            )

    is_ready = True

    def pair(self) -> Pair | None:
        """Look at the files."""
        material = self.files.current()
        if material.version != self._version and material.certificate_pem and material.key_pem:
            self._pair = Pair(material.certificate_pem, material.key_pem)
            self._version = material.version
        return self._pair


def server_context(source: Source, tell: Callable[[str], None]) -> ssl.SSLContext:
    """Serve TLS 1.2 or 1.3 with the certificate that is in force at each handshake.

    Shape:   without a certificate a handshake fails, and the next one is tried anew.
    """
    fresh = _Fresh(source, tell)
    outer = _context()

    def choose(socket: ssl.SSLObject, _name: str | None, _outer: ssl.SSLContext) -> int | None:
        inner = fresh.context()
        if inner is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        socket.context = inner
        return None

    # Called in every handshake, also where the caller names no server.
    outer.sni_callback = choose
    return outer


class _Fresh:
    """Keeps one context for each pair."""

    def __init__(self, source: Source, tell: Callable[[str], None]) -> None:
        self._source, self._tell = source, tell
        self._pair: Pair | None = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext | None:
        pair = self._source.pair()
        if pair is not self._pair and pair is not None:
            try:
                context = _context()
                with _on_disk(pair.key_pem + b"\n" + pair.certificate_pem) as path:
                    context.load_cert_chain(path)
                self._context = context
            except (ssl.SSLError, OSError) as error:
                self._tell(f"certificate and key cannot be used: {error}")
            self._pair = pair
        return self._context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@contextmanager
def _on_disk(raw: bytes) -> Iterator[str]:
    """Give OpenSSL the path that it insists on: of a file in memory where the system has those."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("costd-injector"), "wb") as file:
            file.write(raw)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    with tempfile.NamedTemporaryFile() as named:
        named.write(raw)
        named.flush()
        yield named.name
