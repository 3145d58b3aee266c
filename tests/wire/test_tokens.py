"""Token text, and what both sides sign with it."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.errors import AlreadyTrusted, TokenExpired, TokenInvalid
from bonevalue.wire.blobs import Invite, Pin, Redeem
from bonevalue.wire.keys import to_base64url
from bonevalue.wire.tokens import TOKEN_SIZE, Token, invite, redeem
from tests.support.identity import NOW, account, seed, token_of

ALICE, BOB = account("alice"), account("bob")
TOKEN = token_of(ALICE)


def test_a_token_goes_both_ways() -> None:
    assert Token.parse(TOKEN.text) == TOKEN
    assert Token.parse(f"  {TOKEN.text}\n") == TOKEN
    assert TOKEN.text.startswith("bv1_")
    assert len(TOKEN.text) == TOKEN_SIZE == 80


def test_no_bit_of_a_token_can_be_flipped() -> None:
    raw = TOKEN.text.encode()
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TokenInvalid):
            Token.parse(flipped.decode("latin-1"))


def test_no_two_characters_of_a_token_can_be_swapped() -> None:
    text = TOKEN.text
    for place in range(len(text) - 1):
        swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
        if swapped != text:
            with pytest.raises(TokenInvalid):
                Token.parse(swapped)


def text_of(raw: bytes) -> str:
    """A token text with the right check over anything."""
    return "bv1_" + to_base64url(raw + hashlib.sha256(raw).digest()[:4])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begins with bv1_"),
        ("hello", "begins with bv1_"),
        (TOKEN.text.upper(), "begins with bv1_"),
        (TOKEN.text[:-1], "79 characters instead of 80"),
        (TOKEN.text + "A", "81 characters"),
        (TOKEN.text[:40] + " " + TOKEN.text[40:], "81 characters"),
        (TOKEN.text[:40] + "!" + TOKEN.text[41:], "a character that no token has"),
        (TOKEN.text[:40] + "é" + TOKEN.text[41:], "a character that no token has"),
        (text_of(b"\2" + ALICE.public + bytes(20)), "version 2"),
        (text_of(b"\1" + bytes(32) + bytes(20)), "no usable key"),
        (text_of(b"\1" + b"\xff" * 32 + bytes(20)), "no usable key"),
    ],
)
def test_what_is_no_token_is_refused_with_a_reason(text: str, says: str) -> None:
    with pytest.raises(TokenInvalid, match=says):
        Token.parse(text)


@given(st.text(max_size=90) | st.binary(min_size=57, max_size=57).map(lambda raw: "bv1_" + to_base64url(raw)))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    try:
        token = Token.parse(text)
    except TokenInvalid:
        return
    assert token.text == text.strip()


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1))
def test_any_token_that_can_be_made_can_be_read(token_seed: bytes, expires: int) -> None:
    token = Token.make(ALICE.public, token_seed, expires)
    assert Token.parse(token.text) == token


@pytest.mark.parametrize(
    ("key", "token_seed", "expires"),
    [
        (bytes(32), bytes(16), 0),
        (ALICE.public, bytes(15), 0),
        (ALICE.public, bytes(16), 2**32),
        (ALICE.public, bytes(16), -1),
    ],
)
def test_a_token_that_could_not_be_read_is_not_made(key: bytes, token_seed: bytes, expires: int) -> None:
    with pytest.raises(ValueError, match="a token holds"):
        Token.make(key, token_seed, expires)


def test_a_token_does_not_show_its_seed() -> None:
    assert repr(TOKEN.seed) not in repr(TOKEN)
    assert TOKEN.seed.hex() not in repr(TOKEN)


def test_every_seed_is_another_key() -> None:
    assert token_of(ALICE, "one").keys.public != token_of(ALICE, "two").keys.public
    assert TOKEN.keys.public not in (ALICE.public, BOB.public)


def test_an_invite_says_what_the_token_says() -> None:
    blob, signature = invite(ALICE, TOKEN, "bob", NOW)
    opened = Invite.open(blob, signature, ALICE.public)
    assert opened == Invite(ALICE.public, TOKEN.keys.public, "bob", NOW, TOKEN.expires * 1000)
    assert TOKEN.seed not in blob


def test_a_redemption_is_signed_by_token_and_claimer() -> None:
    done = redeem(BOB, "robert", TOKEN, "alice", NOW)
    opened = Redeem.open(done.redeem, done.signatures, TOKEN.keys.public, BOB.public)
    assert opened == Redeem(TOKEN.keys.public, ALICE.public, BOB.public, "robert", NOW)
    assert Pin.open(done.pin, done.signature, BOB.public) == Pin(BOB.public, ALICE.public, "alice", NOW)
    assert TOKEN.seed not in done.redeem + done.pin


def test_ones_own_token_is_not_claimed() -> None:
    with pytest.raises(AlreadyTrusted):
        redeem(ALICE, "alice", TOKEN, "me", NOW)


def test_a_token_is_claimed_before_its_end_only() -> None:
    redeem(BOB, "robert", TOKEN, "alice", TOKEN.expires * 1000 - 1)
    with pytest.raises(TokenExpired):
        redeem(BOB, "robert", TOKEN, "alice", TOKEN.expires * 1000)


def test_a_seed_of_another_account_is_of_no_use() -> None:
    assert (
        Token.make(ALICE.public, seed("x", 16), 1).keys.public == Token.make(BOB.public, seed("x", 16), 1).keys.public
    )
    first, second = (
        redeem(account("carol"), "carol", Token.make(k.public, seed("x", 16), 2**31), "a", NOW) for k in (ALICE, BOB)
    )
    assert first.redeem != second.redeem  # the inviter's key is inside what both keys sign
