"""A grant holds as signed, where and when it says, and in no other case."""

import base64
import hashlib
import hmac
import json

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from costd.grants import (
    TOKEN_BYTES_MAX,
    GrantClaims,
    KeyPair,
    inspect,
    issue,
    keygen,
    load_private_key,
    load_public_key,
    verify,
)
from costd.model.grant import Grant, GrantRefusal
from costd.model.labels import Match, Selector
from costd.model.policy import GrantKey
from costd.model.time import NS_PER_S

NBF_S, EXP_S = 1_700_000_000, 1_700_003_600
DURING_NS = (NBF_S + 60) * NS_PER_S
HEADER = {"alg": "EdDSA", "kid": "oncall", "typ": "costd-grant+jwt"}


@pytest.fixture(scope="session")
def pair() -> KeyPair:
    return keygen()


@pytest.fixture(scope="session")
def keys(pair) -> tuple[GrantKey, ...]:
    return (GrantKey(key_id="oncall", public_key=pair.public_key),)


@pytest.fixture(scope="session")
def claims() -> GrantClaims:
    return GrantClaims(
        jti="grant-0001",
        iss="ann@example.org",
        sub="security review of #41",
        aud=("host-1", "host-2"),
        nbf=NBF_S,
        exp=EXP_S,
        iat=NBF_S,
        reason="release is blocked",
        scope={"project": "api", "team": ("core", "infra"), "user": "*"},
        task_classes=("security_review",),
        amount_nusd=5_000_000_000,
        uses=3,
        passes_kill=True,
    )


@pytest.fixture(scope="session")
def token(pair, claims) -> str:
    return issue(load_private_key(pair.private_pem), "oncall", claims)


@pytest.fixture
def check(keys):
    def check(token, *, keys=keys, audience="host-1", wall_ns=DURING_NS):
        return verify(token, keys=keys, audience=audience, wall_ns=wall_ns)

    return check


@pytest.fixture
def sign(pair):
    """Sign any header and payload with the listed key, as a careless issuer might."""
    private_key = load_private_key(pair.private_pem)

    def sign(payload, header=None):
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        signed = f"{_b64(json.dumps(header or HEADER).encode())}.{_b64(body)}"
        return f"{signed}.{_b64(private_key.sign(signed.encode()))}"

    return sign


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_a_signed_grant_says_what_it_permits(check, token):
    assert check(token) == Grant(
        grant_id="grant-0001",
        issuer="ann@example.org",
        subject="security review of #41",
        reason="release is blocked",
        scope=Selector(
            (
                Match("project", frozenset({"api"})),
                Match("team", frozenset({"core", "infra"})),
                Match("user"),
            )
        ),
        task_classes=frozenset({"security_review"}),
        amount_nusd=5_000_000_000,
        uses_max_count=3,
        expires_ns=EXP_S * NS_PER_S,
        passes_kill=True,
        any_class=False,
    )


def test_only_an_admins_key_reaches_classes_that_are_not_critical(check, token, pair):
    admin = (GrantKey(key_id="oncall", public_key=pair.public_key, admin=True),)
    assert check(token, keys=admin).any_class is True


def test_the_key_is_chosen_by_its_id_among_many(check, token, keys):
    other = GrantKey(key_id="other", public_key=keygen().public_key)
    assert isinstance(check(token, keys=(other, *keys)), Grant)


@pytest.mark.parametrize(
    ("wall_ns", "expected"),
    [
        (NBF_S * NS_PER_S - 1, GrantRefusal.NOT_YET_VALID),
        (NBF_S * NS_PER_S, None),
        (EXP_S * NS_PER_S - 1, None),
        (EXP_S * NS_PER_S, GrantRefusal.EXPIRED),
        (2**63 - 1, GrantRefusal.EXPIRED),
        (-1, GrantRefusal.NOT_YET_VALID),
    ],
)
def test_it_holds_from_nbf_up_to_but_not_at_exp(check, token, wall_ns, expected):
    answer = check(token, wall_ns=wall_ns)
    assert isinstance(answer, Grant) if expected is None else answer is expected


def test_another_daemon_refuses_it_and_no_wildcard_helps(check, sign, claims):
    assert check(sign(_payload(claims)), audience="host-3") is GrantRefusal.WRONG_AUDIENCE
    star = sign(_payload(claims) | {"aud": ["*"]})
    assert check(star) is GrantRefusal.WRONG_AUDIENCE


@pytest.mark.parametrize("audience", [["host-1"], []])
def test_a_daemon_of_a_fleet_that_is_not_named_must_be_lent_it(keys, sign, claims, audience):
    token = sign(_payload(claims) | {"aud": audience})
    for name in ("host-1", "host-3"):
        found = verify(token, keys=keys, audience=name, wall_ns=DURING_NS, in_fleet=True)
        assert isinstance(found, Grant)
        assert found.is_offline == (name in audience)
    assert verify(token, keys=keys, audience="host-3", wall_ns=DURING_NS) is (
        GrantRefusal.WRONG_AUDIENCE
    )


def test_a_key_that_the_policy_does_not_list_signs_nothing(check, token, claims):
    assert check(token, keys=()) is GrantRefusal.BAD_SIGNATURE
    forged = issue(load_private_key(keygen().private_pem), "oncall", claims)
    assert check(forged) is GrantRefusal.BAD_SIGNATURE
    unsound = (GrantKey(key_id="oncall", public_key="not a key"),)
    assert check(token, keys=unsound) is GrantRefusal.BAD_SIGNATURE


def test_changing_any_character_of_a_token_refuses_it(check, token):
    for at, old in enumerate(token):
        new = "A" if old != "A" else "B"
        answer = check(token[:at] + new + token[at + 1 :])
        assert answer in {GrantRefusal.MALFORMED, GrantRefusal.BAD_SIGNATURE}, at


def test_dropping_or_adding_characters_refuses_it(check, token):
    header, payload, signature = token.split(".")
    for changed in (
        token[:-1],
        token + "A",
        token + "=",
        token + "\n",
        " " + token,
        f"{header}.{payload}.",
        f"{header}..{signature}",
        f"{header}.{payload}",
        f"{token}.{signature}",
        "",
        "...",
    ):
        answer = check(changed)
        assert answer in {GrantRefusal.MALFORMED, GrantRefusal.BAD_SIGNATURE}, changed


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "RS256", "ES256", "eddsa", ""])
def test_no_other_algorithm_is_accepted_even_with_a_sound_signature(check, sign, claims, algorithm):
    answer = check(sign(_payload(claims), HEADER | {"alg": algorithm}))
    assert answer is GrantRefusal.MALFORMED


def test_an_unsigned_token_is_refused(check, claims):
    body = _b64(json.dumps(_payload(claims)).encode())
    for algorithm in ("none", "EdDSA"):
        header = _b64(json.dumps(HEADER | {"alg": algorithm}).encode())
        answer = check(f"{header}.{body}.")
        assert answer in {GrantRefusal.MALFORMED, GrantRefusal.BAD_SIGNATURE}


def test_the_public_key_is_no_hmac_secret(check, pair, claims):
    for secret in (pair.public_key.encode(), load_public_key(pair.public_key).public_bytes_raw()):
        for algorithm in ("HS256", "EdDSA"):
            header = _b64(json.dumps(HEADER | {"alg": algorithm}).encode())
            signed = f"{header}.{_b64(json.dumps(_payload(claims)).encode())}"
            mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
            answer = check(f"{signed}.{_b64(mac)}")
            assert answer in {GrantRefusal.MALFORMED, GrantRefusal.BAD_SIGNATURE}


def test_eddsa_on_another_curve_is_refused(check, claims):
    private_key = Ed448PrivateKey.generate()
    raw = private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    token = jwt.encode(_payload(claims), private_key, algorithm="EdDSA", headers=HEADER)
    assert check(token) is GrantRefusal.BAD_SIGNATURE
    listed = (GrantKey(key_id="oncall", public_key=_b64(raw)),)
    assert check(token, keys=listed) is GrantRefusal.BAD_SIGNATURE


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "EdDSA", "kid": "oncall"},
        HEADER | {"typ": "JWT"},
        {"alg": "EdDSA", "typ": "costd-grant+jwt"},
        HEADER | {"kid": 1},
        HEADER | {"kid": None},
        HEADER | {"crit": ["exp"]},
        HEADER | {"crit": ["b64"], "b64": False},
        HEADER | {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AA"}},
        HEADER | {"jku": "https://example.org/keys"},
    ],
)
def test_a_header_has_algorithm_type_and_key_id_and_nothing_else(check, sign, claims, header):
    assert check(sign(_payload(claims), header)) is GrantRefusal.MALFORMED


REQUIRED = "jti iss sub aud nbf exp iat reason scope task_classes amount_nusd uses passes_kill"


@pytest.mark.parametrize("claim", REQUIRED.split())
def test_every_claim_is_required(check, sign, claims, claim):
    payload = _payload(claims)
    del payload[claim]
    assert check(sign(payload)) is GrantRefusal.MALFORMED


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("jti", ""),
        ("jti", 7),
        ("jti", "a\nb"),
        ("jti", "x" * 513),
        ("iss", None),
        ("sub", ["ann"]),
        ("reason", ""),
        ("reason", "\x1b[31mred"),
        ("aud", "host-1"),
        ("aud", ["host-1", ""]),
        ("aud", ["host-1"] * 65),
        ("nbf", float(NBF_S)),
        ("nbf", True),
        ("nbf", -1),
        ("exp", str(EXP_S)),
        ("exp", NBF_S),
        ("exp", 2**63),
        ("exp", 10**400),
        ("iat", None),
        ("amount_nusd", 0),
        ("amount_nusd", -1),
        ("amount_nusd", 2**63),
        ("amount_nusd", 1.5),
        ("amount_nusd", "5"),
        ("uses", 0),
        ("uses", False),
        ("uses", 10**7),
        ("scope", []),
        ("scope", "project=api"),
        ("scope", {"project": 1}),
        ("scope", {"project": []}),
        ("scope", {"project": ""}),
        ("scope", {"": "api"}),
        ("scope", {"k" * 65: "api"}),
        ("scope", {"project": "v" * 257}),
        ("scope", {f"k{index}": "v" for index in range(65)}),
        ("task_classes", []),
        ("task_classes", "security_review"),
        ("task_classes", [None]),
        ("passes_kill", 1),
        ("passes_kill", "true"),
        ("unknown", 1),
    ],
)
def test_a_claim_of_the_wrong_type_or_size_is_malformed(check, sign, claims, claim, value):
    assert check(sign(_payload(claims) | {claim: value})) is GrantRefusal.MALFORMED


@pytest.mark.parametrize(
    "payload",
    [b"", b"null", b"[]", b"\xff\xfe", b"{", b"[" * 5000, b'{"jti":' * 700 + b"1" + b"}" * 700],
)
def test_a_signed_payload_that_is_no_object_of_claims_is_malformed(check, sign, payload):
    assert check(sign(payload)) is GrantRefusal.MALFORMED


def test_deep_nesting_in_an_unsigned_header_is_refused_without_an_error(check):
    deep = _b64(b'{"kid":' + b"[" * 4000)
    assert check(f"{deep}.e30.AA") is GrantRefusal.MALFORMED
    with pytest.raises(ValueError, match="not a signed grant"):
        inspect(f"{deep}.e30.AA")


def test_a_token_longer_than_any_grant_is_refused_before_it_is_read(check, sign, claims):
    payload = _payload(claims)
    spare = TOKEN_BYTES_MAX - len(sign(payload))
    padded = json.dumps(payload).encode() + b" " * (spare * 3 // 4)
    fitting = next(
        token
        for cut in range(8)
        if len(token := sign(padded[: len(padded) - cut])) <= TOKEN_BYTES_MAX
    )
    assert isinstance(check(fitting), Grant)
    longer = sign(padded + b" " * 8)
    assert len(longer) > TOKEN_BYTES_MAX
    assert check(longer) is GrantRefusal.MALFORMED
    assert check("A" * 10_000_000) is GrantRefusal.MALFORMED
    with pytest.raises(ValueError, match="longer than 8192"):
        inspect(longer)


@given(st.text() | st.text(alphabet="AZaz09-_.=", max_size=200) | st.binary().map(_b64))
def test_no_text_whatever_raises(text):
    assert verify(text, keys=(), audience="a", wall_ns=0) in {
        GrantRefusal.MALFORMED,
        GrantRefusal.BAD_SIGNATURE,
    }


@given(st.lists(st.binary(max_size=60), min_size=3, max_size=3), st.booleans())
def test_no_three_segments_raise_even_under_a_sound_header(keys, parts, sound):
    segments = [_b64(part) for part in parts]
    if sound:
        segments[0] = _b64(json.dumps(HEADER).encode())
    answer = verify(".".join(segments), keys=keys, audience="host-1", wall_ns=DURING_NS)
    assert isinstance(answer, GrantRefusal)


def test_inspecting_shows_what_is_claimed_even_by_a_forger(claims, token):
    forged = issue(load_private_key(keygen().private_pem), "oncall", claims)
    for each in (token, forged):
        seen = inspect(each)
        assert seen.header == HEADER
        assert seen.claims == _payload(claims)


@pytest.mark.parametrize("text", ["", "hello", "a.b.c", "é.é.é", "\ud800"])
def test_inspecting_what_is_no_token_says_so(text):
    with pytest.raises(ValueError, match="not a signed grant"):
        inspect(text)


def test_an_issuer_is_told_which_claim_is_wrong(pair, claims):
    private_key = load_private_key(pair.private_pem)
    with pytest.raises(ValueError, match="exp 1 is not after nbf 1"):
        issue(private_key, "oncall", msgspec.structs.replace(claims, nbf=1, exp=1))
    with pytest.raises(ValueError, match="key id"):
        issue(private_key, "", claims)
    wide = {f"k{index}": "v" * 256 for index in range(64)}
    with pytest.raises(ValueError, match="at most 8192 are read"):
        issue(private_key, "oncall", msgspec.structs.replace(claims, scope=wide))


def _payload(claims) -> dict:
    return json.loads(msgspec.json.encode(claims))
