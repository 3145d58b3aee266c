"""A server process that is killed while it writes: what it was told is done is there, and nothing is half there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from bonevalue_server.store import Store

ROOT = Path(__file__).parents[2]
ROUNDS = 10

_CHILD = "import sys; from tests.support.crash_writer import run; run(sys.argv[1])"


class Writers:
    """Processes that write to a store and are killed."""

    def __init__(self, url: str) -> None:
        arguments = [sys.executable, "-c", _CHILD, url]
        pipe = subprocess.PIPE
        self._parent = subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)

    def write_until_killed(self, prefix: str, lines: int) -> list[list[str]]:
        """Let a process write and kill it when it has acknowledged so much; gives all that it acknowledged."""
        commands, answers = self._parent.stdin, self._parent.stdout
        assert commands is not None and answers is not None
        commands.write(f"{prefix}\n")
        commands.flush()
        pid = 0
        said: list[list[str]] = []
        for line in answers:
            kind, *detail = line.split()
            if kind == "pid":
                pid = int(detail[0])
            elif kind == "over":
                assert int(detail[0]) == -signal.SIGKILL, "the writer ended by itself"
                return said
            else:
                said.append([kind, *detail])
            if pid and len(said) >= lines:
                os.kill(pid, signal.SIGKILL)
                lines = sys.maxsize
        raise AssertionError("the writers' parent died")

    def close(self) -> None:
        """Let the parent end."""
        self._parent.communicate()


def check_invariants(database: sqlite3.Connection) -> None:
    """What holds whatever was written last."""
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    half = """SELECT * FROM edges one LEFT JOIN edges other
              ON other.owner_id = one.contact_id AND other.contact_id = one.owner_id WHERE other.alias IS NULL"""
    assert database.execute(half).fetchall() == []
    unproved = """SELECT * FROM edges LEFT JOIN certificates USING (owner_id, contact_id) WHERE blob IS NULL"""
    assert database.execute(unproved).fetchall() == []
    # Everybody makes one token here, so more than one contact would be a token that was used twice.
    twice = "SELECT owner_id FROM edges GROUP BY owner_id HAVING count(*) > 1"
    assert database.execute(twice).fetchall() == []
    unclaimed = """SELECT * FROM edges JOIN invites ON inviter_id = owner_id AND inviter_key IS NOT NULL
                   WHERE claimed IS NULL OR claimer_id <> contact_id"""
    assert database.execute(unclaimed).fetchall() == []
    one_proof = "SELECT other_id FROM removals GROUP BY blob HAVING count(*) <> 2"
    assert database.execute(one_proof).fetchall() == []


def check_acknowledged(database: sqlite3.Connection, said: list[list[str]]) -> None:
    """What was acknowledged is there; what was about to be undone may be gone."""
    steps: dict[str, dict[str, str]] = defaultdict(dict)
    for kind, name, *detail in said:
        steps[name][kind] = detail[0] if detail else ""

    def one(query: str, *values: object) -> object:
        row = database.execute(query, values).fetchone()
        return None if row is None else row[0]

    for name, done in steps.items():
        if "account" in done:
            assert one("SELECT id FROM accounts WHERE username = ?", name) == int(done["account"])
            continue
        inviter = one("SELECT id FROM accounts WHERE username = ?", f"{name}.i")
        if "invite" in done:
            token = bytes.fromhex(done["invite"])
            kept = one("SELECT count(*) FROM invites WHERE token_key = ?", token)
            assert kept == 1 or ("rotate?" in done and "claimed" not in done)
        if "claimed" in done:
            claimer = one("SELECT id FROM accounts WHERE username = ?", done["claimed"])
            contact = one("SELECT contact_id FROM edges WHERE owner_id = ? AND alias = 'friend'", inviter)
            assert contact == claimer or ("remove?" in done and contact is None)
        if "rotated" in done:
            assert one("SELECT public_key FROM accounts WHERE id = ?", inviter) == bytes.fromhex(done["rotated"])
        if "removed" in done:
            assert one("SELECT count(*) FROM edges WHERE owner_id = ?", inviter) == 0
            assert one("SELECT count(*) FROM removals WHERE account_id = ?", inviter) == 1


@pytest.mark.timeout(240)
def test_a_writer_that_is_killed_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "server.db"
    chance = random.Random(20)
    said: list[list[str]] = []
    with contextlib.closing(Writers(f"sqlite:///{path}")) as writers:
        for number in range(ROUNDS):
            said += writers.write_until_killed(f"r{number}", chance.randint(20, 150))
            with contextlib.closing(sqlite3.connect(path)) as database:
                check_invariants(database)
                check_acknowledged(database, said)
    kinds = {line[0] for line in said}
    assert kinds == {"account", "invite", "claimed", "rotate?", "rotated", "remove?", "removed"}
    asyncio.run(reopen(path))


async def reopen(path: Path) -> None:
    """The server starts on it as if nothing had been."""
    store = await Store.open(f"sqlite:///{path}", realm="example.org")
    assert (await store.everything()).accounts
    await store.close()
