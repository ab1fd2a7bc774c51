"""The way of `costd health` that every pod goes every few seconds: one call, no library loaded.

Loading gRPC takes ten times as long as the call. So what is said here is "serving", and "nobody is
there"; whatever else comes is left to the whole program, which asks again and says what is wrong.
"""

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

ANSWER_S: Final = 2.0
READS_COUNT_MAX: Final = 32
FRAME_BYTES_MAX: Final = 16_384
"""No server may send a larger one to whoever has not allowed it (RFC 9113, 4.2)."""

_HEAD: Final = struct.Struct(">HBBBI")
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_SERVING: Final = b"\0\0\0\0\x02\x08\x01"
"""grpc.health.v1.HealthCheckResponse with status SERVING, as gRPC frames a message."""


def socket_to_ask(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Find the Unix socket that this command line is about; empty if the whole program must."""
    match arguments:
        case ["health"]:
            named = environment.get("COSTD_ADDRESS") or environment.get("COSTD_SOCKET", "")
        case ["health", "--address", address]:
            named = address
        case _:
            return ""
    path = named.removeprefix("unix:").removeprefix("//")
    return path if path.startswith("/") else ""


def problem_at(path: str, answer_s: float = ANSWER_S) -> str | None:
    """Say why nobody serves at this socket: empty if somebody says they do, None for any doubt."""
    try:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(answer_s)
            peer.connect(path)
            peer.sendall(_CALL)
            return "" if _SERVING in _data(peer) else None
    except (FileNotFoundError, ConnectionRefusedError) as error:
        return f"nobody serves unix:{path} (yet): {error.strerror}"
    except (OSError, ValueError):
        return None


def _data(peer: socket.socket) -> Iterator[bytes]:
    """Yield what comes as data on the one stream, until anything ends it."""
    got = b""
    for _ in range(READS_COUNT_MAX):
        more = peer.recv(FRAME_BYTES_MAX)
        if not more:
            return
        got += more
        while len(got) >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(got)
            end = _HEAD.size + (high << 8 | low)
            if len(got) < end:
                break
            if kind == _DATA and stream == 1:
                yield got[_HEAD.size : end]
            elif stream == 1 and flags & _END_STREAM:
                return
            got = got[end:]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _HEAD.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def _field(name: bytes, value: bytes) -> bytes:
    """Write a header field as it is, for nobody to remember (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


_CALL: Final = b"".join(
    (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        _frame(_SETTINGS, 0, 0, b""),
        _frame(
            _HEADERS,
            _END_HEADERS,
            1,
            _field(b":method", b"POST")
            + _field(b":scheme", b"http")
            + _field(b":path", b"/grpc.health.v1.Health/Check")
            + _field(b":authority", b"localhost")
            + _field(b"content-type", b"application/grpc")
            + _field(b"te", b"trailers"),
        ),
        _frame(_DATA, _END_STREAM, 1, b"\0\0\0\0\0"),
    )
)
"""A whole call: HTTP/2's preface, and a Check of everything that is served there."""
