"""Keys are read strictly and written one way."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from costd.grants import keygen, load_private_key, load_public_key
from costd.grants.keys import public_text


def test_a_new_pair_belongs_together_and_is_new():
    first, second = keygen(), keygen()
    assert public_text(load_private_key(first.private_pem)) == first.public_key
    assert len(first.public_key) == 43
    assert first.public_key != second.public_key


def test_a_public_key_may_be_padded():
    bare = keygen().public_key
    assert load_public_key(bare + "=") == load_public_key(bare)


@pytest.mark.parametrize("text", ["", "AAAA", "A" * 43 + "A" * 10, "+" * 43, "é" * 43, "A" * 41])
def test_what_is_no_public_key_is_refused(text):
    with pytest.raises(ValueError, match="public key"):
        load_public_key(text)


def test_other_private_keys_are_refused():
    pem, pkcs8 = Encoding.PEM, PrivateFormat.PKCS8
    curve = generate_private_key(SECP256R1()).private_bytes(pem, pkcs8, NoEncryption())
    with pytest.raises(ValueError, match="signed with Ed25519"):
        load_private_key(curve.decode())
    locked = Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, BestAvailableEncryption(b"x"))
    for text in (locked.decode(), "", "hello"):
        with pytest.raises(ValueError, match="unencrypted private key"):
            load_private_key(text)
