"""Sign override grants, and verify them offline (docs/adr/0007-override-grants.md).

What reads and writes tokens is imported by the first who asks for it.
"""

from typing import TYPE_CHECKING, Any

from costd.grants.claims import GrantClaims
from costd.grants.keys import KeyPair, key_faults, keygen, load_private_key, load_public_key

if TYPE_CHECKING:
    from costd.grants.token import TOKEN_BYTES_MAX, UnverifiedGrant, inspect, issue, verify

__all__ = [
    "TOKEN_BYTES_MAX",
    "GrantClaims",
    "KeyPair",
    "UnverifiedGrant",
    "inspect",
    "issue",
    "key_faults",
    "keygen",
    "load_private_key",
    "load_public_key",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Find what lies in `token`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from costd.grants import token  # noqa: PLC0415

    return getattr(token, name)
