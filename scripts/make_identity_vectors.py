"""Write tests/vectors/identity.json: names, keys, blobs, tokens, chains and proofs, for readers in any language."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bonevalue.errors import WeakPassword
from bonevalue.wire.blobs import (
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
    digest,
    split,
)
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.keys import AccountKeys, SigningKey, check_password, expand, login_digest, to_base64url
from bonevalue.wire.signals import Binary, Contact, SignedBlob
from bonevalue.wire.tokens import Token

TARGET = Path(__file__).parent.parent / "tests" / "vectors" / "identity.json"
#: The time of everything, in ms since 1970.
NOW = 1_800_000_000_000
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
PEOPLE = ("alice", "alice later", "bob", "bob later", "bob much later", "carol", "mallory", "token", "other token")


def seed(name: str, size: int = 32) -> bytes:
    """Bytes that look random and are always the same."""
    return hashlib.sha256(f"bonevalue test vector: {name}".encode()).digest()[:size]


def person(name: str) -> SigningKey:
    """The key pair of a name; the token's is that of its text."""
    return SigningKey.from_seed(expand(seed(name, 16), "bonevalue/1/token") if "token" in name else seed(name))


def realms() -> list[dict[str, Any]]:
    """Hosts as typed, and their realm; None: refused."""
    cases: dict[str, str | None] = {
        "example.com": "example.com",
        "Example.COM.:8008": "example.com",
        "Bücher.example": "xn--bcher-kva.example",
        "my_service": "my_service",
        "localhost:8008": "localhost",
        "LocalHost.": "localhost",
        "127.0.0.1:8008": "localhost",
        "127.8.9.10": "localhost",
        "[::1]:8008": "localhost",
        "0:0:0:0:0:0:0:1": "localhost",
        "192.168.1.20:80": "192.168.1.20",
        "[2001:DB8:0::1]": "2001:db8::1",
        "sub.localhost": "sub.localhost",
        "": None,
        "a..b": None,
        "-a.example": None,
        "a b": None,
        "a/b": None,
        "127.1": None,
        "256.1.1.1": None,
        "0x7f.0.0.1.0x1": None,
        "[fe80::1%eth0]": None,
        "straße.example": None,
        "example.com.:443": "example.com",
        "xn--bcher-kva.example": "xn--bcher-kva.example",
        "b\u00fccher\u3002Example\uff0e": "xn--bcher-kva.example",
        "\u6c34.example:8008": "xn--1rw.example",
        "\uff11\uff12\uff17.1": None,
        "\uff11\uff10.0.0.1": "10.0.0.1",
        "a.\u00fc..b": None,
        "\u3002": None,
        "b\u00fc/c": None,
        "b\u00fc\tc": None,
        "\u200b": None,
        "a.\u00ad": None,
        "2001:db8::1": "2001:db8::1",
        "::ffff:127.0.0.1": "::ffff:7f00:1",
        "[::FFFF:10.0.0.1]:80": "::ffff:a00:1",
        "1:2:3:4:5:6:7::": "1:2:3:4:5:6:7:0",
        "::": "::",
        "2001:0:0:1:0:0:0:1": "2001:0:0:1::1",
        ":::": None,
        "1:2:3:4:5:6:7:8:9": None,
        "::1.2.3": None,
        "::01.2.3.4": None,
        "::1.2.3.04": None,
        "::ffff:10.00.0.1": None,
        "::ffff:10.0.0.1": "::ffff:a00:1",
        "::01:02": "::1:2",
        "::12345": None,
        "[::1": None,
        "[::1]x": None,
        "[::1]:": None,
        "[:\n:1]": None,
        "[example.com]": None,
        "fe80::1%eth0": None,
        ".": None,
        "a-.example": None,
        "user@example.com": None,
        "user@1.2.3.4": None,
        "example.com:": None,
        "example.com:port": None,
        "example.com:123456": None,
        "1.2.3": None,
        "1.2.3.04": None,
        "a.0xg": None,
        "-1.2.3.4": None,
        "x" * 63: "x" * 63,
        "x" * 64: None,
        "x." * 126 + "x": "x." * 126 + "x",
        "x." * 127 + "xx": None,
        "a\0b": None,
        "a%62.example": None,
    }
    return [{"host": host, "realm": realm} for host, realm in cases.items()]


def names() -> list[dict[str, Any]]:
    """Names as typed, and their canonical form; None: refused."""
    good = {"bob": "bob", "BOB": "bob", "a.b-c_9": "a.b-c_9", "x" * 32: "x" * 32}
    bad = [
        "",
        "x" * 33,
        "us",
        "Us",
        "12",
        "a b",
        "bob\n",
        "bübchen",
        "\u212a",
        "a/b",
        "*",
        "\uff42ob",
        "bob\u200b",
        "a\0",
    ]
    return [{"text": text, "name": name} for text, name in [*good.items(), *((text, None) for text in bad)]]


def passwords() -> list[dict[str, Any]]:
    """Everything that comes out of a password."""
    cases = [
        ("correct horse battery staple", "example.com", "alice"),
        ("correct horse battery staple", "localhost", "alice"),
        ("Ｗａｓｓｅｒ \ufb01sh cafe\u0301 水", "example.com", "bob"),
    ]
    result = []
    for password, realm, username in cases:
        keys = AccountKeys.derive(password, realm=realm, username=username)
        fields = {"login": keys.login, "loginDigest": login_digest(keys.login).hex(), "publicKey": keys.public.hex()}
        result.append(
            {"password": password, "realm": realm, "username": username, **fields, "fingerprint": keys.fingerprint}
        )
    return result


def new_passwords() -> list[dict[str, Any]]:
    """Whether a new password is taken."""
    weak = [
        "test",
        "a1b2c3d4e",
        "aaaaaaaaaaaa",
        "abababababab",
        "password123",
        "Password123!",
        "P@ssw0rd2024!",
        "1234567890",
        "qwertyuiop",
        "0987654321",
        "iloveyou2020",
        "adminadmin1",
        "correcthorsebatterystaple",
        "x7!x7!x7!x7!",
        "1q2w3e4r5t6y",
        "qwertyuiop1!",
        "L3tM31nL3tM31n",
        "ｐａｓｓｗｏｒｄ123",
        "!!!!!!!!!!12345",
        "future\u0378character",
    ]
    weak += ["", "letmein letmein", "x" * 1025, "\U0001f511\U0001f512\U0001f513\U0001f50f\U0001f510"]
    good = [
        "nqzt-4hwb-kd8r",
        "Übergrößenträger-7",
        "xxxkQ9!vTe2",
        "passwordxyzzy",
        "passw0rd-of-k1ng",
        "水曜日は図書館で勉強します",
    ]
    good += ["tall green otters waltz", "nqzt" * 255 + "4hwb"]
    for password in good:
        check_password(password)
    for password in weak:
        try:
            check_password(password)
        except WeakPassword:
            continue
        raise AssertionError(password)
    return [{"password": password, "ok": ok} for ok, group in ((True, good), (False, weak)) for password in group]


def public_keys() -> list[dict[str, Any]]:
    """Keys that must be refused, and some that are well."""
    y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
    small = {"0": 0, "1": 1, "-1": P - 1, "of order 8": y8, "of order 8, the other": P - y8}
    bad = {f"small order, y is {name}": y for name, y in small.items()}
    bad |= {"not canonical, y is p": P, "not canonical, y is p + 1": P + 1, "not canonical, y is 2^255 - 1": 2**255 - 1}
    result = []
    for name, y in bad.items():
        for sign in (0, 1):
            key = (y | sign << 255).to_bytes(32, "little")
            result.append({"name": f"{name}, sign {sign}", "key": key.hex(), "ok": False})
    for size in (0, 31, 33):
        result.append({"name": f"{size} bytes", "key": (b"\x07" * size).hex(), "ok": False})
    for name in ("alice", "bob"):
        result.append({"name": name, "key": person(name).public.hex(), "ok": True})
    return result


def signatures() -> list[dict[str, Any]]:
    """Signatures that must be refused, beside one that is well."""
    alice, text = person("alice"), b"text"
    true = alice.sign(text)
    unreduced = (int.from_bytes(true[32:], "little") + L).to_bytes(32, "little")
    raw = bytearray(hashlib.sha512(seed("alice")).digest()[:32])
    raw[0], raw[31] = raw[0] & 248, raw[31] & 127 | 64
    scalar = int.from_bytes(raw, "little")

    def with_r(encoded: bytes) -> bytes:
        challenge = int.from_bytes(hashlib.sha512(encoded + alice.public + text).digest(), "little")
        return encoded + (challenge * scalar % L).to_bytes(32, "little")

    identity, other_identity = (1).to_bytes(32, "little"), (P + 1).to_bytes(32, "little")
    cases = [
        ("true", alice.public, true, True),
        ("s not reduced", alice.public, true[:32] + unreduced, False),
        ("r of small order", alice.public, with_r(identity), False),
        ("r not canonical", alice.public, with_r(other_identity), False),
        ("a key of small order, under which it fits any text", identity, identity + bytes(32), False),
        ("too short", alice.public, true[:-1], False),
        ("too long", alice.public, true + b"\0", False),
        ("of another key", person("bob").public, true, False),
    ]
    return [
        {"name": name, "key": key.hex(), "text": text.hex(), "signature": signature.hex(), "ok": ok}
        for name, key, signature, ok in cases
    ]


SDP = (
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
    "c=IN IP4 0.0.0.0\r\na=mid:0\r\na=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\na=setup:actpass\r\n"
)


def samples() -> list[tuple[Blob, list[str]]]:
    """One blob of each kind and who signs it; offer, answer and confirm belong together."""
    alice, bob, later, token = (person(name).public for name in ("alice", "bob", "bob later", "token"))
    session, challenge = seed("session", 16), seed("challenge")
    here, there = seed("instance of alice", 16), seed("instance of bob", 16)
    secret = to_base64url(seed("login secret"))
    offer = Offer(session, NOW, alice, bob, "100000000000001", "7", here, SDP)
    offered = digest(offer.encode())
    answer = Answer(session, offered, NOW + 5, bob, alice, "7", "100000000000001", there, SDP.replace("AB", "CD"))
    confirms: list[tuple[Blob, list[str]]] = [
        (Confirm("caller", offered, digest(answer.encode())), ["alice"]),
        (Confirm("callee", offered, digest(answer.encode())), ["bob"]),
    ]
    return [
        (LoginBlob("example.com", challenge, "alice", alice), ["alice"]),
        (RegisterBlob("example.com", challenge, "alice", alice, login_digest(secret)), ["alice"]),
        (Invite(alice, token, "bob", NOW, NOW + 86_400_000), ["alice"]),
        (Redeem(token, alice, bob, "robert", NOW + 1000), ["token", "bob"]),
        (Pin(alice, bob, "bob", NOW), ["alice"]),
        (Remove(alice, bob, NOW + 2000), ["alice"]),
        (Rotate(bob, later, NOW + 3000), ["bob", "bob later"]),
        (offer, ["alice"]),
        (answer, ["bob"]),
        *confirms,
    ]


def blobs() -> list[dict[str, Any]]:
    """Every kind: fields, bytes, digest, signatures."""
    result = []
    for blob, signers in samples():
        raw = blob.encode()
        fields = asdict(blob)  # type: ignore[call-overload]
        values = {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}
        result.append(
            {
                "kind": blob.domain,
                "fields": values,
                "hex": raw.hex(),
                "sha256": digest(raw).hex(),
                "signers": signers,
                "signatures": [person(name).sign(raw).hex() for name in signers],
            }
        )
    return result


def _lp(parts: list[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def malformed() -> list[dict[str, str]]:
    """What is no blob of the kind that it says."""
    pin = Pin(person("alice").public, person("bob").public, "bob", NOW).encode()
    parts = split(pin)
    offer = split(samples()[7][0].encode())
    login = split(samples()[0][0].encode())
    cases = {
        "nothing": b"",
        "cut short": pin[:-1],
        "a byte behind": pin + b"\0",
        "a field more": _lp([*parts, b""]),
        "a field less": _lp(parts[:-1]),
        "another domain": _lp([b"bonevalue/1/unknown", *parts[1:]]),
        "another version": _lp([b"bonevalue/2/pin", *parts[1:]]),
        "a length beyond the end": pin[:-12] + b"\xff\xff\xff\xff" + pin[-8:],
        "a key of small order": _lp([parts[0], bytes(32), *parts[2:]]),
        "a key not canonical": _lp([parts[0], b"\xff" * 32, *parts[2:]]),
        "a key too short": _lp([parts[0], parts[1][:-1], *parts[2:]]),
        "an alias in capitals": _lp([*parts[:3], b"Bob", parts[4]]),
        "an alias of digits": _lp([*parts[:3], b"12", parts[4]]),
        "the alias us": _lp([*parts[:3], b"us", parts[4]]),
        "an alias not in UTF-8": _lp([*parts[:3], b"\xff", parts[4]]),
        "a time of 7 bytes": _lp([*parts[:4], bytes(7)]),
        "a time of 2^53": _lp([*parts[:4], (2**53).to_bytes(8, "big")]),
        "a realm with a port": _lp([login[0], b"example.com:80", *login[2:]]),
        "a realm not canonical": _lp([login[0], b"127.0.0.1", *login[2:]]),
        "a session of 15 bytes": _lp([offer[0], offer[1][:-1], *offer[2:]]),
        "a peer id of 16 digits": _lp([*offer[:5], b"1" * 16, *offer[6:]]),
        "a peer id that is none": _lp([*offer[:5], b"1a", *offer[6:]]),
        "a description too long": _lp([*offer[:8], b"x" * 16_385]),
    }
    return [{"name": name, "hex": raw.hex()} for name, raw in cases.items()]


def session_descriptions() -> list[dict[str, Any]]:
    """Session descriptions, and whether they are of the one form."""
    line = "a=fingerprint:sha-256 " + ":".join(["AB"] * 32)
    media = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel"
    longer = "".join(f"a=fingerprint:sha-{bits} {':'.join(['cd'] * (bits // 8))}\r\n" for bits in (384, 512))
    good = [SDP, SDP.replace("\r\n", "\n"), SDP + longer]
    bad = [
        "",
        "\r\n",
        SDP.removesuffix("\r\n"),
        SDP.replace("m=", "x="),
        SDP.replace(media, "m=audio 9 UDP/TLS/RTP/SAVPF 0"),
        SDP + media + "\r\n",
        SDP + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n",
        SDP + " M=audio 9 x 0\r\n",
        SDP.replace(line, ""),
        SDP + line + "\r\n",
        SDP + line.replace("AB", "CD") + "\r\n",
        SDP + line.replace(":sha", ": sha") + "\r\n",
        SDP + " " + line + "\r\n",
        SDP + line.upper() + "\r\n",
        SDP.replace("sha-256", "sha-1"),
        SDP.replace("sha-256", "md5"),
        SDP.replace("sha-256", "SHA-256"),
        SDP.replace("sha-256", "sha-512"),
        SDP.replace(":AB", "", 1),
        SDP.replace("AB", "GG", 1),
        SDP + "a=fingerprint:sha-1 " + ":".join(["AB"] * 20) + "\r\n",
        SDP.replace("s=-", "s=\x0bm=audio"),
        SDP.replace("s=-", "s=\u2028m=audio"),
        SDP.replace("s=-", "s=\u00e9"),
        SDP.replace("s=-", "s=\0"),
        SDP.replace("s=-", "s=-\rm=audio 9 x 0"),
        SDP.replace("s=-", "s=-\r\r"),
    ]
    return [{"sdp": sdp, "ok": ok} for ok, group in ((True, good), (False, bad)) for sdp in group]


def tokens() -> dict[str, Any]:
    """A token in all its forms, and texts that are none."""
    token = Token.make(person("alice").public, seed("token", 16), NOW // 1000 + 86_400)
    text = token.text
    good = {
        "inviterKey": token.inviter_key.hex(),
        "seed": token.seed.hex(),
        "expires": token.expires,
        "text": text,
        "tokenKey": token.keys.public.hex(),
    }
    bad = ["", "hello", text[:-1], text + "A", text.upper(), text[:50] + ("A" if text[50] != "A" else "B") + text[51:]]
    return {"good": [good], "bad": bad}


def _signed(blob: Blob, *signers: str) -> SignedBlob:
    raw = blob.encode()
    return SignedBlob(Binary(raw), [Binary(person(name).sign(raw)) for name in signers])


def _pin(contact: str, alias: str, issued: int = NOW, owner: str = "alice") -> SignedBlob:
    return _signed(Pin(person(owner).public, person(contact).public, alias, issued), owner)


def _rotate(old: str, new: str, *signers: str) -> SignedBlob:
    return _signed(Rotate(person(old).public, person(new).public, NOW), *(signers or (old, new)))


def _invite(token: str = "token", expires: int = NOW + 86_400_000) -> SignedBlob:
    return _signed(Invite(person("alice").public, person(token).public, "bob", NOW, expires), "alice")


def _redeem(claimer: str, token: str = "token", issued: int = NOW) -> SignedBlob:
    blob = Redeem(person(token).public, person("alice").public, person(claimer).public, "robert", issued)
    return _signed(blob, token, claimer)


#: What the server shows alice, once: each list alone, to a book that knows nothing else.
CHAINS: dict[str, list[tuple[str, str, list[SignedBlob]]]] = {
    "a pin": [("bob", "bob", [_pin("bob", "bob")])],
    "invite and redeem": [("bob", "bob", [_invite(), _redeem("bob")])],
    "two contacts": [("bob", "bob", [_pin("bob", "bob")]), ("carol", "carol", [_pin("carol", "carol")])],
    "a changed key": [("bob", "bob later", [_pin("bob", "bob"), _rotate("bob", "bob later")])],
    "keys changed twice, in another order": [
        (
            "bob",
            "bob much later",
            [_rotate("bob later", "bob much later"), _rotate("bob", "bob later"), _pin("bob", "bob")],
        )
    ],
    "certificates of others beside a true one": [
        ("bob", "bob", [_pin("bob", "bob"), _pin("carol", "bob", owner="mallory"), _rotate("carol", "mallory")])
    ],
    "nothing": [("bob", "bob", [])],
    "a pin by somebody else": [("bob", "bob", [_pin("bob", "bob", owner="mallory")])],
    "another key without proof": [("bob", "mallory", [_pin("bob", "bob")])],
    "a rotation without its new key": [
        ("bob", "carol", [_pin("bob", "bob"), _rotate("bob", "carol", "bob", "mallory")])
    ],
    "a redeem of another token": [("bob", "bob", [_invite(), _redeem("bob", "other token")])],
    "a redeem too late": [("bob", "bob", [_invite(expires=NOW), _redeem("bob")])],
    "two redeems of one token": [("bob", "bob", [_invite(), _redeem("bob"), _redeem("mallory")])],
    "two redeems of one token, apart": [
        ("bob", "bob", [_invite(), _redeem("bob")]),
        ("rob", "mallory", [_invite(), _redeem("mallory")]),
    ],
    "the pin of another alias": [("bob", "carol", [_pin("carol", "carol")])],
    "one key under two aliases": [("bob", "bob", [_pin("bob", "bob")]), ("rob", "bob", [_pin("bob", "rob")])],
    "one alias twice": [("bob", "bob", [_pin("bob", "bob")]), ("bob", "carol", [_pin("carol", "bob", NOW + 1)])],
    "two keys in one entry": [("bob", "bob", [_pin("bob", "bob"), _pin("carol", "bob")])],
    "our own key": [("bob", "alice", [_pin("alice", "bob")])],
    "a rotation to our own key": [("bob", "alice", [_pin("bob", "bob"), _rotate("bob", "alice")])],
    "a fork": [("bob", "bob later", [_pin("bob", "bob"), _rotate("bob", "bob later"), _rotate("bob", "mallory")])],
    "a circle": [("bob", "bob", [_pin("bob", "bob"), _rotate("bob", "bob later"), _rotate("bob later", "bob")])],
    "the name Us": [("Us", "bob", [_pin("bob", "bob")])],
    "junk beside a true one": [("bob", "bob", [_pin("bob", "bob"), SignedBlob(Binary(b"junk"), [Binary(bytes(64))])])],
}


def entries_of(shown: list[tuple[str, str, list[SignedBlob]]]) -> list[Contact]:
    """The entries of a chain as the server sends them."""
    return [Contact(name, Binary(person(key).public), list(certificates)) for name, key, certificates in shown]


def chains() -> list[dict[str, Any]]:
    """Lists of contacts with what must follow: the key, or the code of the problem."""
    result = []
    for name, shown in CHAINS.items():
        verdicts = ContactBook(person("alice")).replace(entries_of(shown), NOW)
        result.append(
            {
                "name": name,
                "own": "alice",
                "now": NOW,
                "contacts": [
                    {
                        "name": entry.name,
                        "publicKey": entry.public_key.hex(),
                        "certificates": [
                            {"blob": one.blob.hex(), "signatures": [signature.hex() for signature in one.signatures]}
                            for one in entry.certificates
                        ],
                    }
                    for entry in entries_of(shown)
                ],
                "verdicts": [
                    {
                        "key": verdict.contact.key.hex() if verdict.contact else None,
                        "problem": verdict.problem.code if verdict.problem else None,
                        "pin": verdict.pin[0].hex() if verdict.pin else None,
                    }
                    for verdict in verdicts
                ],
            }
        )
    return result


def build() -> dict[str, Any]:
    """The whole file."""
    people = {
        name: {"seed": (expand(seed(name, 16), "bonevalue/1/token") if "token" in name else seed(name)).hex()}
        for name in PEOPLE
    }
    for name, entry in people.items():
        entry |= {"publicKey": person(name).public.hex(), "fingerprint": person(name).fingerprint}
    return {
        "about": "written by scripts/make_identity_vectors.py; bytes in hex, times in ms since 1970, null for refused",
        "people": people,
        "realms": realms(),
        "names": names(),
        "passwords": passwords(),
        "newPasswords": new_passwords(),
        "publicKeys": public_keys(),
        "signatures": signatures(),
        "blobs": blobs(),
        "malformed": malformed(),
        "sessionDescriptions": session_descriptions(),
        "tokens": tokens(),
        "chains": chains(),
    }


def main() -> None:
    """Write the file."""
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(build(), indent=1, ensure_ascii=True) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
