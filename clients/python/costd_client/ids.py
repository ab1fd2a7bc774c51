"""Ids that callers choose: UUID version 7, sorted by the time they were made."""

import os
import time
import uuid

_VERSION_7 = 7 << 76
_VARIANT_10 = 2 << 62


def uuid7(unix_ms: int, random_bytes: bytes) -> str:
    """Compose a UUIDv7 of a time and ten random bytes.

    Shape:   pure; 48 bits of milliseconds, 4 of version, 12 random, 2 of variant, 62 random.
    Source:  RFC 9562, section 5.7.
    """
    noise = int.from_bytes(random_bytes)
    high_noise = (noise >> 62) & 0xFFF
    low_noise = noise & ((1 << 62) - 1)
    value = (unix_ms & ((1 << 48) - 1)) << 80
    return str(uuid.UUID(int=value | _VERSION_7 | high_noise << 64 | _VARIANT_10 | low_noise))


def new_ask_id() -> str:
    """Make an ask id that nobody else makes."""
    return uuid7(time.time_ns() // 1_000_000, os.urandom(10))
