"""Sign override grants, and verify them offline (docs/adr/0007-override-grants.md)."""

from costd.grants.claims import GrantClaims
from costd.grants.keys import KeyPair, key_faults, keygen, load_private_key, load_public_key
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
