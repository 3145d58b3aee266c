"""
Calls from tab to tab, from tab to daemon and from daemon to tab: each does the same, and fails in the same way.

Alice has a tab; bob has a tab and a daemon. All serve the same modules (tests/support/probe.py and probe.js).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec import Struct
from playwright.async_api import Browser

from bonevalue.wire.signals import PeerDisconnect
from tests.support.evil import open_stage
from tests.support.evil_tabs import join_tab
from tests.support.pairs import FIVE_MIB, PIECE, WHOLE, Pair
from tests.support.tabs import ProbeDaemon, Tab, World, eventually, open_world
from tests.support.waiting import until


@dataclass
class Cast:
    """Who is there, for all tests of this file."""

    world: World
    alice: Tab
    bob: Tab
    daemon: ProbeDaemon


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cast(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> AsyncIterator[Cast]:
    async with open_world(tmp_path_factory.mktemp("world"), browser) as world:
        world.serve("alice", "bob")
        await world.befriend("alice", "bob")
        daemon = await world.daemon("bob")
        alice, bob = await asyncio.gather(world.tab("alice"), world.tab("bob"))
        await alice.sees(bob.id, daemon.id)
        await daemon.sees(alice.id)
        yield Cast(world, alice, bob, daemon)


WAYS = ["tab to tab", "tab to daemon", "daemon to tab"]


@pytest.fixture(params=WAYS)
def pair(cast: Cast, request: pytest.FixtureRequest) -> Pair:
    if request.param == "tab to tab":
        return Pair(cast.alice, cast.bob, "alice")
    if request.param == "tab to daemon":
        return Pair(cast.alice, cast.daemon, "alice")
    return Pair(cast.daemon, cast.alice, "bob")


# -- values ------------------------------------------------------------------------------------------------------------


VALUES: list[Any] = [
    None,
    True,
    0,
    -1.5,
    2**53 - 1,
    "",
    "Ein Füßchen, \u2028 ein \U0001f388, ein \0",
    [],
    {},
    {"a": [1, {"b": None}], "": [[[]]]},
    "long " * 40_000,
]


async def test_json_comes_back_as_it_was(pair: Pair) -> None:
    for value in VALUES:
        assert await pair.ask("Probe.Echo", value) == {"response": value}


async def test_streams_of_answers_and_of_requests_and_both(pair: Pair) -> None:
    assert await pair.ask("Probe.Count", 1000, stream=True) == {"items": list(range(1000))}
    assert await pair.ask("Probe.Count", 0, stream=True) == {"items": []}
    assert await pair.ask("Probe.Add", items=list(range(1000))) == {"response": 499_500}
    assert await pair.ask("Probe.Add", items=[]) == {"response": 0}
    doubled = await pair.ask("Probe.Double", items=list(range(500)), stream=True)
    assert doubled == {"items": list(range(0, 1000, 2))}
    assert await pair.ask("Probe.Echo", 7, stream=True) == {"items": [7]}, "an answer is a stream of one item"


async def test_five_mib_each_way_whole(pair: Pair) -> None:
    assert await pair.ask("Probe.Digest", bytes=FIVE_MIB) == {"response": WHOLE}
    assert await pair.ask("Probe.Make", FIVE_MIB) == {"response": WHOLE}
    assert await pair.ask("Probe.Echo", bytes=FIVE_MIB) == {"response": WHOLE}


async def test_five_mib_each_way_as_a_stream(pair: Pair) -> None:
    sent = {"size": FIVE_MIB, "piece": PIECE}
    assert await pair.ask("Probe.Digest", pieces=sent) == {"response": WHOLE}
    assert await pair.ask("Probe.Pieces", sent, stream=True) == {"items": WHOLE}


async def test_a_blob_is_sent_as_its_bytes(cast: Cast) -> None:
    sent = {"size": FIVE_MIB, "piece": PIECE}
    for pair in (Pair(cast.alice, cast.bob, "alice"), Pair(cast.alice, cast.daemon, "alice")):
        assert await pair.ask("Probe.Digest", bytes=FIVE_MIB, blob=True) == {"response": WHOLE}
        assert await pair.ask("Probe.Digest", pieces=sent, blob=True) == {"response": WHOLE}


async def test_many_calls_at_once_do_not_block_each_other(pair: Pair) -> None:
    bulk = asyncio.create_task(pair.ask("Probe.Echo", bytes=FIVE_MIB))
    answers = await asyncio.gather(*(pair.ask("Probe.Echo", number) for number in range(50)))
    assert answers == [{"response": number} for number in range(50)]
    assert await bulk == {"response": WHOLE}


async def test_a_module_calls_back_while_it_is_called(cast: Cast) -> None:
    """Alice calls bob's daemon, which calls her, over the same link."""
    back = {"target": cast.alice.id, "module": "Probe.Who"}
    asked = await Pair(cast.alice, cast.daemon, "alice").ask("Probe.Ask", back)
    assert asked["response"]["response"]["id"] == cast.daemon.id


# -- the end of calls ----------------------------------------------------------------------------------------------


async def test_cancelling_a_call_reaches_the_handler(pair: Pair) -> None:
    name = f"to {pair.callee.id}"
    call = asyncio.create_task(pair.code("Probe.Wait", name, name=name))
    await pair.comes("begun", name)
    await pair.caller.cancel(name)
    assert await call == "cancelled"
    await pair.comes("cancelled", name)


async def test_leaving_a_stream_ends_it_at_the_other_side(pair: Pair) -> None:
    before = (await pair.callee.seen()).count(["count closed", None])
    assert await pair.ask("Probe.Count", None, stream=True, take=5) == {"items": [0, 1, 2, 3, 4]}
    await eventually(partial(_is_closed_again, pair, before))


async def test_cancelling_a_stream_ends_it_at_the_other_side(pair: Pair) -> None:
    before = (await pair.callee.seen()).count(["count closed", None])
    call = asyncio.create_task(pair.ask("Probe.Count", None, stream=True, name="count"))
    # Something else on the same link, asked later, is answered: so this one is under way.
    assert await pair.ask("Probe.Echo", 1) == {"response": 1}
    await pair.caller.cancel("count")
    assert (await call)["error"]["code"] == "cancelled"
    await eventually(partial(_is_closed_again, pair, before))


async def _is_closed_again(pair: Pair, before: int) -> bool:
    return (await pair.callee.seen()).count(["count closed", None]) > before


async def test_the_deadline_is_kept_on_both_sides(pair: Pair) -> None:
    name = f"too long for {pair.callee.id}"
    left = (await pair.ask("Probe.Left", options={"timeout": 7}))["response"]
    assert 0 < left <= 7
    assert await pair.code("Probe.Wait", name, options={"timeout": 0.3}) == "deadline"
    await pair.comes("begun", name)
    await pair.comes("cancelled", name)


#: What a handler may say, what becomes of anything else, and what the platform says: module, request, code.
FAILURES: dict[str, tuple[str, Any, str]] = {
    "bad_request": ("Probe.Fail", "bad_request", "bad_request"),
    "busy": ("Probe.Fail", "busy", "busy"),
    "denied": ("Probe.Fail", "denied", "denied"),
    "rate_limited": ("Probe.Fail", "rate_limited", "rate_limited"),
    "too_large": ("Probe.Fail", "too_large", "too_large"),
    "unavailable": ("Probe.Fail", "unavailable", "unavailable"),
    "a code of others": ("Probe.Fail", "link_lost", "handler_failed"),
    "handler_failed": ("Probe.Fail", "handler_failed", "handler_failed"),
    "no such module": ("Probe.Nothing", None, "no_module"),
    "not allowed": ("Probe.Secret", None, "denied"),
    "not for others": ("bv.links", None, "denied"),
    "a stream is not one answer": ("Probe.Count", 3, "bad_request"),
    "an answer that is too large": ("Probe.Make", 9 * 2**20, "too_large"),
}


@pytest.mark.parametrize("what", FAILURES)
async def test_errors_have_the_same_code_everywhere(pair: Pair, what: str) -> None:
    module, request, code = FAILURES[what]
    answer = await pair.ask(module, request)
    assert answer["error"]["code"] == code
    assert answer["error"]["peer"] == pair.callee.id
    if module == "Probe.Fail":
        assert answer["error"]["callId"]
        assert ("said" in answer["error"]["message"]) is (code != "handler_failed")


async def test_errors_that_need_nobody_else(pair: Pair) -> None:
    nobody = await pair.caller.ask(target="nobody", module="Probe.Echo")
    assert nobody["error"]["code"] == "no_target"
    assert (await pair.caller.ask(target="4711", module="Probe.Echo"))["error"]["code"] == "no_target"
    assert await pair.code("Probe.Digest", bytes=9 * 2**20) == "too_large"


async def test_no_connection_comes_about(cast: Cast) -> None:
    """Both sides may go through relays only, and there is none."""
    tab = await cast.world.tab("alice", ice={"policy": "relay"})
    await tab.sees(cast.daemon.id)
    answer = await tab.ask(target=cast.daemon.id, module="Probe.Echo", options={"timeout": 20})
    assert answer["error"]["code"] == "connect_failed" and answer["error"]["message"]
    cast.world.write("relayed", "bob", ice={"policy": "relay"})
    called = await cast.world.bv("relayed", "call", "--json", cast.alice.id, "Probe.Echo", "1")
    assert called.code == 1 and called.json[0]["error"]["code"] == "connect_failed", called
    await tab.page.close()


def unsaid(username: str, message: Struct) -> Iterable[Struct]:
    """The server tells nobody that a peer has gone."""
    return () if isinstance(message, PeerDisconnect) else (message,)


async def test_a_peer_has_gone_and_the_server_says_it_is_there(tmp_path: Path, browser: Browser) -> None:
    async with open_stage(tmp_path, "alice", "bob") as stage:
        tab, daemon, bob = await asyncio.gather(
            join_tab(stage, browser, "alice"), stage.join("alice"), stage.join("bob")
        )
        await stage.befriend(tab, bob)
        await stage.acquainted(daemon, bob)
        stage.attack(lie=unsaid)
        await bob.leave()
        await until(lambda: stage.hub._presence.get(bob.id) is None)
        assert await tab.peers_of("bob") == [peer.id for peer in daemon.peer.get("bob").peers()] == [bob.id]
        # By its id and by its name, from a tab and from a daemon: the same error.
        errors = [await caller.fails(query, bob) for caller in (tab, daemon) for query in (bob.id, "bob")]
        assert {error.code for error in errors} == {"peer_offline"}
        assert len({error.message for error in errors}) == 1, errors
        # Nothing is the matter with the callers.
        again = await stage.join("bob")
        for caller in (tab, daemon):
            await stage.acquainted(caller, again)
            await caller.calls(again.id, again)


async def test_a_tab_that_has_left_serves_nobody_and_calls_nobody(cast: Cast) -> None:
    tab = await cast.world.tab("bob")
    await cast.alice.sees(tab.id)
    call = asyncio.create_task(Pair(cast.alice, tab, "alice").code("Probe.Wait", "until you leave"))
    await Pair(cast.alice, tab, "alice").comes("begun", "until you leave")
    assert await tab.outcome("$BV.disconnect()") is None
    assert await call in ("link_lost", "cancelled", "unavailable")
    answer = await tab.ask(target=cast.alice.id, module="Probe.Echo")
    assert answer["error"]["code"] in ("unavailable", "no_target")
    assert await tab.connect("bob") is None
    await tab.sees(cast.alice.id)
    assert await tab.ask(target=cast.alice.id, module="Probe.Echo", request=1) == {"response": 1}
    await tab.page.close()


# -- who -----------------------------------------------------------------------------------------------------------


async def test_the_callee_knows_the_caller_by_its_link(cast: Cast, pair: Pair) -> None:
    who = (await pair.ask("Probe.Who", {"name": "mallory", "caller": {"name": "mallory"}}))["response"]
    assert (who["name"], who["id"]) == (pair.name, pair.caller.id)
    # As the one who calls knows itself.
    tab = cast.alice if pair.name == "alice" else cast.bob
    assert who["fingerprint"] == await tab.evaluate("$BV.fingerprint")


async def test_one_s_own_account_may_more(cast: Cast) -> None:
    secret = {"response": "the secret"}
    assert await cast.bob.ask(target=cast.daemon.id, module="Probe.Secret") == secret
    assert await cast.daemon.ask(target=cast.bob.id, module="Probe.Secret") == secret
    links = (await cast.daemon.ask(target=cast.bob.id, module="bv.links"))["response"]
    assert cast.daemon.id in str(links)


async def test_what_a_peer_serves_is_shown_to_each_as_it_may_call(cast: Cast, pair: Pair) -> None:
    names = {module["name"] for module in (await pair.ask("bv.modules"))["response"]}
    assert {"Probe.Echo", "Probe.Count", "bv.modules"} <= names
    assert not names & {"Probe.Secret", "bv.links"}
    shown = await cast.bob.evaluate("(id) => $BV.get(id).modules()", cast.daemon.id)
    assert "Probe.Secret" in {module["name"] for module in shown}
    count = next(module for module in shown if module["name"] == "Probe.Count")
    assert count["stream"] is True and "Counts up" in count["doc"]
    left = next(module for module in shown if module["name"] == "Probe.Left")
    assert left["response"]["type"] == "number"


# -- many ----------------------------------------------------------------------------------------------------------


async def test_everyone_is_asked(cast: Cast) -> None:
    bobs = {cast.bob.id, cast.daemon.id}
    for options in ({}, {"concurrency": 1}):
        results = (await cast.alice.ask(target="bob", module="Probe.Echo", request="all", all=options))["results"]
        assert {result["peer"] for result in results} == bobs
        assert all(result["response"] == "all" for result in results)
    results = (await cast.daemon.ask(target="*", module="Probe.Echo", request=1, all={}))["results"]
    assert {result["peer"] for result in results} >= {cast.alice.id, cast.bob.id}
    results = (await cast.alice.ask(target="*", module="Probe.Fail", request="busy", all={}))["results"]
    assert len(results) >= 2 and {result["error"]["code"] for result in results} == {"busy"}
    assert (await cast.alice.ask(target="nobody", module="Probe.Echo", all={}))["results"] == []


async def test_enough_answers_end_the_other_calls(cast: Cast) -> None:
    """The tab answers, the daemon does not: its handler is told that nobody waits any more."""
    daemon = Pair(cast.alice, cast.daemon, "alice")
    await cast.bob.evaluate("globalThis.first = Promise.withResolvers(), $BV.module('Probe.Wait', () => first.promise)")
    asking = asyncio.create_task(
        cast.alice.ask(target="bob", module="Probe.Wait", request="the first", all={"first": 1})
    )
    await daemon.comes("begun", "the first")  # only a handler that runs can be told
    await cast.bob.evaluate("first.resolve('fast')")
    assert (await asking)["results"] == [{"peer": cast.bob.id, "response": "fast"}]
    await daemon.comes("cancelled", "the first")
    await cast.bob.evaluate("$BV.module('Probe.Wait', probe.modules['Probe.Wait'])")


async def test_the_callbacks_of_a_message(cast: Cast) -> None:
    script = """
      (query) => new Promise((done) => {
        const heard = [];
        const both = (what) => (value) => { if (heard.push([what, value.code ?? value]) === 2) done(heard.sort()); };
        $BV.get(query).message(MODULE, REQUEST, true, both('answer'), both('error'));
      })"""
    echo = script.replace("MODULE", "'Probe.Echo'").replace("REQUEST", "{a: 1}")
    assert await cast.alice.evaluate(echo, "bob") == [["answer", {"a": 1}]] * 2
    fail = script.replace("MODULE", "'Probe.Fail'").replace("REQUEST", "'busy'")
    assert await cast.alice.evaluate(fail, "bob") == [["error", "busy"]] * 2
    # The short form asks everyone; an error that nobody takes is on the console.
    assert await cast.alice.evaluate(
        """() => new Promise((done) => {
          const heard = [];
          $BV.get('Probe.Echo', 'all', false, (answer) => { if (heard.push(answer) === 2) done(heard); });
        })"""
    ) == ["all", "all"]
    before = cast.alice.count("busy")
    await cast.alice.evaluate("$BV.get('bob').message('Probe.Fail', 'busy')")
    await cast.alice.logged("busy", before + 2)


async def test_a_link_that_is_not_kept(cast: Cast) -> None:
    tab = await cast.world.tab("alice")
    await tab.sees(cast.daemon.id, cast.bob.id)
    for callee in (cast.daemon, cast.bob):
        answer = await tab.ask(target=callee.id, module="Probe.Echo", request=1, options={"keep_alive": False})
        assert answer == {"response": 1}
        await eventually(partial(_links, tab, 0), timeout=5, what="the link is closed at once")
    assert await tab.ask(target=cast.daemon.id, module="Probe.Echo", request=1) == {"response": 1}
    assert await _links(tab, 1)
    ping = await tab.evaluate("(id) => $BV.get(id).ping()", cast.daemon.id)
    assert ping["peer"]["id"] == cast.daemon.id and 0 < ping["roundTrip"] < 5000
    assert ping["path"]["local"] in ("host", "prflx") and ping["path"]["remote"] in ("host", "prflx")
    assert await _links(tab, 1), "a ping uses the link that is there"
    await tab.page.close()


async def _links(tab: Tab, number: int) -> bool:
    return len(await tab.evaluate("$BV.links()")) == number


# -- who is there ----------------------------------------------------------------------------------------------------


async def test_peers_that_come_and_go(cast: Cast) -> None:
    tab = await cast.world.tab("alice")
    for other, name in ((cast.alice, "Us"), (cast.bob, "alice"), (cast.daemon, "alice")):
        await Pair(tab, other, "").comes("peerconnect", [name, tab.id])
    # Those that were there before are told to the new one as if they came.
    for peer in (["Us", cast.alice.id], ["bob", cast.bob.id], ["bob", cast.daemon.id]):
        assert ["peerconnect", peer] in await tab.seen()
    await tab.page.close()
    for other in (cast.alice, cast.bob, cast.daemon):
        await Pair(cast.alice, other, "").comes("peerdisconnect", tab.id)


async def test_an_invisible_tab_calls_and_is_not_seen(cast: Cast) -> None:
    tab = await cast.world.tab("alice", visible=False)
    await tab.sees(cast.bob.id, cast.daemon.id)
    for callee in (cast.bob, cast.daemon):
        who = (await tab.ask(target=callee.id, module="Probe.Who"))["response"]
        assert (who["name"], who["id"]) == ("alice", tab.id)
    others = await cast.daemon.tell("Probe.Events")
    assert tab.id not in {peer_id for _, peer_id in others}
    for other in (cast.alice, cast.bob, cast.daemon):
        assert not any(tab.id in str(about) for _, about in await other.seen())
    await tab.page.close()
