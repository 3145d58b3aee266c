"""Accounts and trust from a tab: tokens both ways between tabs and daemons, the end of trust, a new password."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.processes import PASSWORD
from tests.support.tabs import Party, Tab, World, eventually, open_world

NEW_PASSWORD = "another tune on the violin"


@pytest_asyncio.fixture(loop_scope="session")
async def world(tmp_path: Path, browser: Browser) -> AsyncIterator[World]:
    async with open_world(tmp_path, browser) as world:
        yield world


async def comes(party: Party, *about: Any) -> None:
    """Wait until somebody has seen something."""

    async def has() -> bool:
        return list(about) in await party.seen()

    await eventually(has, what=about)


async def who(caller: Party, callee: Party) -> str:
    """The name under which somebody is known to whom they call."""
    answer = await caller.ask(target=callee.id, module="Probe.Who")
    return str(answer["response"]["name"])


@pytest.mark.parametrize("inviter", ["the tab", "the daemon"])
async def test_trust_by_token_and_its_end(world: World, inviter: str) -> None:
    world.serve("carol", "dave")
    daemon = await world.daemon("dave")
    tab = await world.tab("carol")
    assert await tab.evaluate("$BV.contacts()") == [] and await tab.evaluate("$BV.peers()") == []

    if inviter == "the tab":
        token = (await tab.outcome("$BV.requestToken('davy')"))["token"]
        assert await daemon.tell("Probe.Token", {"alias": "caro", "token": token}) is None
        await comes(tab, "newuser", "davy")
    else:
        token = await daemon.tell("Probe.Token", {"alias": "caro"})
        claimed = await tab.outcome("$BV.claimToken('davy', value)", token)
        assert claimed["name"] == "davy" and claimed["problem"] is None
        await comes(daemon, "newuser", "caro")
    await comes(tab, "peerconnect", ["davy", daemon.id])
    await comes(daemon, "peerconnect", ["caro", tab.id])
    assert await who(tab, daemon) == "caro" and await who(daemon, tab) == "davy"
    # Both show the key that the other has.
    shown = {contact["name"]: contact["fingerprint"] for contact in await tab.evaluate("$BV.contacts()")}
    [[name, fingerprint, problem]] = await daemon.tell("Probe.Contacts")
    assert (name, fingerprint, problem) == ("caro", await tab.evaluate("$BV.fingerprint"), None)
    assert (await daemon.ask(target=tab.id, module="Probe.Who"))["response"]["fingerprint"] == shown["davy"]

    # The token is used up, and so are the names; whoever asks hears it in the same words.
    for alias, code in (("davy", "already_trusted"), ("other", "already_trusted")):
        again = await tab.outcome(f"$BV.claimToken('{alias}', value)", token)
        assert again["error"]["code"] in (code, "token_used"), again
    for refused in (await tab.outcome("$BV.requestToken('davy')"), await daemon.tell("Probe.Token", {"alias": "caro"})):
        assert refused["error"]["code"] == "alias_taken"

    if inviter == "the tab":
        assert await tab.outcome("$BV.removeUser('davy')") is None
    else:
        assert await daemon.tell("Probe.Token", {"remove": "caro"}) is None
    await comes(tab, "userremove", "davy")
    await eventually(partial(_is_alone, tab))
    await eventually(partial(_has_no_contacts, daemon.tell))
    assert (await tab.ask(target=daemon.id, module="Probe.Who"))["error"]["code"] == "no_target"
    assert (await daemon.ask(target=tab.id, module="Probe.Who"))["error"]["code"] == "no_target"


async def _is_alone(tab: Tab) -> bool:
    return bool(await tab.evaluate("$BV.links().length + $BV.peers().length + $BV.contacts().length === 0"))


async def _has_no_contacts(tell: Any) -> bool:
    return not await tell("Probe.Contacts")


async def test_trust_between_two_tabs_with_the_callback(world: World) -> None:
    world.serve("carol", "dave")
    carol, dave = await asyncio.gather(world.tab("carol"), world.tab("dave"))
    token = await carol.evaluate(
        "() => new Promise((done) => $BV.requestToken('dave', function(data) { done(data.token); }))"
    )
    assert token.startswith("bv1_")
    assert (await dave.outcome("$BV.claimToken('carol', value)", token))["name"] == "carol"
    await carol.sees(dave.id)
    assert await who(carol, dave) == "carol" and await who(dave, carol) == "dave"
    # A second tab of the account knows what the first has agreed.
    second = await world.tab("dave")
    await second.sees(carol.id)
    assert await who(second, carol) == "dave"
    assert await carol.outcome("$BV.removeUser('dave')") is None
    for tab in (dave, second):
        await comes(tab, "userremove", "carol")
    await eventually(partial(_is_alone, carol))
    assert (await second.ask(target=carol.id, module="Probe.Who"))["error"]["code"] == "no_target"


TOKENS = {
    "mistyped": ("bv1_AAAA", "token_invalid"),
    "empty": ("", "token_invalid"),
}


async def test_what_an_account_may_not(world: World) -> None:
    """Each refusal has the code that Python raises."""
    world.serve("carol")
    daemon = await world.daemon("carol")
    tab = await world.tab("carol")
    for text, code in TOKENS.values():
        assert (await tab.outcome("$BV.claimToken('dave', value)", text))["error"]["code"] == code
        assert (await daemon.tell("Probe.Token", {"alias": "dave", "token": text}))["error"]["code"] == code
    own = (await tab.outcome("$BV.requestToken('dave')"))["token"]
    assert (await tab.outcome("$BV.claimToken('dave', value)", own))["error"]["code"] == "already_trusted"
    assert (await daemon.tell("Probe.Token", {"alias": "dave", "token": own}))["error"]["code"] == "already_trusted"
    for alias in ("Us", "12", "a b", ""):
        assert (await tab.outcome("$BV.requestToken(value)", alias))["error"]["code"] == "bad_name"
        assert (await daemon.tell("Probe.Token", {"alias": alias}))["error"]["code"] == "bad_name"
    assert (await tab.outcome("$BV.removeUser('dave')"))["error"]["code"] == "not_trusted"
    assert (await daemon.tell("Probe.Token", {"remove": "dave"}))["error"]["code"] == "not_trusted"


async def test_an_account_is_made_in_a_tab(world: World) -> None:
    world.serve("carol", registration="open")
    tab = await world.open()
    register = "$BV.register('', value[0], value[1])"
    for username, password, code in (
        ("dave", "short", "weak_password"),
        ("Us", NEW_PASSWORD, "bad_name"),
        ("carol", NEW_PASSWORD, "name_taken"),
    ):
        assert (await tab.outcome(register, [username, password]))["error"]["code"] == code
    assert await tab.outcome(register, ["dave", NEW_PASSWORD]) is None
    assert (await tab.connect("dave", PASSWORD))["error"]["code"] == "login_refused"
    assert (await tab.connect("dave", NEW_PASSWORD, realm="bv.example.org"))["error"]["code"] == "realm_mismatch"
    assert await tab.connect("dave", NEW_PASSWORD) is None
    world.stop_server(SIGTERM)
    world.serve("carol", registration="closed")
    other = await world.open()
    refused = await other.outcome(register, ["erin", NEW_PASSWORD])
    assert refused["error"]["code"] == "registration_closed"


async def test_contacts_follow_a_new_password(world: World) -> None:
    world.serve("carol", "dave")
    await world.befriend("carol", "dave")
    daemon = await world.daemon("dave")
    carol, dave = await asyncio.gather(world.tab("carol"), world.tab("dave"))
    await carol.sees(daemon.id, dave.id)
    assert await who(carol, daemon) == "carol" and await who(dave, carol) == "dave"
    before = await carol.evaluate("$BV.fingerprint")

    assert (await carol.outcome("$BV.changePassword(value)", "short"))["error"]["code"] == "weak_password"
    assert await carol.outcome("$BV.changePassword(value)", NEW_PASSWORD) is None
    fresh = await world.open()
    await fresh.evaluate("probe.serve()")
    assert (await fresh.connect("carol", PASSWORD))["error"]["code"] == "login_refused"
    assert await fresh.connect("carol", NEW_PASSWORD) is None
    after = await fresh.evaluate("$BV.fingerprint")
    assert after != before
    await fresh.sees(daemon.id, dave.id)
    await eventually(partial(_knows, daemon, ["carol", after, None]))
    for other in (daemon, dave):
        assert await who(fresh, other) == "carol"
        assert await who(other, fresh) == "dave"


async def _knows(daemon: Any, contact: list[Any]) -> bool:
    return contact in await daemon.tell("Probe.Contacts")
