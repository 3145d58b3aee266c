"""Realms, names, passwords, and an Ed25519 that takes one encoding of one thing only."""

import hashlib
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.errors import BadName, WeakPassword
from bonevalue.wire.keys import (
    AccountKeys,
    SigningKey,
    alias_of,
    check_password,
    fingerprint,
    fingerprint_of,
    from_base64url,
    login_digest,
    public_key_ok,
    realm_of,
    to_base64url,
    username_of,
    verify,
)
from tests.support.identity import account, seed

# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "name"), [("Bob", "bob"), ("a", "a"), ("a.b-c_9", "a.b-c_9"), ("x" * 32, "x" * 32)])
def test_a_name_is_lower_cased(text: str, name: str) -> None:
    assert username_of(text) == alias_of(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 33,
        "us",
        "US",
        "123",
        "0",
        "a b",
        "a\n",
        "ü",
        "\u212aelvin",
        "\uff42ob",
        "bob\u200b",
        "a/b",
        "*",
        "a\x00",
    ],
)
def test_what_breaks_the_rule_is_no_name(text: str) -> None:
    for rule in (username_of, alias_of):
        with pytest.raises(BadName):
            rule(text)


@pytest.mark.parametrize(
    ("host", "realm"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("example.com:8008", "example.com"),
        ("example.com.:443", "example.com"),
        ("Bücher.Example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("my_service", "my_service"),
        ("localhost", "localhost"),
        ("LOCALHOST.:8008", "localhost"),
        ("127.0.0.1", "localhost"),
        ("127.255.0.9:8008", "localhost"),
        ("::1", "localhost"),
        ("0:0:0:0:0:0:0:1", "localhost"),
        ("[::1]", "localhost"),
        ("[::1]:8008", "localhost"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("[2001:DB8::0:1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:127.0.0.1", "::ffff:7f00:1"),
        ("sub.localhost", "sub.localhost"),
    ],
)
def test_the_realm_of_a_host(host: str, realm: str) -> None:
    assert realm_of(host) == realm
    assert realm_of(realm) == realm


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a..b",
        "-a.example",
        "a-.example",
        "a b",
        "a/b",
        "user@example.com",
        "example.com:",
        "example.com:port",
        "example.com:123456",
        "[::1",
        "[::1]x",
        "[example.com]",
        "fe80::1%eth0",
        "1.2.3",
        "127.1",
        "1.2.3.04",
        "0x7f.0.0.0x1",
        "256.1.1.1",
        "straße.example",
        "x" * 64,
        "x." * 127 + "xx",
        "\u3002",
        "a\x00b",
    ],
)
def test_what_is_no_host_has_no_realm(host: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        realm_of(host)


@given(st.text(max_size=40))
def test_any_text_has_a_realm_that_is_its_own_or_none(text: str) -> None:
    try:
        realm = realm_of(text)
    except ValueError:
        return
    assert realm_of(realm) == realm
    assert realm.isascii()


# -- passwords -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "password",
    [
        "",
        "test",
        "a1b2c3d4e",
        "x" * 1025,
        "aaaaaaaaaaaa",
        "abababababab",
        "password123",
        "Password123!",
        "P@ssw0rd2024!",
        "1234567890",
        "qwertyuiop",
        "0987654321",
        "letmein letmein",
        "iloveyou2020",
        "adminadmin1",
        "correcthorsebatterystaple",
        "x7!x7!x7!x7!",
        "1q2w3e4r5t6y",
        "qwertyuiop1!",
        "future \u0378 character",
        "lone \ud800 surrogate",
    ],
)
def test_a_weak_password_is_refused(password: str) -> None:
    with pytest.raises(WeakPassword):
        check_password(password)


@pytest.mark.parametrize(
    "password",
    [
        "nqzt-4hwb-kd8r",
        "tall green otters waltz",
        "Übergrößenträger 7",
        "水曜日は図書館で勉強します",
        "x" * 3 + "kQ9!vTe2",
    ],
)
def test_a_good_password_is_taken(password: str) -> None:
    check_password(password)


def test_a_password_gives_the_same_keys_however_it_is_typed() -> None:
    typed = AccountKeys.derive("caf\u00e9 \ufb01ve", realm="LOCALHOST:8008", username="Admin")
    other = AccountKeys.derive("cafe\u0301 five", realm="127.0.0.1", username="admin")
    assert (typed.public, typed.login) == (other.public, other.login)


def test_realm_and_username_give_other_keys() -> None:
    keys = [
        AccountKeys.derive("password", realm=realm, username=name)
        for realm, name in [("a.example", "bob"), ("b.example", "bob"), ("a.example", "bo")]
    ]
    assert len({key.public for key in keys}) == len({key.login for key in keys}) == 3


@pytest.mark.parametrize("password", ["", "x" * 1025, "\u0378", "\udfff"])
def test_no_keys_come_out_of_what_is_no_password(password: str) -> None:
    with pytest.raises(WeakPassword):
        AccountKeys.derive(password, realm="localhost", username="bob")


def test_keys_show_only_their_fingerprint() -> None:
    keys = account("alice")
    for secret in (keys.login, keys.login[:8]):
        assert secret not in repr(keys)
        assert secret not in f"{keys}"
    assert keys.fingerprint in repr(keys)
    with pytest.raises(AttributeError):
        keys.login = ""  # type: ignore[misc]


def test_the_login_secret_is_43_characters_and_has_a_digest() -> None:
    login = account("alice").login
    assert len(login) == 43
    assert login_digest(login) == hashlib.sha256(login.encode()).digest()


@pytest.mark.parametrize("login", ["", "A" * 42, "A" * 44, "A" * 42 + "B", "!" * 43, "é" * 43])
def test_what_is_no_login_secret_has_no_digest(login: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        login_digest(login)


@given(st.binary(max_size=100))
def test_base64url_goes_both_ways(data: bytes) -> None:
    text = to_base64url(data)
    assert from_base64url(text) == data
    assert "=" not in text


@given(st.text(max_size=30))
def test_base64url_is_canonical_or_refused(text: str) -> None:
    try:
        data = from_base64url(text)
    except ValueError:
        return
    assert to_base64url(data) == text


# -- fingerprints ----------------------------------------------------------------------------------------------------


def test_a_fingerprint_is_six_groups_of_four() -> None:
    text = fingerprint(account("alice").public)
    assert [len(group) for group in text.split("-")] == [4] * 6
    assert fingerprint_of(text.upper().replace("-", " ")) == text
    assert fingerprint(account("bob").public) != text


@pytest.mark.parametrize("text", ["", "abcd", "abcd-" * 6 + "abcd", "0" * 24, "é" * 24])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="fingerprint"):
        fingerprint_of(text)


# -- Ed25519: a small and slow one, to make what no honest program makes ---------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    cross = D * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + cross, -1, P) % P
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - cross, -1, P) % P
    return x, y


def times(scalar: int, point: Point) -> Point:
    result = IDENTITY
    for bit in bin(scalar)[2:]:
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def points() -> Iterator[Point]:
    """Points of the curve, by their y."""
    root = pow(2, (P - 1) // 4, P)
    for y in range(2, 200):
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        for candidate in (x, x * root % P):
            if candidate * candidate % P == square:
                yield candidate, y
                break


def torsion() -> list[Point]:
    """All eight points of small order, found by multiplying points with the group's large prime."""
    for point in points():
        generator = times(L, point)
        if times(4, generator) != IDENTITY:
            return [times(factor, generator) for factor in range(8)]
    raise AssertionError("no point of order 8")


def encodings(point: Point) -> list[bytes]:
    """Every 32 bytes that some decoder takes for this point."""
    x, y = point
    values = [y, y + P] if y + P < 2**255 else [y]
    signs = [0, 1] if x == 0 else [x & 1]
    return [(value | sign << 255).to_bytes(32, "little") for value in values for sign in signs]


def test_every_encoding_of_every_small_order_point_is_refused() -> None:
    found = torsion()
    assert len(set(found)) == 8
    refused = [encoding for point in found for encoding in encodings(point)]
    assert len(set(refused)) == 14
    assert not any(public_key_ok(encoding) for encoding in refused)


def test_keys_that_are_not_canonical_are_refused() -> None:
    for value in range(P, 2**255):
        for sign in (0, 1):
            assert not public_key_ok((value | sign << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_keys_and_signatures_of_another_length_are_refused(size: int) -> None:
    key = account("alice")
    signature = key.sign(b"text")
    assert not public_key_ok(bytes([7]) * size)
    assert not verify((key.public * 2)[:size], signature, b"text")
    assert not verify(key.public, (signature * 2)[:size] if size != 64 else signature[:-1] + b"\0\0", b"text")


def test_a_small_order_key_that_verifies_anything_is_refused() -> None:
    universal = IDENTITY[1].to_bytes(32, "little")
    signature = universal + bytes(32)
    # What we guard against: the library below takes this signature for every text.
    Ed25519PublicKey.from_public_bytes(universal).verify(signature, b"any text")
    assert not verify(universal, signature, b"any text")


def test_a_small_order_key_is_refused_beside_an_r_that_is_well() -> None:
    universal = IDENTITY[1].to_bytes(32, "little")
    signature = account_key("alice").public + (scalar_of(seed("alice")) % L).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(universal).verify(signature, b"any text")
    assert not verify(universal, signature, b"any text")


def account_key(name: str) -> SigningKey:
    return SigningKey.from_seed(seed(name))


def scalar_of(secret: bytes) -> int:
    raw = bytearray(hashlib.sha512(secret).digest()[:32])
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return int.from_bytes(raw, "little")


def sign_with(secret: bytes, encoded_r: bytes, nonce: int, text: bytes) -> bytes:
    """A signature whose R is encoded as we like."""
    public = SigningKey.from_seed(secret).public
    challenge = int.from_bytes(hashlib.sha512(encoded_r + public + text).digest(), "little")
    return encoded_r + ((nonce + challenge * scalar_of(secret)) % L).to_bytes(32, "little")


def test_a_signature_with_an_r_of_small_order_or_not_canonical_is_refused() -> None:
    secret = seed("alice")
    key = SigningKey.from_seed(secret)
    canonical = sign_with(secret, IDENTITY[1].to_bytes(32, "little"), 0, b"text")
    Ed25519PublicKey.from_public_bytes(key.public).verify(canonical, b"text")  # the library takes this one
    assert not verify(key.public, canonical, b"text")
    for encoded in encodings(IDENTITY)[1:]:
        assert not verify(key.public, sign_with(secret, encoded, 0, b"text"), b"text")


def test_a_signature_with_an_s_that_is_not_reduced_is_refused() -> None:
    key = account("alice")
    signature = key.sign(b"text")
    assert verify(key.public, signature, b"text")
    scalar = int.from_bytes(signature[32:], "little") + L
    while scalar < 2**256:
        assert not verify(key.public, signature[:32] + scalar.to_bytes(32, "little"), b"text")
        scalar += L


def test_a_key_that_is_no_point_verifies_nothing() -> None:
    ys = {y for _, y in points()}
    off_curve = next(y for y in range(2, 200) if y not in ys).to_bytes(32, "little")
    assert not verify(off_curve, account("alice").sign(b"text"), b"text")


def test_every_bit_of_key_signature_and_text_counts() -> None:
    key = account("alice")
    text = b"some text"
    signature = key.sign(text)
    for part in range(3):
        parts = [key.public, signature, text]
        for bit in range(len(parts[part]) * 8):
            flipped = bytearray(parts[part])
            flipped[bit // 8] ^= 1 << bit % 8
            changed = [*parts[:part], bytes(flipped), *parts[part + 1 :]]
            assert not verify(*changed)
