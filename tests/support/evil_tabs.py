"""
Tabs on the stage of tests/support/evil.py: what a dishonest server does to Python peers, done to a browser.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from contextlib import suppress
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Error

from bonevalue.errors import error_of
from bonevalue.wire.keys import AccountKeys, fingerprint
from tests.support.evil import REALM, Actor, Cast, Refusal, Stage, password_of
from tests.support.tabs import PAGE, Tab, eventually, open_tab

__all__ = [
    "NAMES",
    "TabActor",
    "befriend_all",
    "come_on",
    "is_quiet",
    "join_tab",
    "named",
    "nobody_linked",
    "recovers",
    "tab_of",
]

#: Who is on stage.
NAMES = ("alice", "bob", "carol")
#: A refusal as the library says it on the console.
_REFUSAL = re.compile(r"BoneValue: (\S+): (\w+): (.*)", re.DOTALL)
#: What every actor serves: who is asked, after a look at whom it was meant for and who asks.
_WHO = """
(username) => {
  probe.serve();
  globalThis.states = [];
  $BV.on('link', ({ state, peer }) => states.push([state, peer.id]));
  $BV.module('Who', ({ request: { from, key, to }, caller }) => {
    if (from !== caller.id || key !== caller.fingerprint || to !== username) {
      breach(`${username} ran ${JSON.stringify([from, key, to])} for ${JSON.stringify(caller)}`);
    }
    return username;
  });
}"""


class _TabPeer:
    """As much of a peer as the stage needs of one."""

    def __init__(self, tab: Tab, keys: AccountKeys) -> None:
        self._tab = tab
        self.fingerprint = fingerprint(keys.public)

    async def _do(self, expression: str, value: Any = None) -> Any:
        answer = await self._tab.outcome(expression, value)
        if isinstance(answer, dict) and "error" in answer:
            raise error_of(answer["error"]["code"], answer["error"]["message"])
        return answer

    async def request_token(self, alias: str) -> str:
        return str((await self._do("$BV.requestToken(value)", alias))["token"])

    async def claim_token(self, alias: str, text: str) -> Any:
        return await self._do("$BV.claimToken(value[0], value[1])", [alias, text])

    async def remove_user(self, alias: str) -> None:
        await self._do("$BV.removeUser(value)", alias)

    async def change_password(self, password: str) -> None:
        await self._do("$BV.changePassword(value)", password)

    async def stop(self, drain: float) -> None:
        with suppress(Error):
            await self._tab.page.context.close()


class TabActor(Actor):
    """A tab of an account, and what it reported."""

    def __init__(self, stage: Stage, username: str, password: str, tab: Tab) -> None:
        self.stage = stage
        self.username = username
        self.tab = tab
        self.refusals = []
        self.new_users = []
        self._keys = AccountKeys.derive(password, realm=REALM, username=username)
        self.peer = _TabPeer(tab, self._keys)  # type: ignore[assignment]
        tab.page.on("console", self._heard)

    def _heard(self, message: ConsoleMessage) -> None:
        found = _REFUSAL.fullmatch(message.text)
        if found is not None:
            error = error_of(found[2], found[3])
            self.refusals.append(Refusal(error, found[1], asyncio.get_running_loop().time()))

    @property
    def id(self) -> str:
        """Its peer id."""
        return self.tab.id

    @property
    def keys(self) -> AccountKeys:
        """The keys of its account."""
        return self._keys

    async def _call(self, query: str, whom: Actor) -> Any:
        # No link outlives its call, so that each attack is one on a link that is made.
        name = secrets.token_hex(8)
        request = {"from": self.id, "key": self.peer.fingerprint, "to": whom.username}
        options = {"timeout": 10, "keep_alive": False}
        spec = {"target": query, "module": "Who", "request": request, "options": options, "name": name}
        asking = asyncio.create_task(self.tab.ask(**spec))
        try:
            answer = await asyncio.shield(asking)
        except asyncio.CancelledError:
            await self.tab.cancel(name)
            await asking
            raise
        if "error" in answer:
            raise error_of(answer["error"]["code"], answer["error"]["message"])
        return answer["response"]

    async def sees(self, other: Actor) -> None:
        """Wait until a peer of another account is online here under its username, with its key."""
        known = [other.id, other.username, fingerprint(other.keys.public)]

        async def so() -> bool:
            return bool(
                await self.tab.evaluate(
                    """([id, name, key]) => $BV.peers().some((peer) => peer.id === id && peer.name === name)
                      && $BV.contacts().some((contact) => contact.name === name && contact.fingerprint === key)""",
                    known,
                )
            )

        await eventually(so, 10, what=f"{self.username} sees {other.username}")

    async def problem_of(self, alias: str) -> str | None:
        """The code of what is wrong with a contact; None for nothing."""
        shown = {contact["name"]: contact for contact in await self.tab.evaluate("$BV.contacts()")}[alias]
        assert (shown["problem"] is None) is bool(shown["fingerprint"])
        return None if shown["problem"] is None else str(shown["problem"])

    async def believes(self, alias: str, key: bytes) -> bool:
        """Whether it takes a contact for proved, with that key."""
        shown = {contact["name"]: contact["fingerprint"] for contact in await self.tab.evaluate("$BV.contacts()")}
        return shown.get(alias) == fingerprint(key)

    async def peers_of(self, alias: str) -> list[str]:
        """The peers that it knows of a contact."""
        found: list[str] = await self.tab.evaluate("(alias) => $BV.get(alias).peers().map(({ id }) => id)", alias)
        return found

    async def linked(self) -> list[str]:
        """The peers that it has links to."""
        found: list[str] = await self.tab.evaluate(
            "$BV.links().filter(({ state }) => ['open', 'draining'].includes(state)).map(({ peer }) => peer.id)"
        )
        return found

    async def has_accepted(self) -> bool:
        """Whether it has given an offer or answer to the browser, since it was last forgotten."""
        return any(state == "checking" for state, _ in await self.tab.evaluate("states"))

    async def unlinked(self) -> None:
        """Wait until it has no links, nor is making any, and forget that it had."""

        async def so() -> bool:
            return bool(await self.tab.evaluate("$BV.links().length === 0"))

        await eventually(so, 25, what=f"{self.username} has no links")
        await self.tab.evaluate("states.length = 0")

    async def leave(self) -> None:
        """Log out, and close the tab."""
        await self.tab.outcome("$BV.disconnect()")
        await super().leave()

    async def set_clock(self, minutes: float) -> None:
        """Let it sign and check by a clock that is so many minutes ahead."""
        await self.tab.evaluate(
            """(ahead) => {
              globalThis.rightNow ??= Date.now;
              Date.now = () => rightNow() + ahead;
            }""",
            minutes * 60_000,
        )


async def join_tab(
    stage: Stage, browser: Browser, username: str, password: str | None = None, *, library: str | None = None
) -> TabActor:
    """A tab that is online; with another library than the server's, perhaps."""
    password = password or password_of(username)
    context = await browser.new_context()
    await context.grant_permissions(["local-network-access"])
    await context.expose_binding("breach", lambda source, text: stage.breaches.append(text))
    if library is not None:
        await context.route(
            "**/scripts/BV.js", lambda route: route.fulfill(content_type="text/javascript", body=library)
        )
    tab = await open_tab(context, f"http://127.0.0.1:{stage.server.port}/tab.html", content=PAGE)
    actor = TabActor(stage, username, password, tab)
    stage.actors.append(actor)
    await tab.evaluate(_WHO, username)
    # Links that a lie keeps from coming about are given up soon, and others not kept: no test need wait for that.
    pool = {"connectTimeout": 5000, "idleTimeout": 500}
    error = await tab.connect(username, password, pool=pool)
    assert error is None, error
    return actor


# -- the cast ------------------------------------------------------------------------------------------------------


async def come_on(stage: Stage, browser: Browser, *, library: str | None = None) -> Cast:
    """A tab of each of the three accounts."""
    joining = (join_tab(stage, browser, name, library=library) for name in NAMES)
    return Cast(stage, *await asyncio.gather(*joining))


async def befriend_all(cast: Cast) -> None:
    """All three trust each other."""
    for one, other in ((cast.alice, cast.bob), (cast.alice, cast.carol), (cast.bob, cast.carol)):
        await cast.stage.befriend(one, other)


def tab_of(actor: Actor) -> TabActor:
    """The actor, which is a tab."""
    assert isinstance(actor, TabActor)
    return actor


def named(cast: Cast, name: str) -> TabActor:
    """One of the three."""
    return tab_of({"alice": cast.alice, "bob": cast.bob, "carol": cast.carol}[name])


async def is_quiet(cast: Cast) -> None:
    """The server is honest, and nobody has a link."""
    cast.stage.relent()
    await asyncio.gather(*(actor.unlinked() for actor in (cast.alice, cast.bob, cast.carol)))


async def nobody_linked(cast: Cast) -> None:
    """Nobody has a link that is authenticated."""
    for actor in (cast.alice, cast.bob, cast.carol):
        assert await tab_of(actor).linked() == []


async def recovers(cast: Cast) -> None:
    """The server is honest again: everybody reaches everybody, over new links."""
    await is_quiet(cast)
    alice, bob, carol = cast.alice, cast.bob, cast.carol
    await asyncio.gather(alice.calls("bob", bob), carol.calls("alice", alice), bob.calls("carol", carol))
    await asyncio.gather(bob.calls("alice", alice), alice.calls("carol", carol), carol.calls("bob", bob))
