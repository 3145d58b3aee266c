"""
The library without some of its checks: whoever loads it falls for the attacks that only those checks stop.

A test in which nothing bad happens proves something only if it could have happened. So each attack on a tab is made
once more on tabs that lack just the checks which stop it, and there it has to succeed (tests/browser/test_evil_control.py).
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

__all__ = ["CHECKS", "library_without"]

BROWSER = Path(__file__).parents[2] / "server" / "browser"

#: Each check: the source it is in, and what stands there instead of what. Each text must be there exactly once.
CHECKS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "signatures": (
        ("wire/keys.ts", "  const raw = fromHex(key);\n  if (signature", "  const raw = fromHex(key);\n  if (raw) return true;\n  if (signature"),
    ),
    "whoever signed is named": (
        ("wire/blobs.ts", "if (!signers.length || signers.join() === keys.join()) return value;", "return value;"),
    ),
    "the clock": (("wire/blobs.ts", "throw new BVError('clock_skew'", "void new BVError('clock_skew'"),),
    # -- introductions
    "only contacts call": (
        ("wire/introductions.ts", "const name = this.#contacts.nameOf(key);\n", "const name = this.#contacts.nameOf(key) ?? presenceName;\n"),
        ("wire/introductions.ts", "if (this.#contacts.nameOf(key) !== name) {", "if (this.#contacts.nameOf(key) !== name && !name) {"),
    ),
    "the caller has its alias": (
        ("wire/introductions.ts", "throw mismatch(`the server says that peer ${fromPeer}", "void mismatch(`the server says that peer ${fromPeer}"),
    ),
    "an offer is between these two": (
        ("wire/introductions.ts", "throw mismatch(`the offer of ${name} is from or", "void mismatch(`the offer of ${name} is from or"),
    ),
    "an answer is to this offer": (
        ("wire/introductions.ts", "throw mismatch(`the answer of ${name} is not", "void mismatch(`the answer of ${name} is not"),
    ),
    "an answer is from whom was asked": (
        ("dialler.ts", "): string => `${peer} ${session}`;", "): string => `${peer && session}`;"),
    ),
    "an offer is new": (("wire/introductions.ts", "throw mismatch('the offer was seen", "void mismatch('the offer was seen"),),
    "a peer stays who it was": (
        ("wire/introductions.ts", "throw mismatch(`peer ${fromPeer} was", "void mismatch(`peer ${fromPeer} was"),
    ),
    "the confirm": (("wire/introductions.ts", "accepts: async (signature) => isTrusted() &&", "accepts: async (signature) => !!signature ||"),),
    "a link is to whom is called": (
        ("calling.ts", "const error = new BVError('identity_mismatch'", "if (who) return;\n      const error = new BVError('identity_mismatch'"),
    ),
    # -- contacts
    "some proof": (
        ("wire/contacts.ts", "    if (!live.length) {\n", "    if (!live.length) return { name, key, fingerprint, username: null, since: 0 };\n    if (!live.length) {\n"),
    ),
    "the key is the proved one": (("wire/contacts.ts", "if (end !== key) {", "if (!end) {"),),
    "the alias is the proved one": (("wire/contacts.ts", "live.some((word) => word.alias !== name)", "!live"),),
    "one alias a key": (("wire/contacts.ts", "else if (others.length > 1) {", "else if (!others.length) {"),),
    "nothing newer": (
        ("wire/contacts.ts", "contradicts(aliases.get(name)!, since, key) || contradicts(keys.get(key)!, since, name)", "!aliases && !keys && !contradicts && !since"),
    ),
    "one claim a token": (("wire/evidence.ts", "if (first !== claimer) {", "if (!claimer) {"),),
    "one change a key": (("wire/evidence.ts", "else if (known !== later && ", "else if (!known && "),),
    "ended trust": (("wire/contacts.ts", "statements.filter((word) => !ledger.voidOf(word))", "statements"),),
    "the removal is ours": (("wire/evidence.ts", "throw mismatch('the removal is forged", "void mismatch('the removal is forged"),),
    "the removal is of this contact": (("wire/contacts.ts", "throw mismatch('the removal is of", "void mismatch('the removal is of"),),
    "the removal is newer": (("wire/contacts.ts", "const isOver = this.#isOver(removal);", "const isOver = false;"),),
    "removals are passed on": (("bv.ts", "if (!removals.length || ", "if (removals || "),),
    "nobody has its own id": (
        ("wire/session.ts", "signal.data.id === this.peerId ? undefined : ", ""),
        ("wire/session.ts", "    snapshot.peers.delete(peerId);\n", ""),
    ),
    # -- the server
    "the realm": (("wire/refusals.ts", "if (theirs !== realm) {", "if (!realm) {"),),
}  # fmt: skip


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
        command = [esbuild, sources / "main.ts", "--bundle", "--format=iife"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
