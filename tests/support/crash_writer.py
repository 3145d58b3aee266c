"""
Processes that write to a store as fast as they can and say what they have been told is done, until they are killed.

One line a step on standard output, written only after the store returned: ``KIND NAME DETAIL``. A line with a
question mark says that a step is about to begin which undoes an earlier one.

The program itself writes nothing: for each line of its input, a prefix for names, it forks a writer, says
``pid NUMBER`` and, when that process is gone, ``over STATUS``. So what takes a second, the imports, is done once.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys

from bonevalue_server.records import SecondRedemption
from bonevalue_server.store import Store
from tests.support import identity
from tests.support.accounts import Person, claim, invite

__all__ = ["run"]


def run(url: str) -> None:
    """Fork a writer for every prefix that comes, one after the other."""
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            asyncio.run(_write(url, line.strip()))
            os._exit(0)
        _say("pid", pid)
        _, status = os.waitpid(pid, 0)
        _say("over", os.waitstatus_to_exitcode(status))


async def _write(url: str, prefix: str) -> None:
    store = await Store.open(url, realm="example.org", clock=lambda: identity.NOW)
    await asyncio.gather(*(_work(store, f"{prefix}.{worker}") for worker in range(4)))


def _say(*words: object) -> None:
    os.write(sys.stdout.fileno(), (" ".join(map(str, words)) + "\n").encode())


async def _enrol(store: Store, name: str) -> Person:
    keys = identity.account(name)
    person = Person(keys, await store.add_account(name, keys.public, "no hash"))
    _say("account", name, person.account.id)
    return person


async def _work(store: Store, prefix: str) -> None:
    for number in itertools.count():
        name = f"{prefix}.{number}"
        inviter, first, second = [await _enrol(store, f"{name}.{role}") for role in "ifs"]
        token = await invite(store, inviter, "friend", name)
        _say("invite", name, token.keys.public.hex())
        claimers = [first, second] if number % 2 else [second, first]
        outcomes = await asyncio.gather(
            *(claim(store, person, token, inviter, "maker") for person in claimers), return_exceptions=True
        )
        for person, outcome in zip(claimers, outcomes, strict=True):
            if not isinstance(outcome, SecondRedemption | BaseException):
                _say("claimed", name, person.name)
        if number % 3 == 0:
            new = identity.account(f"{name} second key")
            _say("rotate?", name)
            await store.rotate(
                inviter.account.id,
                old_key=inviter.keys.public,
                new_key=new.public,
                login_hash="new hash",
                rotate=identity.rotate(inviter.keys, new),
                pins={},
            )
            _say("rotated", name, new.public.hex())
        if number % 4 == 0:
            _say("remove?", name)
            await store.remove_edge(inviter.account.id, "friend", identity.remove(inviter.keys, first.keys))
            _say("removed", name)
