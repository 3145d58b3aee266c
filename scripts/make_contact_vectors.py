"""Write tests/vectors/contacts.json: what an account makes of what a server shows it, step by step."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bonevalue.errors import BoneValueError
from bonevalue.wire.blobs import Blob, Invite, Pin, Redeem, Remove, Rotate
from bonevalue.wire.contacts import ContactBook, Verdict
from bonevalue.wire.keys import fingerprint
from bonevalue.wire.signals import Binary, Contact, SignedBlob
from scripts.make_identity_vectors import NOW, person

TARGET = Path(__file__).parent.parent / "tests" / "vectors" / "contacts.json"
MINUTE = 60_000
DAY = 24 * 60 * MINUTE

Step = dict[str, Any]

# -- certificates: each is made once, and named in steps -------------------------------------------------------------

CERTIFICATES: dict[str, SignedBlob] = {"junk": SignedBlob(Binary(b"junk"), [Binary(bytes(64))])}


def _signed(name: str, blob: Blob, *signers: str) -> str:
    raw = blob.encode()
    CERTIFICATES[name] = SignedBlob(Binary(raw), [Binary(person(signer).sign(raw)) for signer in signers])
    return name


def _key(name: str) -> bytes:
    return person(name).public


def pin(contact: str, alias: str = "bob", after: int = 0, *, owner: str = "alice", signers: str = "") -> str:
    """The owner trusts a contact; ``after`` is ms after NOW, here and below."""
    text = f"pin of {contact} as {alias} by {owner}, {after} ms" + (f", signed by {signers}" if signers else "")
    return _signed(text, Pin(_key(owner), _key(contact), alias, NOW + after), *(signers or owner).split("+"))


def rotate(old: str, new: str, signers: str = "", after: int = 0) -> str:
    """Somebody changes their key."""
    text = f"rotate of {old} to {new}, {after} ms" + (f", signed by {signers}" if signers else "")
    return _signed(text, Rotate(_key(old), _key(new), NOW + after), *(signers or f"{old}+{new}").split("+"))


def remove(remover: str, removed: str, after: int = 0, signers: str = "") -> str:
    """Somebody ends trust."""
    text = f"remove of {removed} by {remover}, {after} ms" + (f", signed by {signers}" if signers else "")
    return _signed(text, Remove(_key(remover), _key(removed), NOW + after), *(signers or remover).split("+"))


def invite(
    token: str = "token", alias: str = "bob", after: int = 0, *, inviter: str = "alice", signers: str = ""
) -> str:
    """Somebody makes a token, which is over after a day."""
    text = f"invite of {token} as {alias} by {inviter}, {after} ms" + (f", signed by {signers}" if signers else "")
    blob = Invite(_key(inviter), _key(token), alias, NOW + after, NOW + after + DAY)
    return _signed(text, blob, *(signers or inviter).split("+"))


def redeem(claimer: str, token: str = "token", after: int = 0, *, inviter: str = "alice", signers: str = "") -> str:
    """Somebody claims a token."""
    text = f"redeem of {token} of {inviter} by {claimer}, {after} ms" + (f", signed by {signers}" if signers else "")
    blob = Redeem(_key(token), _key(inviter), _key(claimer), "robert", NOW + after)
    return _signed(text, blob, *(signers or f"{token}+{claimer}").split("+"))


def claimed(claimer: str = "bob", token: str = "token", after: int = 0) -> list[str]:
    """An invite of alice's and its redeem a minute later."""
    return [invite(token, after=after), redeem(claimer, token, after + MINUTE)]


def _two_faced(blob: str, signature_of: str, name: str) -> str:
    """The blob of one certificate with the first signature of another."""
    one, other = CERTIFICATES[blob], CERTIFICATES[signature_of]
    CERTIFICATES[name] = SignedBlob(one.blob, [other.signatures[0], *one.signatures[1:]])
    return name


# -- steps -----------------------------------------------------------------------------------------------------------


def entry(name: str, key: str, *certificates: str) -> dict[str, Any]:
    """What the server says of a contact."""
    return {"name": name, "publicKey": _key(key).hex(), "certificates": list(certificates)}


def show(name: str, key: str, *certificates: str, at: int = 0) -> Step:
    """The server shows one contact."""
    return {"do": "receive", "entries": [entry(name, key, *certificates)], "now": NOW + at}


def show_all(*entries: dict[str, Any], at: int = 0) -> Step:
    """The server shows all contacts."""
    return {"do": "replace", "entries": list(entries), "now": NOW + at}


def discard(name: str) -> Step:
    """The server says that a contact is gone."""
    return {"do": "discard", "name": name}


def end(name: str | None, certificate: str, at: int = 0) -> Step:
    """A removal comes in."""
    return {"do": "remove", "name": name, "certificate": certificate, "now": NOW + at}


def make_remove(name: str, at: int = 0) -> Step:
    """Sign a removal."""
    return {"do": "makeRemove", "name": name, "now": NOW + at}


def change_key(to: str, at: int = 0) -> Step:
    """Change one's own key."""
    return {"do": "rotate", "to": to, "now": NOW + at}


# -- scenarios: what alice is shown, and asked -----------------------------------------------------------------------

BOB, BOB2, BOB3, MALLORY, CAROL = "bob", "bob later", "bob much later", "mallory", "carol"
PIN, PIN2 = pin(BOB), pin(BOB2)
NEXT, NEXT2, THEFT = rotate(BOB, BOB2), rotate(BOB2, BOB3), rotate(BOB, MALLORY)
INVITE, REDEEM = claimed()
CAROLS = pin(CAROL, "carol")
STRANGERS = [
    pin(MALLORY, owner="mallory"),
    rotate(MALLORY, CAROL),
    redeem(MALLORY, after=MINUTE),
    remove(MALLORY, BOB),
    invite(inviter="mallory"),
]
FORGED_REDEEM = _two_faced(
    redeem(MALLORY), redeem(BOB), "redeem of token by mallory with the token's signature for bob"
)

#: Certificates beside which the server names bob with various keys, each to a book that knows nothing else.
FORGED: dict[str, list[str]] = {
    "no redeem": [INVITE],
    "no invite": [REDEEM],
    "redeem of another token": [INVITE, redeem(BOB, "other token")],
    "redeemer replaced": [INVITE, FORGED_REDEEM],
    "redeemed without the token": [INVITE, redeem(BOB, signers="bob+bob")],
    "redeemed without the claimer": [INVITE, redeem(BOB, signers="token+mallory")],
    "invite by the server": [invite(signers="mallory"), REDEEM],
    "redeemed for another inviter": [INVITE, redeem(BOB, inviter="carol")],
    "redeemed when it was over": [INVITE, redeem(BOB, after=DAY)],
    "pin signed by another": [pin(BOB, signers="mallory")],
    "two signatures on a pin": [pin(BOB, signers="alice+alice")],
    "a forged rotation beside the truth": [PIN, rotate(BOB, MALLORY, "mallory+mallory")],
    "a rotation signed by the old key only": [PIN, rotate(BOB, CAROL, "bob+bob")],
    "a true and a forged copy of a rotation": [PIN, NEXT, rotate(BOB, BOB2, "bob+bob")],
    "a rotation that is not led to": [PIN, NEXT2],
    "two aliases": [PIN, pin(BOB, "carol")],
    "our own token claimed by us": [INVITE, redeem("alice")],
    "a change to itself": [PIN, rotate(BOB, BOB)],
    "strangers": STRANGERS,
    "strangers beside the truth": [*STRANGERS, PIN],
}

ANEW = claimed(token="new token", after=2 * MINUTE)

SCENARIOS: dict[str, list[Step]] = {
    "an invite and its redeem, then the pin that was made of it": [
        show(BOB, BOB, INVITE, REDEEM, at=2 * MINUTE),
        make_remove(BOB, 5),
        show_all(entry(BOB, BOB, PIN)),
    ],
    "a list replaces, an entry replaces its name, a word alone takes away": [
        show_all(entry(BOB, BOB, PIN), entry(CAROL, CAROL, CAROLS)),
        show_all(entry(CAROL, CAROL, CAROLS)),
        show(BOB, BOB, PIN),
        discard(CAROL),
        discard(CAROL),
        show_all(),
    ],
    "one's own account is Us, and nothing is signed for it or for the unknown": [
        make_remove("Us"),
        make_remove(BOB),
        show("Us", "alice", pin("alice")),
    ],
    "names that are none": [show(name, BOB, PIN) for name in ("Us", "us", "BOB", "", "12", "\x1b[2J", "b\u00f6b")],
    "an older alias does not come back": [
        show_all(entry("guest", BOB, pin(BOB, "guest", 1))),
        show_all(entry("admin", BOB, pin(BOB, "admin"))),
        show_all(entry("guest", BOB, pin(BOB, "guest", 1))),
    ],
    "an older key of an alias does not come back": [
        show_all(entry(BOB, BOB, pin(BOB, after=1))),
        show(BOB, CAROL, pin(CAROL)),
    ],
    "an alias given anew is followed": [
        show(BOB, BOB, PIN),
        discard(BOB),
        show(BOB, BOB2, *claimed(BOB2, after=1)),
        show(BOB, BOB, PIN),
    ],
    "two words of one moment are both void": [
        show(BOB, BOB, PIN),
        show(BOB, MALLORY, pin(MALLORY)),
        show(BOB, BOB, PIN),
    ],
    "one key under two aliases, one after the other": [show(BOB, BOB, PIN), show("rob", BOB, pin(BOB, "rob", 1))],
    "two contacts that change to one key": [
        show(BOB, BOB, PIN),
        show(CAROL, BOB, CAROLS, rotate(CAROL, BOB)),
    ],
    "two claims of one token, one after the other, and trust anew": [
        show(BOB, BOB, INVITE, REDEEM, at=MINUTE),
        show(BOB, MALLORY, INVITE, redeem(MALLORY), at=MINUTE),
        show(BOB, BOB, INVITE, REDEEM, at=MINUTE),
        show(BOB, BOB, PIN, at=MINUTE),
        make_remove(BOB, 2 * MINUTE),
        show(BOB, BOB, *ANEW, at=3 * MINUTE),
    ],
    "two claims of one token, in lists": [
        show_all(entry(BOB, BOB, INVITE, REDEEM), at=MINUTE),
        show_all(entry(BOB, MALLORY, INVITE, redeem(MALLORY)), at=MINUTE),
        show_all(entry(BOB, BOB, INVITE, REDEEM), at=MINUTE),
    ],
    "the same account may claim twice": [show(BOB, BOB, INVITE, REDEEM, redeem(BOB, after=5))],
    "a claim that was learned beside a forged one": [
        show(BOB, BOB, INVITE, REDEEM, redeem(BOB, signers="bob+bob")),
        show(BOB, MALLORY, INVITE, redeem(MALLORY)),
    ],
    "a change of key is followed, in any order, and needs no repetition": [
        show(BOB, BOB, PIN),
        show(BOB, BOB3, PIN, NEXT2, NEXT, at=MINUTE),
        show(BOB, BOB, PIN),
        show(BOB, BOB3, PIN),
        show(BOB, BOB2, PIN),
    ],
    "a thief of the old password forks the key": [
        show(BOB, BOB2, PIN, NEXT),
        show(BOB, MALLORY, PIN, THEFT, at=MINUTE),
        show(BOB, BOB2, PIN2, at=MINUTE),
        show(BOB, BOB, PIN, at=MINUTE),
        show(BOB, MALLORY, pin(MALLORY), at=MINUTE),
        show(BOB, BOB3, PIN2, NEXT2, at=MINUTE),
        show(BOB, BOB, *claimed(token="token before", after=2 * MINUTE), at=3 * MINUTE),
        show_all(entry(BOB, BOB3, *claimed(BOB3, "new token", 3 * MINUTE)), at=3 * MINUTE),
    ],
    "a fork voids what a clock ahead of ours signed": [
        show(BOB, BOB2, pin(BOB2, after=MINUTE), PIN, NEXT, THEFT),
        show(BOB, BOB2, pin(BOB2, after=MINUTE)),
    ],
    "of changes that come together those nearer to our word are learned first": [
        show(BOB, BOB3, rotate(BOB2, BOB), NEXT, NEXT2, PIN),
        end(None, remove("alice", BOB2)),
    ],
    "a fork is no harm to others": [show_all(entry(BOB, BOB2, PIN, NEXT, THEFT), entry(CAROL, CAROL, CAROLS))],
    "going back to an old password is a circle": [
        show(BOB, BOB2, PIN, NEXT),
        show(BOB, BOB, PIN2, rotate(BOB2, BOB)),
    ],
    "changing one's own key": [
        show_all(
            entry(BOB, BOB2, INVITE, REDEEM, NEXT), entry(CAROL, CAROL, pin(CAROL, "carol", -5)), entry("m", MALLORY)
        ),
        change_key("alice later", MINUTE),
    ],
    "a removal by us": [
        show(BOB, BOB, PIN, INVITE, REDEEM),
        end(BOB, remove("alice", BOB, MINUTE), MINUTE),
        show(BOB, BOB, PIN, at=20 * MINUTE),
        show(BOB, BOB, INVITE, redeem(BOB, after=10 * MINUTE), at=20 * MINUTE),
        show(BOB, BOB, pin(BOB, after=MINUTE), at=20 * MINUTE),
        show(BOB, BOB, PIN, *ANEW, at=20 * MINUTE),
        end(BOB, remove("alice", BOB, MINUTE), 21 * MINUTE),
    ],
    "a removal by them, dated into the future": [
        show(BOB, BOB, PIN),
        end(BOB, remove(BOB, "alice", 10 * DAY), 1),
        show(BOB, BOB, PIN),
        show(BOB, BOB, *claimed(after=2), at=MINUTE),
    ],
    "a removal reaches the keys before and after": [
        show(BOB, BOB2, PIN, NEXT),
        end(BOB, remove("alice", BOB2, 1), 1),
        show(BOB, BOB2, PIN, NEXT, at=2),
        show(BOB, BOB3, PIN, NEXT, NEXT2, at=2),
    ],
    "a removal reaches a key that is heard of later": [
        show(BOB, BOB, PIN),
        end(BOB, remove("alice", BOB, 1), 1),
        show(BOB, BOB2, PIN, NEXT, at=2),
        show(BOB, BOB2, PIN2, at=2),
    ],
    "a removal by the old key ends trust with the new one": [
        show(BOB, BOB2, PIN, NEXT),
        end(BOB, remove(BOB, "alice", 1), 1),
    ],
    "a removal from a process of one's own, before the contact is heard of": [
        end(None, remove("alice", BOB, 1), 1),
        show(BOB, BOB, PIN),
        show(BOB, BOB, *claimed(after=2), at=2),
        end(None, remove("alice", BOB, 1), 3),
    ],
    "what is no removal of the contact": [
        show(BOB, BOB, PIN),
        *(
            end(BOB, certificate)
            for certificate in (
                remove(BOB, CAROL),
                remove(MALLORY, BOB),
                remove("alice", CAROL),
                remove(CAROL, "alice"),
                remove(BOB2, "alice"),
                remove("alice", "alice"),
                remove("alice", BOB, -1),
                remove("alice", BOB, signers="mallory"),
                remove("alice", BOB, signers="alice+alice"),
                remove(BOB, "alice", signers="alice"),
                PIN,
                "junk",
            )
        ),
    ],
    "an old removal does not part those who trust anew": [
        show(BOB, BOB, PIN),
        end(BOB, remove(BOB, "alice", 1), 1),
        show(BOB, BOB, *claimed(after=2), at=2),
        *(end(name, remove(BOB, "alice", 1), 3) for name in (BOB, CAROL, None)),
        discard(BOB),
        end(BOB, remove(BOB, "alice", 1), 3),
    ],
    "the newer of two removals counts": [
        show(BOB, BOB, PIN),
        end(BOB, remove("alice", BOB, 5), 5),
        end(None, remove("alice", BOB, 9), 9),
        end(None, remove("alice", BOB, 7), 9),
        show(BOB, BOB, pin(BOB, after=9), at=9),
    ],
    "a contact that has a problem can be removed, but nobody else in its place": [
        show(BOB, BOB, INVITE, REDEEM),
        show(BOB, MALLORY, INVITE, redeem(MALLORY)),
        make_remove(BOB, 1),
        show(CAROL, CAROL, CAROLS),
        show(BOB, CAROL, CAROLS),
        make_remove(BOB),
        show(BOB, CAROL),
        make_remove(BOB),
        show(BOB, CAROL, PIN2),
        make_remove(BOB, 1),
        end(BOB, remove("alice", MALLORY, 1), 1),
    ],
    "trust that is dated ahead can be ended at once": [
        show(BOB, BOB, pin(BOB, after=4 * MINUTE)),
        make_remove(BOB),
        end(BOB, remove("alice", BOB, 4 * MINUTE)),
        show(BOB, BOB, pin(BOB, after=4 * MINUTE)),
    ],
}
for _what, _certificates in FORGED.items():
    SCENARIOS[f"forged: {_what}"] = [
        *(show(BOB, key, *_certificates) for key in (BOB, BOB2, MALLORY, CAROL, "alice")),
        show(BOB, BOB, PIN),
    ]

#: The books of these refuse a key.
REFUSED = {
    "a refused key": [show(BOB, BOB, PIN), show(BOB, BOB2, PIN, NEXT), show(CAROL, CAROL, CAROLS)],
    "a refused key that is changed to": [show(BOB, BOB2, PIN2), show(BOB, BOB, PIN2, rotate(BOB2, BOB))],
}

# -- walks: what a server might do, at random ------------------------------------------------------------------------

WALKS, STEPS = 40, 6


def walks() -> Iterator[list[Step]]:
    """A server without a plan: true certificates, others', and its own, in any mix and order."""
    chance = random.Random(7)
    true = [PIN, PIN2, CAROLS, INVITE, REDEEM, NEXT, NEXT2, THEFT, redeem(MALLORY), rotate(BOB2, BOB)]
    other = [pin(CAROL, after=1), pin(BOB, "carol", 2), pin(BOB, after=3), *ANEW, FORGED_REDEEM, *STRANGERS]
    removals = [remove("alice", BOB, 1), remove(BOB, "alice", 2), remove("alice", BOB2), remove(CAROL, "alice", 5)]
    for _ in range(WALKS):
        steps: list[Step] = []
        for at in range(STEPS):

            def any_entry() -> dict[str, Any]:
                chain = chance.sample(true, chance.randint(0, 4)) + chance.sample(other, chance.choice((0, 0, 1)))
                return entry(chance.choice((BOB, BOB, CAROL)), chance.choice((BOB, BOB2, BOB3, CAROL, MALLORY)), *chain)

            entries = [any_entry() for _ in range(chance.randint(1, 3))]
            name = chance.choice((BOB, CAROL))
            steps.append(
                chance.choice(
                    [
                        {"do": "receive", "entries": entries[:1], "now": NOW + at},
                        {"do": "replace", "entries": entries, "now": NOW + at},
                        {"do": "receive", "entries": [entry(BOB, BOB2, PIN, NEXT)], "now": NOW + at},
                        end(chance.choice((name, None)), chance.choice(removals), at),
                        make_remove(name, at),
                    ]
                )
            )
        yield steps


# -- running ---------------------------------------------------------------------------------------------------------


def _contact(shown: dict[str, Any]) -> Contact:
    certificates = [CERTIFICATES[name] for name in shown["certificates"]]
    return Contact(shown["name"], Binary.fromhex(shown["publicKey"]), certificates)


def _verdict(verdict: Verdict) -> dict[str, Any]:
    contact = verdict.contact
    return {
        "name": verdict.name,
        "key": contact.key.hex() if contact else None,
        "username": contact.username if contact else None,
        "since": contact.since if contact else None,
        "problem": verdict.problem.code if verdict.problem else None,
        "pin": verdict.pin is not None,
    }


def _do(book: ContactBook, step: Step) -> Any:
    match step["do"]:
        case "receive":
            return [_verdict(book.receive(_contact(step["entries"][0]), step["now"]))]
        case "replace":
            return [_verdict(one) for one in book.replace([_contact(shown) for shown in step["entries"]], step["now"])]
        case "discard":
            return book.discard(step["name"])
        case "remove":
            return book.remove(step["name"], CERTIFICATES[step["certificate"]], step["now"]).hex()
        case "makeRemove":
            return book.make_remove(step["name"], step["now"])[0].hex()
        case "rotate":
            blob, _, pins = book.rotate(person(step["to"]), step["now"])
            return [blob.hex(), *(one.blob.hex() for one in pins)]
    raise AssertionError(step)


def _run(name: str, steps: list[Step], refuse: str = "") -> dict[str, Any]:
    """A scenario with what comes of each step: the result or the code of the error, and what the book says then."""
    refused = [fingerprint(_key(refuse))] if refuse else []
    book = ContactBook(person("alice"), refuse=frozenset(refused))
    done = []
    for step in steps:
        result, error = None, None
        try:
            result = _do(book, step)
        except BoneValueError as problem:
            error = problem.code
        then = {
            "contacts": {known: book.key_of(known).hex() for known in book.names()},  # type: ignore[union-attr]
            "verdicts": [[one.name, one.problem.code if one.problem else None] for one in book.verdicts()],
            "removals": [
                _number(name) for name in CERTIFICATES for one in book.removals() if CERTIFICATES[name] == one
            ],
        }
        done.append(_numbered(step) | {"result": result, "error": error, "then": then})
    return {"name": name, "refuse": refused, "steps": done}


def _number(name: str) -> int:
    return list(CERTIFICATES).index(name)


def _numbered(step: Step) -> Step:
    """The same with the numbers of certificates in the place of their names."""
    if "certificate" in step:
        return step | {"certificate": _number(step["certificate"])}
    if "entries" in step:
        entries = [shown | {"certificates": list(map(_number, shown["certificates"]))} for shown in step["entries"]]
        return step | {"entries": entries}
    return step


def build() -> dict[str, Any]:
    """The whole file."""
    scenarios = [_run(name, steps) for name, steps in SCENARIOS.items()]
    scenarios += [_run(name, steps, BOB) for name, steps in REFUSED.items()]
    scenarios += [_run(f"walk {number}", steps) for number, steps in enumerate(walks())]
    certificates = [
        {"name": name, "blob": one.blob.hex(), "signatures": [signature.hex() for signature in one.signatures]}
        for name, one in CERTIFICATES.items()
    ]
    return {
        "about": "written by scripts/make_contact_vectors.py; the book is alice's, whose seed is in identity.json",
        "certificates": certificates,
        "scenarios": scenarios,
    }


def main() -> None:
    """Write the file."""
    text = json.dumps(build(), ensure_ascii=True, separators=(",", ":"))
    # A line a certificate and a step, so that a change shows.
    for start in ('{"name":', '{"do":', '"scenarios"'):
        text = text.replace(start, "\n" + start)
    TARGET.write_text(text + "\n", "ascii")


if __name__ == "__main__":
    main()
