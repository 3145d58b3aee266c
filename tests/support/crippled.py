"""
The library without some of its checks: whoever loads it falls for the attacks that only those checks stop.

A test in which nothing bad happens proves something only if it could have happened. So each attack on a tab is made
once more on tabs that lack just the checks which stop it (tests/browser/test_evil_control.py), and it has to succeed.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import NamedTuple

__all__ = ["CHECKS", "library_without"]

BROWSER = Path(__file__).parents[2] / "server" / "browser"

_BLOBS, _CONTACTS, _EVIDENCE = "wire/blobs.ts", "wire/contacts.ts", "wire/evidence.ts"
_INTRODUCTIONS, _SESSION = "wire/introductions.ts", "wire/session.ts"


class Cut(NamedTuple):
    """A place in the sources."""

    file: str
    #: What stands there, exactly once in the file.
    text: str
    #: What is to stand there.
    instead: str


def _refusal(file: str, error: str) -> tuple[Cut]:
    """The error is made, and not thrown."""
    return (Cut(file, f"throw {error}", f"void {error}"),)


#: Each check, and how it is taken out.
CHECKS: dict[str, tuple[Cut, ...]] = {
    "signatures": (Cut("wire/keys.ts", "if (signature.length !== 64 ||", "if (raw) return true;\n  if ("),),
    "whoever signed is named": (
        Cut(_BLOBS, "if (!signers.length || signers.join() === keys.join()) return", "return"),
    ),
    "the clock": _refusal(_BLOBS, "new BVError('clock_skew'"),
    # -- offers and answers
    "only contacts call": (
        Cut(_INTRODUCTIONS, "this.#contacts.nameOf(key);\n", "this.#contacts.nameOf(key) ?? presenceName;\n"),
        Cut(_INTRODUCTIONS, "if (this.#contacts.nameOf(key) !== name) {", "if (!name) {"),
    ),
    "the caller has its alias": _refusal(_INTRODUCTIONS, "mismatch(`the server says that peer ${fromPeer}"),
    "an offer is between these two": _refusal(_INTRODUCTIONS, "mismatch(`the offer of ${name} is from or"),
    "an answer is to this offer": _refusal(_INTRODUCTIONS, "mismatch(`the answer of ${name} is not"),
    "an answer is from whom was asked": (
        Cut("dialler.ts", "): string => `${peer} ${session}`;", "): string => `${peer && session}`;"),
    ),
    "an offer is new": _refusal(_INTRODUCTIONS, "mismatch('the offer was seen"),
    "a peer stays who it was": _refusal(_INTRODUCTIONS, "mismatch(`peer ${fromPeer} was"),
    "the confirm": (Cut(_INTRODUCTIONS, "(signature) => isTrusted() &&", "(signature) => !!signature ||"),),
    "a link is to whom is called": (Cut("calling.ts", "if (link.remote.name !== peer.name) {", "if (!link) {"),),
    # -- contacts
    "some proof": (
        Cut(
            _CONTACTS,
            "if (!live.length) {",
            "if (!live.length) return { name, key, fingerprint, username: null, since: 0 };\nif (!live) {",
        ),
    ),
    "the key is the proved one": (Cut(_CONTACTS, "if (end !== key) {", "if (!end) {"),),
    "the alias is the proved one": (Cut(_CONTACTS, "live.some((word) => word.alias !== name)", "!live"),),
    "one alias a key": (Cut(_CONTACTS, "else if (others.length > 1) {", "else if (!others.length) {"),),
    "nothing newer": (
        Cut(
            _CONTACTS,
            "contradicts(aliases.get(name)!, since, key) || contradicts(keys.get(key)!, since, name)",
            "!(aliases && keys && contradicts && `${since}`)",
        ),
    ),
    "one claim a token": (Cut(_EVIDENCE, "if (first !== claimer) {", "if (!claimer) {"),),
    "one change a key": (Cut(_EVIDENCE, "else if (known !== later && ", "else if (!known && "),),
    "ended trust": (Cut(_CONTACTS, "statements.filter((word) => !ledger.voidOf(word))", "statements"),),
    "the removal is ours": _refusal(_EVIDENCE, "mismatch('the removal is forged"),
    "the removal is of this contact": _refusal(_CONTACTS, "mismatch('the removal is of"),
    "the removal is newer": (Cut(_CONTACTS, "const isOver = this.#isOver(removal);", "const isOver = false;"),),
    "removals are passed on": (Cut("bv.ts", "if (!removals.length || ", "if (removals || "),),
    # -- the server
    "nobody has its own id": (
        Cut(_SESSION, "signal.data.id === this.peerId ? undefined : ", ""),
        Cut(_SESSION, "snapshot.peers.delete(peerId);", ""),
    ),
    "the realm": (Cut("wire/refusals.ts", "if (theirs !== realm) {", "if (!realm) {"),),
}


@cache
def library_without(*checks: str) -> str:
    """The library as one script, without these checks."""
    with TemporaryDirectory() as folder:
        sources = Path(folder) / "src"
        copytree(BROWSER / "src", sources)
        for check in checks:
            for name, text, instead in CHECKS[check]:
                file = sources / name
                content = file.read_text(encoding="utf-8")
                found = content.count(text)
                assert found == 1, f"{name} has {text!r} {found} times: look at {check!r} in {__file__}"
                file.write_text(content.replace(text, instead), encoding="utf-8")
        esbuild = BROWSER / "node_modules" / ".bin" / "esbuild"
        command: list[str | Path] = [esbuild, sources / "main.ts", "--bundle", "--format=iife"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout
