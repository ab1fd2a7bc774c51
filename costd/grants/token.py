"""A grant on the wire: a JWT (RFC 7519) signed with Ed25519 (RFC 8037), and nothing else."""

from typing import Any, Literal

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.api_jws import PyJWS

from costd.grants.claims import GrantClaims
from costd.grants.keys import load_public_key
from costd.model.grant import Grant, GrantRefusal
from costd.model.policy import GrantKey
from costd.model.time import NS_PER_S

TOKEN_BYTES_MAX = 8192
"""Far above any sound grant (about 700 bytes), so that a long one costs nothing to refuse."""
ALGORITHM = "EdDSA"
TOKEN_TYPE = "costd-grant+jwt"  # noqa: S105  the media type, not a secret

_UNREADABLE = (jwt.PyJWTError, msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding a stranger's bytes can raise; deep nesting is the RecursionError."""


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The only header a grant may have: no `jwk`, `jku`, `x5u`, `crit` or `b64` can slip in."""

    alg: Literal["EdDSA"]
    typ: Literal["costd-grant+jwt"]
    kid: str


class UnverifiedGrant(msgspec.Struct, frozen=True, kw_only=True):
    """What a token claims. Anybody could have written it: show it to people, decide nothing."""

    header: dict[str, Any]
    claims: dict[str, Any]


def issue(private_key: Ed25519PrivateKey, key_id: str, claims: GrantClaims) -> str:
    """Sign a grant.

    Ensures: a daemon that lists the key verifies the token; checked before it leaves.
    Errors:  ValueError naming the claim that breaks a rule, or a grant that is too long.
    """
    wrong = claims.problem() or (None if key_id else "the key id is empty")
    if wrong:
        raise ValueError(wrong)
    token = PyJWS().encode(
        msgspec.json.encode(claims),
        private_key,
        algorithm=ALGORITHM,
        headers={"kid": key_id, "typ": TOKEN_TYPE},
    )
    if len(token) > TOKEN_BYTES_MAX:
        raise ValueError(f"the grant has {len(token)} bytes; at most {TOKEN_BYTES_MAX} are read")
    return token


def inspect(token: str) -> UnverifiedGrant:
    """Read a grant without believing it: no signature, date or audience is checked.

    Errors: ValueError if it is no token at all.
    """
    if len(token) > TOKEN_BYTES_MAX:
        raise ValueError(f"longer than {TOKEN_BYTES_MAX} bytes; no grant is")
    try:
        parts = PyJWS().decode_complete(token, options={"verify_signature": False})
        claims = msgspec.json.decode(parts["payload"], type=dict[str, Any])
    except _UNREADABLE as error:
        raise ValueError(f"not a signed grant: {error}") from error
    return UnverifiedGrant(header=parts["header"], claims=claims)


def verify(
    token: str, *, keys: tuple[GrantKey, ...], audience: str, wall_ns: int, in_fleet: bool = False
) -> Grant | GrantRefusal:
    """Check signature, claims, dates and audience, in that order; nothing is read before the first.

    With `in_fleet`, who is not in the audience is told so by `is_offline`, and not refused: a
    coordinator may lend the grant.
    Units:   valid in `[nbf, exp)` of `wall_ns`, to the nanosecond; no leeway, no clock read.
    Ensures: never raises, whatever the token; changing any character of one refuses it.
    Source:  docs/adr/0007-override-grants.md.
    """
    key = _key_named_by(token, keys)
    if isinstance(key, GrantRefusal):
        return key
    claims = _signed_claims(token, key)
    if isinstance(claims, GrantRefusal):
        return claims
    untimely = _untimely(claims, wall_ns)
    if untimely is not None:
        return untimely
    is_offline = audience in claims.aud
    if not is_offline and not in_fleet:
        return GrantRefusal.WRONG_AUDIENCE
    return claims.grant(any_class=key.admin, is_offline=is_offline)


def _key_named_by(token: str, keys: tuple[GrantKey, ...]) -> GrantKey | GrantRefusal:
    """Read the header and find the key it names."""
    if not token.isascii() or len(token) > TOKEN_BYTES_MAX or "=" in token:
        return GrantRefusal.MALFORMED
    try:
        encoded = jwt.utils.base64url_decode(token.partition(".")[0])
        header = msgspec.json.decode(encoded, type=_Header)
    except _UNREADABLE:
        return GrantRefusal.MALFORMED
    named = (key for key in keys if key.key_id == header.kid)
    return next(named, GrantRefusal.BAD_SIGNATURE)


def _signed_claims(token: str, key: GrantKey) -> GrantClaims | GrantRefusal:
    """Return the claims if the key signed them."""
    try:
        public_key = load_public_key(key.public_key)
    except ValueError:  # a policy that was loaded has sound keys; a key nobody holds signs nothing
        return GrantRefusal.BAD_SIGNATURE
    try:
        payload = PyJWS().decode(token, public_key, algorithms=[ALGORITHM])
        claims = msgspec.json.decode(payload, type=GrantClaims)
    except jwt.InvalidSignatureError:
        return GrantRefusal.BAD_SIGNATURE
    except _UNREADABLE:
        return GrantRefusal.MALFORMED
    return GrantRefusal.MALFORMED if claims.problem() else claims


def _untimely(claims: GrantClaims, wall_ns: int) -> GrantRefusal | None:
    """Say why these claims do not hold now."""
    if wall_ns < claims.nbf * NS_PER_S:
        return GrantRefusal.NOT_YET_VALID
    return GrantRefusal.EXPIRED if wall_ns >= claims.exp * NS_PER_S else None
