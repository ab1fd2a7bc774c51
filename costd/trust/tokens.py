"""Role tokens: JWTs (RFC 7519) signed with Ed25519 that say who may do what, where, until when."""

from collections.abc import Collection, Mapping
from typing import Any, Final, Literal

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.api_jws import PyJWS

from costd.errors import Unauthenticated
from costd.model.time import NS_PER_S
from costd.trust.certificates import Role, role_named

ALGORITHM: Final = "EdDSA"
TOKEN_TYPE: Final = "costd-role+jwt"  # noqa: S105  the media type, not a secret
TOKEN_BYTES_MAX: Final = 4_096
TTL_S_MAX: Final = 31 * 86_400
"""Nothing calls a token back but taking its key away, so none lasts longer than a month."""
SKEW_S_MAX: Final = 60
"""How far ahead the clock of the one who signed may be."""

_TEXT_LENGTH_MAX: Final = 128
_TIME_S_MAX: Final = 2**33
_AUDIENCE_COUNT_MAX: Final = 64
_UNREADABLE: Final = (jwt.PyJWTError, msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding a stranger's bytes can raise."""


class RoleClaims(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a role token says; every claim is needed and no other is allowed."""

    sub: str
    """Who holds it; goes into the audit as the actor."""
    role: str
    aud: tuple[str, ...]
    """Names of the daemons and coordinators it is for."""
    exp: int
    iat: int
    jti: str

    def problem(self) -> str | None:
        """Say what is wrong with these claims, None if nothing is."""
        for name in ("sub", "jti"):
            if not _sound(getattr(self, name)):
                return f"{name} must be 1 to {_TEXT_LENGTH_MAX} printable characters"
        if not 1 <= len(self.aud) <= _AUDIENCE_COUNT_MAX or not all(map(_sound, self.aud)):
            return f"aud must name 1 to {_AUDIENCE_COUNT_MAX}"
        try:
            role_named(self.role)
        except ValueError as error:
            return f"role {error}"
        if not 0 <= self.iat < self.exp <= _TIME_S_MAX:
            return "exp must be after iat"
        if self.exp - self.iat > TTL_S_MAX:
            return f"it lasts longer than {TTL_S_MAX // 86_400} days"
        return None


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The only header a role token may have, so that no confusion of keys or types can arise."""

    alg: Literal["EdDSA"]
    typ: Literal["costd-role+jwt"]
    kid: str


class UnverifiedToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a token claims. Anybody could have written it: show it to people, decide nothing."""

    header: dict[str, Any]
    claims: dict[str, Any]


def issue_token(private_key: Ed25519PrivateKey, key_id: str, claims: RoleClaims) -> str:
    """Sign a role token.

    Errors: ValueError naming the claim that breaks a rule.
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
        raise ValueError(f"the token has {len(token)} bytes; at most {TOKEN_BYTES_MAX} are read")
    return token


def inspect_token(token: str) -> UnverifiedToken:
    """Read a token without believing it.

    Errors: ValueError if it is no token at all.
    """
    try:
        parts = PyJWS().decode_complete(
            token[: TOKEN_BYTES_MAX + 1], options={"verify_signature": False}
        )
        claims = msgspec.json.decode(parts["payload"], type=dict[str, Any])
    except _UNREADABLE as error:
        raise ValueError(f"not a signed token: {error}") from error
    return UnverifiedToken(header=parts["header"], claims=claims)


def verify_token(
    token: str,
    *,
    keys: Mapping[str, Ed25519PublicKey],
    audiences: Collection[str],
    wall_ns: int,
) -> tuple[str, Role]:
    """Check size, header, signature, claims, dates and audience, in that order; say who holds it.

    Units:  valid in `[iat, exp)` of `wall_ns`; `iat` may be SKEW_S_MAX ahead.
    Errors: Unauthenticated saying what is wrong; nothing of the claims before the signature holds.
    """
    claims = _signed_claims(token, _key_named_by(token, keys))
    wrong = claims.problem()
    if wrong:
        raise Unauthenticated(f"the token is not sound: {wrong}")
    if wall_ns >= claims.exp * NS_PER_S:
        raise Unauthenticated(
            f"the token of {claims.sub} has expired; get a new one (`costctl token issue`)"
        )
    if wall_ns < (claims.iat - SKEW_S_MAX) * NS_PER_S:
        raise Unauthenticated(
            f"the token of {claims.sub} is not yet valid; are the clocks right, here and where it "
            "was signed?"
        )
    if not set(claims.aud) & set(audiences):
        raise Unauthenticated(
            f"the token of {claims.sub} is for {', '.join(claims.aud)}, and this is "
            f"{' or '.join(sorted(audiences))}; name it with `costctl token issue --audience`"
        )
    return claims.sub, role_named(claims.role)


def _key_named_by(token: str, keys: Mapping[str, Ed25519PublicKey]) -> Ed25519PublicKey:
    if not token.isascii() or len(token) > TOKEN_BYTES_MAX or "=" in token:
        raise Unauthenticated("the token cannot be read: it is no role token")
    try:
        encoded = jwt.utils.base64url_decode(token.partition(".")[0])
        header = msgspec.json.decode(encoded, type=_Header)
    except _UNREADABLE as error:
        raise Unauthenticated("the token cannot be read: it is no role token") from error
    key = keys.get(header.kid)
    if key is None:
        raise Unauthenticated(
            f"the token's key {header.kid[:80]!r} is not known here; list its public half in "
            "control_keys"
        )
    return key


def _signed_claims(token: str, key: Ed25519PublicKey) -> RoleClaims:
    try:
        payload = PyJWS().decode(token, key, algorithms=[ALGORITHM])
        return msgspec.json.decode(payload, type=RoleClaims)
    except jwt.InvalidSignatureError as error:
        raise Unauthenticated("the token's signature is not that of the key it names") from error
    except _UNREADABLE as error:
        raise Unauthenticated("the token cannot be read: it is no role token") from error


def _sound(text: str) -> bool:
    return 0 < len(text) <= _TEXT_LENGTH_MAX and text.isprintable()
