"""Just enough HTTP/2 to send a daemon what no gRPC library would send."""

import socket
import struct

DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
FRAME_HEADER_BYTES = 9
END_STREAM, END_HEADERS = 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload):
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def header(name, value):
    """Write a header field literally, without indexing (RFC 7541, 6.2.2)."""
    return b"\0" + _length(name) + name + _length(value) + value


def _length(text):
    size, most = len(text), 127
    if size < most:
        return bytes([size])
    written, size = [most], size - most
    while size >= 128:
        written.append(size % 128 | 128)
        size //= 128
    return bytes([*written, size])


def grpc_frame(message, *, flag=0, length=None):
    """Frame a message as gRPC does, or with a lie about it."""
    return struct.pack(">BI", flag, len(message) if length is None else length) + message


def request(path, data, *metadata):
    """Write one call of a method as HTTP/2."""
    headers = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *metadata,
    )
    return (
        PREFACE
        + frame(SETTINGS, 0, 0, b"")
        + frame(HEADERS, END_HEADERS, 1, b"".join(header(*each) for each in headers))
        + frame(DATA, END_STREAM, 1, data)
    )


def answer(path, raw):
    """Send bytes to a socket; return all that comes back until the call or connection ends."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(path))
        peer.sendall(raw)
        got = b""
        while not _has_ended(got):
            try:
                more = peer.recv(65_536)
            except ConnectionResetError:
                break
            if not more:
                break
            got += more
    return got


def _has_ended(got):
    """Tell whether stream 1 was closed, or the whole connection."""
    while len(got) >= FRAME_HEADER_BYTES:
        size, kind, flags = int.from_bytes(got[:3], "big"), got[3], got[4]
        stream = int.from_bytes(got[5:9], "big")
        if len(got) < FRAME_HEADER_BYTES + size:
            return False
        ends_stream = kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM)
        if kind == GOAWAY or (stream == 1 and ends_stream):
            return True
        got = got[FRAME_HEADER_BYTES + size :]
    return False


def opened(path, raw):
    """Connect, send bytes, and leave it at that."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(str(path))
    peer.sendall(raw)
    return peer
