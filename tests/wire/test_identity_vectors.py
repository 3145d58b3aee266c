"""identity.json and contacts.json of tests/vectors: what other implementations are held to, we are held to as well."""

import json
from pathlib import Path
from typing import Any

import pytest

from bonevalue.errors import BadName, RemoteProtocolError, TokenInvalid, WeakPassword
from bonevalue.wire.blobs import KINDS, decode_any, digest
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.introductions import check_sdp
from bonevalue.wire.keys import (
    AccountKeys,
    SigningKey,
    alias_of,
    check_password,
    login_digest,
    public_key_ok,
    realm_of,
    username_of,
    verify,
)
from bonevalue.wire.signals import Binary, Contact, SignedBlob
from bonevalue.wire.tokens import Token
from scripts import make_contact_vectors, make_identity_vectors

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS: dict[str, Any] = json.loads((FOLDER / "identity.json").read_text("ascii"))
PEOPLE = {name: SigningKey.from_seed(bytes.fromhex(entry["seed"])) for name, entry in VECTORS["people"].items()}


def each(part: str, name: str = "name") -> pytest.MarkDecorator:
    """A test for each vector of a part."""
    return pytest.mark.parametrize("vector", VECTORS[part], ids=[ascii(vector[name]) for vector in VECTORS[part]])


def test_the_files_are_what_the_scripts_write() -> None:
    assert make_identity_vectors.build() == VECTORS
    # Each of its steps is done again by this.
    assert make_contact_vectors.build() == json.loads((FOLDER / "contacts.json").read_text("ascii"))


def test_people() -> None:
    for name, entry in VECTORS["people"].items():
        assert PEOPLE[name].public.hex() == entry["publicKey"]
        assert PEOPLE[name].fingerprint == entry["fingerprint"]


@each("realms", "host")
def test_realms(vector: dict[str, Any]) -> None:
    if vector["realm"] is None:
        with pytest.raises(ValueError, match=r"."):
            realm_of(vector["host"])
    else:
        assert realm_of(vector["host"]) == vector["realm"]


@each("names", "text")
def test_names(vector: dict[str, Any]) -> None:
    for rule in (username_of, alias_of):
        if vector["name"] is None:
            with pytest.raises(BadName):
                rule(vector["text"])
        else:
            assert rule(vector["text"]) == vector["name"]


@each("passwords", "realm")
def test_passwords(vector: dict[str, Any]) -> None:
    keys = AccountKeys.derive(vector["password"], realm=vector["realm"], username=vector["username"])
    assert keys.public.hex() == vector["publicKey"]
    assert keys.login == vector["login"]
    assert login_digest(keys.login).hex() == vector["loginDigest"]
    assert keys.fingerprint == vector["fingerprint"]


@each("newPasswords", "password")
def test_new_passwords(vector: dict[str, Any]) -> None:
    if vector["ok"]:
        check_password(vector["password"])
    else:
        with pytest.raises(WeakPassword):
            check_password(vector["password"])


@each("publicKeys")
def test_public_keys(vector: dict[str, Any]) -> None:
    assert public_key_ok(bytes.fromhex(vector["key"])) == vector["ok"]


@each("signatures")
def test_signatures(vector: dict[str, Any]) -> None:
    key, signature, text = (bytes.fromhex(vector[name]) for name in ("key", "signature", "text"))
    assert verify(key, signature, text) == vector["ok"]


@each("blobs", "kind")
def test_blobs(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["hex"])
    keys = [PEOPLE[name] for name in vector["signers"]]
    signatures = [bytes.fromhex(signature) for signature in vector["signatures"]]
    kind = KINDS[vector["kind"]]
    value = kind.open(raw, signatures, *(key.public for key in keys))
    # From bytes to fields, and back.
    for name, field in vector["fields"].items():
        ours = getattr(value, name)
        assert (ours.hex() if isinstance(ours, bytes) else ours) == field
    assert value.encode() == raw
    assert decode_any(raw) == value
    assert digest(raw).hex() == vector["sha256"]
    assert [key.sign(raw) for key in keys] == signatures


@each("malformed")
def test_malformed_blobs(vector: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_any(bytes.fromhex(vector["hex"]))


@each("sessionDescriptions", "sdp")
def test_session_descriptions(vector: dict[str, Any]) -> None:
    if vector["ok"]:
        check_sdp(vector["sdp"])
    else:
        with pytest.raises(RemoteProtocolError):
            check_sdp(vector["sdp"])


def test_tokens() -> None:
    for vector in VECTORS["tokens"]["good"]:
        key, seed = bytes.fromhex(vector["inviterKey"]), bytes.fromhex(vector["seed"])
        token = Token.make(key, seed, vector["expires"])
        assert token.text == vector["text"]
        assert Token.parse(vector["text"]) == token
        assert token.keys.public.hex() == vector["tokenKey"]
    for text in VECTORS["tokens"]["bad"]:
        with pytest.raises(TokenInvalid):
            Token.parse(text)


@each("chains")
def test_chains(vector: dict[str, Any]) -> None:
    entries = [
        Contact(
            entry["name"],
            Binary.fromhex(entry["publicKey"]),
            [
                SignedBlob(Binary.fromhex(one["blob"]), [Binary.fromhex(each) for each in one["signatures"]])
                for one in entry["certificates"]
            ],
        )
        for entry in vector["contacts"]
    ]
    verdicts = ContactBook(PEOPLE[vector["own"]]).replace(entries, vector["now"])
    for verdict, wanted in zip(verdicts, vector["verdicts"], strict=True):
        assert (verdict.contact.key.hex() if verdict.contact else None) == wanted["key"]
        assert (verdict.problem.code if verdict.problem else None) == wanted["problem"]
        assert (verdict.pin[0].hex() if verdict.pin else None) == wanted["pin"]
