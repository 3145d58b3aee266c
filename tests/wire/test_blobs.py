"""Signed blobs: one encoding each, and no bit of them may change."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.errors import ClockSkew, IdentityMismatch, LocalProtocolError, RemoteProtocolError
from bonevalue.wire import blobs
from bonevalue.wire.blobs import (
    CLOCK_WINDOW,
    KINDS,
    MAX_SDP,
    Answer,
    Blob,
    Confirm,
    Invite,
    LoginBlob,
    Offer,
    Pin,
    Redeem,
    RegisterBlob,
    Remove,
    Rotate,
    check_clock,
    decode_any,
    digest,
)
from bonevalue.wire.keys import SigningKey
from tests.support.identity import NOW, SDP, account, seed

ALICE, BOB, TOKEN = account("alice"), account("bob"), SigningKey.from_seed(seed("token key"))
SESSION, INSTANCE, HASH = seed("session", 16), seed("instance", 16), seed("hash")

#: One blob of each kind, and who signs it.
SAMPLES: list[tuple[Any, list[SigningKey]]] = [
    (LoginBlob("example.com", HASH, "alice", ALICE.public), [ALICE]),
    (RegisterBlob("example.com", HASH, "alice", ALICE.public, seed("digest")), [ALICE]),
    (Invite(ALICE.public, TOKEN.public, "bob", NOW, NOW + 1000), [ALICE]),
    (Redeem(TOKEN.public, ALICE.public, BOB.public, "robert", NOW), [TOKEN, BOB]),
    (Pin(ALICE.public, BOB.public, "bob", NOW), [ALICE]),
    (Remove(ALICE.public, BOB.public, NOW), [ALICE]),
    (Rotate(ALICE.public, BOB.public, NOW), [ALICE, BOB]),
    (Offer(SESSION, NOW, ALICE.public, BOB.public, "12", "34", INSTANCE, SDP[:60]), [ALICE]),
    (Answer(SESSION, HASH, NOW, BOB.public, ALICE.public, "34", "12", INSTANCE, SDP[:60]), [BOB]),
    (Confirm("caller", HASH, seed("other")), [ALICE]),
]
each_kind = pytest.mark.parametrize(("value", "signers"), SAMPLES, ids=[value.domain for value, _ in SAMPLES])


def flips(data: bytes) -> list[bytes]:
    """The data with one bit changed, once for each bit."""
    number = int.from_bytes(data, "big")
    return [(number ^ 1 << bit).to_bytes(len(data), "big") for bit in range(len(data) * 8)]


def lp(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def test_there_is_a_sample_of_each_kind() -> None:
    assert {type(value) for value, _ in SAMPLES} == set(KINDS.values())


@each_kind
def test_a_blob_goes_both_ways(value: Blob, signers: list[SigningKey]) -> None:
    raw = value.encode()
    kind = type(value)
    assert kind.decode(raw) == decode_any(raw) == value
    keys = [key.public for key in signers]
    assert kind.open(raw, [key.sign(raw) for key in signers], *keys) == value
    assert raw.startswith(lp(f"bonevalue/1/{value.domain}".encode()))


@each_kind
def test_no_bit_of_a_blob_can_be_flipped(value: Blob, signers: list[SigningKey]) -> None:
    raw = value.encode()
    signatures = [key.sign(raw) for key in signers]
    keys = [key.public for key in signers]
    for flipped in flips(raw):
        with pytest.raises(IdentityMismatch):
            type(value).open(flipped, signatures, *keys)


@each_kind
def test_no_bit_of_a_signature_can_be_flipped(value: Blob, signers: list[SigningKey]) -> None:
    raw = value.encode()
    signatures = [key.sign(raw) for key in signers]
    keys = [key.public for key in signers]
    for place in range(len(signatures)):
        for flipped in flips(signatures[place]):
            with pytest.raises(IdentityMismatch):
                type(value).open(raw, [*signatures[:place], flipped, *signatures[place + 1 :]], *keys)


@each_kind
def test_a_flipped_bit_gives_another_value_or_none(value: Blob, signers: list[SigningKey]) -> None:
    # So that no two blobs mean the same: what decodes encodes to the very bytes that it came from.
    for flipped in flips(value.encode()):
        try:
            other = decode_any(flipped)
        except RemoteProtocolError:
            continue
        assert other != value
        assert other.encode() == flipped


@each_kind
def test_a_blob_is_exactly_its_fields(value: Blob, signers: list[SigningKey]) -> None:
    raw = value.encode()
    kind = type(value)
    parts = blobs.split(raw)
    wrong = [raw[:size] for size in range(len(raw))]
    wrong += [raw + b"\0", raw + lp(b""), raw + lp(b"more"), raw + raw, lp(raw), b""]
    wrong += [lp(*parts[:place], *parts[place + 1 :]) for place in range(len(parts))]
    wrong += [lp(*parts[:place], parts[place] + b"\0", *parts[place + 1 :]) for place in range(len(parts))]
    wrong += [lp(*parts[:place], parts[place][:-1], *parts[place + 1 :]) for place in range(len(parts)) if place]
    wrong += [lp(*parts[:place], b"", *parts[place + 1 :]) for place in range(len(parts))]
    for changed in wrong:
        for decode in (kind.decode, decode_any):
            try:
                other = decode(changed)
            except RemoteProtocolError:
                continue
            # Text may be shorter or longer; then it is another blob, and says so.
            assert other.encode() == changed
            assert other != value


@each_kind
def test_one_kind_is_never_taken_for_another(value: Blob, signers: list[SigningKey]) -> None:
    raw = value.encode()
    for kind in KINDS.values():
        if kind is not type(value):
            with pytest.raises(RemoteProtocolError, match=kind.domain):
                kind.decode(raw)


@each_kind
def test_a_blob_of_another_signer_is_refused(value: Blob, signers: list[SigningKey]) -> None:
    raw = value.encode()
    carol = account("carol")
    keys = [key.public for key in signers]
    for place in range(len(signers)):
        others = [*signers[:place], carol, *signers[place + 1 :]]
        with pytest.raises(IdentityMismatch):
            type(value).open(raw, [key.sign(raw) for key in others], *keys)
        if type(value).signers:
            # Truly signed by carol, but not hers to sign.
            with pytest.raises(IdentityMismatch, match="another key"):
                type(value).open(raw, [key.sign(raw) for key in others], *(key.public for key in others))


def test_both_signatures_are_asked_for_in_their_order() -> None:
    value, signers = SAMPLES[3]
    raw = value.encode()
    signatures = [key.sign(raw) for key in signers]
    keys = [key.public for key in signers]
    for wrong in (signatures[:1], signatures[::-1], [*signatures, signatures[0]], [], [signatures[0]] * 2):
        with pytest.raises(IdentityMismatch):
            Redeem.open(raw, wrong, *keys)


FIELDS = [(value, entry.name) for value, _ in SAMPLES for entry in fields(value)]
BAD_VALUES: dict[type, list[Any]] = {
    bytes: [b"", b"x", bytes(31), bytes(33), bytes(15), bytes(17)],
    int: [-1, 2**53, 2**64],
    str: ["\ud800", "x" * (MAX_SDP + 1)],
}


@pytest.mark.parametrize(("value", "name"), FIELDS, ids=[f"{value.domain}.{name}" for value, name in FIELDS])
def test_our_own_code_cannot_make_a_wrong_field(value: Any, name: str) -> None:
    for bad in BAD_VALUES[type(getattr(value, name))]:
        with pytest.raises(LocalProtocolError, match=name):
            replace(value, **{name: bad}).encode()


@pytest.mark.parametrize(
    ("kind", "place", "bad"),
    [
        (Pin, 1, bytes(32)),
        (Pin, 2, (1).to_bytes(32, "little")),
        (Pin, 2, (2**255 - 19).to_bytes(32, "little")),
        (Pin, 2, b"\xff" * 32),
        (Pin, 3, b"Bob"),
        (Pin, 3, b"us"),
        (Pin, 3, b"12"),
        (Pin, 3, b"a" * 33),
        (Pin, 3, b"b\xc3\xbcb"),
        (Pin, 3, b"\xff"),
        (Redeem, 4, b"a\n"),
        (LoginBlob, 1, b"Example.com"),
        (LoginBlob, 1, b"example.com."),
        (LoginBlob, 1, b"127.0.0.1"),
        (LoginBlob, 1, b""),
        (LoginBlob, 1, b"example.com:8008"),
        (LoginBlob, 2, bytes(31)),
        (Offer, 1, bytes(15)),
        (Offer, 2, bytes(7)),
        (Offer, 5, b""),
        (Offer, 5, b"1" * 16),
        (Offer, 5, "\u0661".encode()),
        (Offer, 6, b"12\n"),
        (Offer, 8, b"\xff"),
        (Offer, 8, b"x" * (MAX_SDP + 1)),
        (Confirm, 1, b"Caller"),
        (Confirm, 1, b"both"),
    ],
)
def test_a_field_that_breaks_its_rule_is_refused(kind: type[Blob], place: int, bad: bytes) -> None:
    value = next(value for value, _ in SAMPLES if type(value) is kind)
    parts = blobs.split(value.encode())
    parts[place] = bad
    with pytest.raises(RemoteProtocolError):
        kind.decode(lp(*parts))


def test_the_longest_session_description_fits() -> None:
    offer = replace(SAMPLES[7][0], sdp="x" * MAX_SDP)
    assert Offer.decode(offer.encode()) == offer


@given(st.binary(max_size=300))
def test_any_bytes_are_a_blob_or_a_protocol_error(data: bytes) -> None:
    for decode in (decode_any, *(kind.decode for kind in KINDS.values())):
        try:
            value = decode(data)
        except RemoteProtocolError:
            continue
        assert value.encode() == data


@given(
    st.sampled_from(sorted(KINDS)),
    st.lists(
        st.binary(max_size=40) | st.binary(min_size=32, max_size=32) | st.binary(min_size=8, max_size=8), max_size=9
    ),
)
def test_any_fields_are_a_blob_or_a_protocol_error(domain: str, parts: list[bytes]) -> None:
    raw = lp(f"bonevalue/1/{domain}".encode(), *parts)
    try:
        value = KINDS[domain].decode(raw)
    except RemoteProtocolError:
        return
    assert value.encode() == raw


@given(st.binary(max_size=200), st.binary(max_size=70), st.binary(max_size=40))
def test_anything_opened_is_refused_in_a_typed_way(blob: bytes, signature: bytes, key: bytes) -> None:
    with pytest.raises(IdentityMismatch):
        Pin.open(blob, signature, key)


def test_a_digest_is_sha_256() -> None:
    assert digest(b"").hex().startswith("e3b0c44298fc1c14")


def test_the_clock_may_differ_by_five_minutes_both_ways() -> None:
    for issued in (NOW - CLOCK_WINDOW, NOW, NOW + CLOCK_WINDOW):
        check_clock(issued, NOW, what="it")
    for issued in (NOW - CLOCK_WINDOW - 1, NOW + CLOCK_WINDOW + 1, 0, 2**64 - 1):
        with pytest.raises(ClockSkew, match=r"it was signed at .* and this clock says 2027-01-15 08:00:00 UTC"):
            check_clock(issued, NOW, what="it")
