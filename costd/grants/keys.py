"""Ed25519 keys: a PEM file for the one who signs, 43 characters in the policy for all others.

What knows of keys is imported by the first of them: 10 MiB that most daemons never need.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

PUBLIC_KEY_BYTES = 32


class KeyPair(NamedTuple):
    """A new key: keep `private_pem` secret, list `public_key` in the policy."""

    private_pem: str
    public_key: str


def keygen() -> KeyPair:
    """Make a key pair.

    Shape: `private_pem` is unencrypted PKCS #8; `public_key` is base64url of the 32 raw bytes,
    without padding.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    private_key = Ed25519PrivateKey.generate()
    pem = private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return KeyPair(private_pem=pem.decode("ascii"), public_key=public_text(private_key))


def public_text(private_key: Ed25519PrivateKey) -> str:
    """Write a private key's public half the way policies list it."""
    return _base64url(private_key.public_key().public_bytes_raw())


def load_private_key(pem: str) -> Ed25519PrivateKey:
    """Read a private key as `keygen` writes it.

    Errors: ValueError for anything but an unencrypted Ed25519 key in PEM.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    try:
        key = serialization.load_pem_private_key(pem.encode("utf-8"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(
            "not an unencrypted private key in PEM; make one with `costctl override keygen`"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"grants are signed with Ed25519, not {type(key).__name__}")  # noqa: TRY004
    return key


def load_public_key(text: str) -> Ed25519PublicKey:
    """Read a public key as policies list it.

    Errors: ValueError for anything but base64url of 32 bytes, padded or not.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    bare = text.rstrip("=")
    try:
        raw = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except ValueError as error:
        raise ValueError(f"public key {text[:60]!r} is not base64url") from error
    if _base64url(raw) != bare:  # the decoder skips characters it does not know
        raise ValueError(f"public key {text[:60]!r} is not base64url")
    if len(raw) != PUBLIC_KEY_BYTES:
        raise ValueError(
            f"public key {text[:60]!r} has {len(raw)} bytes; Ed25519 has {PUBLIC_KEY_BYTES}"
        )
    return Ed25519PublicKey.from_public_bytes(raw)


def key_faults(name: str, keys: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with public keys by their id, in a setting of this name."""
    for key_id, text in keys.items():
        try:
            load_public_key(text)
        except ValueError as error:
            yield f"{name}: {key_id}: {error}"


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
