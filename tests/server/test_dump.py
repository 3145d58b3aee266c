"""A thief of the database: nothing in it logs in, redeems a token, or makes a contact."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from bonevalue.errors import LoginRefused
from bonevalue.settings_fields import Rate
from bonevalue.wire.keys import SigningKey, from_base64url, to_base64url
from bonevalue.wire.signals import Binary, Login
from bonevalue.wire.tokens import Token
from bonevalue_server.auth import Auth, Tickets
from bonevalue_server.enrolment import new_account
from bonevalue_server.limits import Limits
from bonevalue_server.store import Store
from tests.support import identity
from tests.support.accounts import CHEAPEST, Person, befriend, claim, enrol, invite

PASSWORD = "plum-tart-and-a-violin"


async def lived_in(path: Path) -> tuple[Store, list[Person], list[Token]]:
    """A database in which everything has happened that can."""
    store = await Store.open(f"sqlite:///{path}", realm="example.org", clock=lambda: identity.NOW)
    people = [await enrol(store, name) for name in ("alice", "bob", "carol")]
    alice, bob, carol = people
    new = new_account("dave", PASSWORD, realm="example.org", cost=CHEAPEST)
    await store.add_account(new.username, new.public_key, new.login_hash)
    await befriend(store, alice, bob)
    claimed, unclaimed = await invite(store, carol, "al", "claimed"), await invite(store, bob, "cee", "unclaimed")
    await claim(store, alice, claimed, carol, "carol")
    with contextlib.suppress(Exception):
        await claim(store, bob, claimed, carol, "carol")
    await store.remove_edge(alice.account.id, "carol", identity.remove(alice.keys, carol.keys))
    rotated = identity.account("carol's second")
    await store.rotate(
        carol.account.id,
        old_key=carol.keys.public,
        new_key=rotated.public,
        login_hash=new.login_hash,
        rotate=identity.rotate(carol.keys, rotated),
        pins={},
    )
    return store, people, [claimed, unclaimed]


def cells(path: Path) -> Iterator[bytes]:
    """Every value of every table."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in database.execute(f"SELECT * FROM {table}"):
                for value in row:
                    yield value if isinstance(value, bytes) else str(value).encode()


def windows(path: Path, size: int) -> set[bytes]:
    """Everything of that size that stands anywhere in any value."""
    return {cell[start : start + size] for cell in cells(path) for start in range(len(cell) - size + 1)}


async def test_no_secret_stands_in_the_files_in_any_spelling(tmp_path: Path) -> None:
    store, people, tokens = await lived_in(tmp_path / "server.db")
    secrets = [PASSWORD.encode()]
    for person in people:
        secret = person.keys.login
        secrets += [secret.encode(), from_base64url(secret), identity.seed(person.name)]
    for token in tokens:
        secrets += [token.text.encode(), token.text.removeprefix("bv1_").encode()[-48:]]
    secrets += [identity.seed(text, 16) for text in ("claimed", "unclaimed")]
    spellings = {
        spelling
        for secret in secrets
        for spelling in (secret, secret.hex().encode(), secret.hex().upper().encode(), to_base64url(secret).encode())
    }
    files = b"".join((tmp_path / name).read_bytes() for name in os.listdir(tmp_path))
    assert b"alice" in files and people[0].keys.public in files
    assert [spelling for spelling in spellings if spelling in files] == []
    await store.close()


async def test_nothing_in_it_is_a_key_of_anything(tmp_path: Path) -> None:
    store, people, tokens = await lived_in(tmp_path / "server.db")
    known = {person.keys.public for person in people} | {token.keys.public for token in tokens}
    known |= {account.public_key for account in await store.accounts()}
    await store.close()
    path = tmp_path / "server.db"
    stolen = {SigningKey.from_seed(seed).public for seed in windows(path, 32)}
    stolen |= {Token.make(people[0].keys.public, seed, 0).keys.public for seed in windows(path, 16)}
    assert len(stolen) > 1000
    assert stolen & known == set()


async def test_nothing_in_it_logs_in(tmp_path: Path) -> None:
    store, people, _ = await lived_in(tmp_path / "server.db")
    texts = {match.decode() for cell in cells(tmp_path / "server.db") for match in re.findall(rb"[\w-]{43}", cell)}
    texts |= {to_base64url(cell) for cell in cells(tmp_path / "server.db") if len(cell) == 32}
    alice = people[0]
    ticket = Tickets(store.secret).issue(alice.account.id, "123456789")
    plenty = Rate(10**6, 1)
    limits = Limits(failed_logins=10**6, failed_logins_per_account=plenty, failed_logins_per_ip=plenty)
    auth = Auth(store, realm="example.org", limits=limits, cost=CHEAPEST)
    for secret in [*texts, ticket, to_base64url(store.secret), alice.account.login_hash[-43:]]:
        with pytest.raises(LoginRefused):
            await auth.password_login(Login(username="alice", login=secret), address="127.0.0.1")
    # Whatever was once signed is no login either: it is for another challenge, and of another kind.
    for edge in await store.edges(alice.account.id):
        for certificate in edge.certificates:
            login = Login(username="alice", blob=certificate.blob, signature=Binary(certificate.signatures[0]))
            with pytest.raises(LoginRefused):
                await auth.key_login(login, challenge=identity.seed("challenge"))
    await auth.close()
    await store.close()
