import base64
import json

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from costd.errors import Unauthenticated
from costd.trust import Role
from costd.trust.tokens import (
    SKEW_S_MAX,
    TOKEN_BYTES_MAX,
    TOKEN_TYPE,
    TTL_S_MAX,
    RoleClaims,
    inspect_token,
    issue_token,
    verify_token,
)

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
KEYS = {"ops": KEY.public_key(), "other": OTHER.public_key()}
NOW_S = 1_800_000_000
CLAIMS = RoleClaims(
    sub="ann", role="operator", aud=("host-1", "host-2"), exp=NOW_S + 600, iat=NOW_S, jti="t-1"
)


def changed(**fields):
    return msgspec.structs.replace(CLAIMS, **fields)


def verified(token, *, now_s=NOW_S, audiences=("host-1",), keys=KEYS):
    return verify_token(token, keys=keys, audiences=audiences, wall_ns=now_s * 10**9)


def raw(header, claims, key=KEY, algorithm="EdDSA"):
    return jwt.encode(claims, key, algorithm=algorithm, headers=header)


@pytest.mark.parametrize("role", Role)
def test_a_token_says_who_holds_it_and_what_they_may(role):
    token = issue_token(KEY, "ops", changed(role=role.label))
    assert verified(token) == ("ann", role)
    assert verified(token, audiences=("x", "host-2")) == ("ann", role)
    assert inspect_token(token).claims["role"] == role.label


def test_a_token_holds_from_when_it_was_signed_until_it_expires():
    token = issue_token(KEY, "ops", CLAIMS)
    assert verified(token, now_s=NOW_S - SKEW_S_MAX)
    assert verified(token, now_s=NOW_S + 599)
    with pytest.raises(Unauthenticated, match=r"not yet valid.*clocks"):
        verified(token, now_s=NOW_S - SKEW_S_MAX - 1)
    with pytest.raises(Unauthenticated, match="of ann has expired"):
        verified(token, now_s=NOW_S + 600)


def test_a_token_for_others_is_refused():
    with pytest.raises(Unauthenticated, match="is for host-1, host-2, and this is host-3"):
        verified(issue_token(KEY, "ops", CLAIMS), audiences=("host-3",))


def test_a_token_of_a_key_nobody_listed_is_refused():
    with pytest.raises(Unauthenticated, match="'ops' is not known here"):
        verified(issue_token(KEY, "ops", CLAIMS), keys={})


def test_a_token_of_another_key_is_refused():
    with pytest.raises(Unauthenticated, match="signature"):
        verified(issue_token(OTHER, "ops", CLAIMS))


def test_changing_any_character_of_a_token_refuses_it():
    token = issue_token(KEY, "ops", CLAIMS)
    for index, letter in enumerate(token):
        other = "A" if letter != "A" else "B"
        with pytest.raises(Unauthenticated):
            verified(token[:index] + other + token[index + 1 :])


HEADER = {"kid": "ops", "typ": TOKEN_TYPE}
BODY = msgspec.to_builtins(CLAIMS)


def unsigned(header):
    parts = [json.dumps(each).encode() for each in (header, BODY)]
    return ".".join(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts) + "."


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b.c",
        "ä.b.c",
        "x" * (TOKEN_BYTES_MAX + 1),
        "[" * 3_000 + ".b.c",
        unsigned({**HEADER, "alg": "none"}),
        unsigned({**HEADER, "alg": "None"}),
        unsigned({**HEADER, "alg": "EdDSA"}),
        raw(HEADER, BODY, "s" * 64, "HS256"),
        raw({"kid": "ops", "typ": "JWT"}, BODY),
        raw({"kid": "ops", "typ": "costd-grant+jwt"}, BODY),
        raw({"typ": TOKEN_TYPE}, BODY),
        raw({**HEADER, "jwk": {}}, BODY),
        raw({**HEADER, "crit": ["exp"]}, BODY),
        raw(HEADER, BODY | {"scope": "all"}),
        raw(HEADER, {k: v for k, v in BODY.items() if k != "jti"}),
        raw(HEADER, BODY | {"aud": "host-1"}),
        raw(HEADER, BODY | {"aud": []}),
        raw(HEADER, BODY | {"sub": ""}),
        raw(HEADER, BODY | {"sub": "a\nb"}),
        raw(HEADER, BODY | {"role": "root"}),
        raw(HEADER, BODY | {"exp": NOW_S + TTL_S_MAX + 1}),
        raw(HEADER, BODY | {"exp": NOW_S}),
        raw(HEADER, BODY | {"exp": 2**60, "iat": 2**60 - 1}),
        raw(HEADER, BODY | {"iat": -5}),
    ],
)
def test_what_is_no_sound_token_is_refused_whoever_signed_it(token):
    with pytest.raises(Unauthenticated):
        verified(token)


@pytest.mark.parametrize(
    "fields",
    [
        {"sub": ""},
        {"role": "Admin"},
        {"aud": ()},
        {"aud": ("",)},
        {"jti": "x" * 129},
        {"exp": NOW_S},
        {"exp": NOW_S + TTL_S_MAX + 1},
    ],
)
def test_no_token_is_signed_that_nobody_would_believe(fields):
    with pytest.raises(ValueError, match=r"."):
        issue_token(KEY, "ops", changed(**fields))


def test_a_token_needs_a_keys_id_and_may_not_be_too_long():
    with pytest.raises(ValueError, match="key id"):
        issue_token(KEY, "", CLAIMS)
    with pytest.raises(ValueError, match="bytes"):
        issue_token(KEY, "ops", changed(aud=tuple("x" * 120 + str(n) for n in range(60))))


def test_what_is_no_token_cannot_be_looked_into():
    with pytest.raises(ValueError, match="not a signed token"):
        inspect_token("x.y")
