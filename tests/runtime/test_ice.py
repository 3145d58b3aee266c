"""The ICE servers of a peer: fresh credentials only, and none that would cost each connection its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bonevalue import ice as ice_module
from bonevalue.config import IceSettings
from bonevalue.errors import ServerOutcome, Unavailable
from bonevalue.ice import REFRESH_APART, Ice
from bonevalue.ice_servers import allocate, probe
from bonevalue.ice_url import IceUrl, parse_ice_url
from bonevalue.link import IceConfig
from bonevalue.relay import Login, ServerFailed
from bonevalue.wire.signals import IceServer
from tests.support.certificates import Authority
from tests.support.scripted_turn import PASSWORD, USERNAME, scripted_turn
from tests.support.stun_servers import stun_server
from tests.support.waiting import other_tasks, until

OWN = IceServer(["turn:own"], "me", "own secret")


def handed(password: str = "first", *urls: str) -> IceServer:
    return IceServer(list(urls or ("turn:a", "turns:a")), "9:alice", password)


class World:
    """A clock, a network, and a discovery server."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.silent: set[str] = set()
        self.probed: list[str] = []
        self.refreshed = 0
        #: What the discovery server hands out when it is asked; an error is raised.
        self.next: tuple[IceServer, float | None] | Exception = Unavailable("offline")
        self.ice = self.make()

    def make(self, settings: dict[str, Any] | None = None) -> Ice:
        """Another one with these settings."""
        self.ice = Ice(
            IceSettings.model_validate(settings or {}),
            refresh=self.refresh,
            clock=lambda: self.now,
            probe=self.probe,
        )
        return self.ice

    async def refresh(self) -> None:
        """What asks the discovery server."""
        self.refreshed += 1
        await asyncio.sleep(0)
        if isinstance(self.next, Exception):
            raise self.next
        server, lifetime = self.next
        self.ice.handed_out((server,), (lifetime,))

    async def probe(self, url: IceUrl, config: IceConfig) -> ServerOutcome:
        """What asks a server whether it is there."""
        self.probed.append(url.text)
        await asyncio.sleep(0)
        return ServerOutcome(url.text, "no answer" if url.text in self.silent else "ok")

    async def probes(self, count: int) -> None:
        """Wait until so many servers have been asked, and their outcomes are known."""
        await until(lambda: len(self.probed) >= count and not other_tasks())


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(ice_module, "FIRST_PAUSE", 0.05)
    world = World()
    yield world
    await world.ice.close()
    assert not other_tasks()


def left_out(config: IceConfig) -> dict[str, str]:
    return {each.url: each.outcome for each in config.left_out}


# -- credentials -------------------------------------------------------------------------------------------------------


async def test_our_own_servers_come_first(world: World) -> None:
    ice = world.make(
        {"servers": [{"urls": "turn:own", "username": "me", "credential": "own secret"}], "policy": "relay"}
    )
    assert list(ice.servers) == [OWN]
    ice.handed_out((handed(),), (None,))
    assert list(ice.servers) == [OWN, handed()]
    config = await ice.config()
    assert (config.servers, config.relay_only, config.left_out) == ((OWN, handed()), True, ())
    assert "secret" not in repr(config)


async def test_only_credentials_that_hold_are_used(world: World) -> None:
    stun = IceServer(["stun:a"])
    world.ice.handed_out((handed(), stun), (100.0, None))
    world.now += 94.9
    assert list(world.ice.servers) == [handed(), stun]
    world.now += 0.2  # it is not used in its last seconds
    assert list(world.ice.servers) == [stun]
    config = await world.ice.config()
    assert config.servers == (stun,)
    assert left_out(config) == dict.fromkeys(("turn:a", "turns:a"), "left out: its credential has expired")
    assert world.refreshed == 1


async def test_a_credential_runs_out_while_the_machine_sleeps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = 0.0
    really = time.clock_gettime
    monkeypatch.setattr(
        time, "clock_gettime", lambda clock: really(clock) + (asleep if clock == time.CLOCK_BOOTTIME else 0.0)
    )
    ice = Ice(IceSettings(), refresh=world.refresh)
    ice.handed_out((handed(),), (3600.0,))
    assert list(ice.servers) == [handed()]
    asleep = 7200.0
    assert list(ice.servers) == []
    await ice.close()


async def test_short_lives_lose_a_tenth(world: World) -> None:
    world.ice.handed_out((handed(),), (2.0,))
    world.now += 1.7
    assert world.ice.servers
    world.now += 0.2
    assert not world.ice.servers
    world.ice.handed_out((handed(),), (0.0,))
    assert not world.ice.servers


async def test_stale_credentials_are_asked_for_anew_first(world: World) -> None:
    world.ice.handed_out((handed(),), (10.0,))
    world.next = (handed("second"), 3600.0)
    assert (await world.ice.config()).servers == (handed(),)
    assert world.refreshed == 0
    world.now += 10
    configs = await asyncio.gather(*(world.ice.config() for _ in range(5)))
    assert [config.servers for config in configs] == [(handed("second"),)] * 5
    assert world.refreshed == 1


async def test_a_server_that_gives_none_is_not_asked_again_and_again(world: World) -> None:
    world.ice.handed_out((handed(),), (0.0,))
    for _ in range(5):
        assert (await world.ice.config()).servers == ()
    assert world.refreshed == 1
    world.now += REFRESH_APART
    await world.ice.config()
    assert world.refreshed == 2


async def test_a_server_that_is_slow_is_not_waited_for_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(ice_module, "REFRESH_TIME", 0.05)
    monkeypatch.setattr(world, "refresh", hang)
    ice = world.make()
    ice.handed_out((handed(), IceServer(["stun:a"])), (0.0, None))
    async with asyncio.timeout(5):
        assert (await ice.config()).servers == (IceServer(["stun:a"]),)


async def test_a_refused_credential_is_renewed(world: World) -> None:
    world.ice.handed_out((handed(),), (3600.0,))
    config = await world.ice.config()
    assert config.renew is not None
    world.next = (handed("second"), 3600.0)
    renewed = await asyncio.gather(*(config.renew(handed("first", "turns:a")) for _ in range(3)))
    assert renewed == [handed("second")] * 3
    assert world.refreshed == 1
    # Who comes later with the old one gets the new one, with no further request.
    assert await config.renew(handed()) == handed("second")
    assert world.refreshed == 1


async def test_what_cannot_be_renewed(world: World) -> None:
    ice = world.make({"servers": [{"urls": "turn:a", "username": "me", "credential": "own secret"}]})
    ice.handed_out((handed(),), (3600.0,))
    config = await ice.config()
    assert config.renew is not None
    assert await config.renew(IceServer(["turn:a"], "me", "own secret")) is None
    assert world.refreshed == 0
    assert await config.renew(handed()) is None  # the discovery server is offline
    world.now += REFRESH_APART
    world.next = (handed(), 3600.0)
    assert await config.renew(handed()) is None  # it hands out the same again
    assert world.refreshed == 2


# -- who answers -------------------------------------------------------------------------------------------------------


async def test_servers_are_tried_as_soon_as_they_are_known(world: World) -> None:
    ice = world.make({"servers": [{"urls": ["stun:own"]}]})
    world.silent = {"turn:a"}
    ice.handed_out((handed(),), (None,))
    await world.probes(3)
    assert sorted(world.probed) == ["stun:own", "turn:a", "turns:a"]
    config = await ice.config()
    assert config.servers == (IceServer(["stun:own"]), handed("first", "turns:a"))
    world.now += 20
    assert left_out(await ice.config()) == {"turn:a": "left out for 20 s: no answer"}


async def test_one_where_nobody_listens_is_left_out_too(world: World) -> None:
    world.ice.handed_out((handed(),), (None,))
    config = await world.ice.config()
    await world.probes(2)
    config.on_outcome(ServerOutcome("turns:a", "nobody listens there"))
    assert left_out(await world.ice.config()) == {"turns:a": "left out for 0 s: nobody listens there"}
    await until(lambda: not world.ice._silent)


async def test_one_that_answers_again_is_used_again(world: World) -> None:
    world.silent = {"turn:a", "turns:a"}
    world.ice.handed_out((handed(),), (None,))
    await world.probes(4)
    assert (await world.ice.config()).servers == ()
    world.silent.clear()
    await until(lambda: not world.ice._silent)
    config = await world.ice.config()
    assert config.servers == (handed(),) and not config.left_out
    asked = len(world.probed)
    await asyncio.sleep(0.2)
    assert len(world.probed) == asked  # and is left in peace


async def test_it_is_tried_less_and_less_often(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ice_module, "LONGEST_PAUSE", 0.15)
    world.silent = {"stun:a"}
    world.ice.handed_out((IceServer(["stun:a"]),), (None,))
    pauses = []
    for count in (1, 2, 3, 4):
        await world.probes(count)
        pauses.append(world.ice._silent["stun:a"].pause)
    assert pauses == [0.05, 0.1, 0.15, 0.15]


async def test_connections_tell_of_silence_too(world: World) -> None:
    world.ice.handed_out((handed(),), (None,))
    config = await world.ice.config()
    await world.probes(2)
    world.silent = {"turn:a"}
    for _ in range(8):  # set up at once, they all met the same silence
        config.on_outcome(ServerOutcome("turn:a", "no answer"))
    assert world.ice._silent["turn:a"].pause == 0.05
    assert (await world.ice.config()).servers == (handed("first", "turns:a"),)
    config.on_outcome(ServerOutcome("turn:a", "ok"))
    assert (await world.ice.config()).servers == (handed(),)
    for outcome in ("refused: 401 Unauthorized", "name not known", "it closed the connection"):
        config.on_outcome(ServerOutcome("turn:a", outcome))  # that costs a connection nothing
    config.on_outcome(ServerOutcome("turn:gone-from-the-list", "no answer"))
    assert not (await world.ice.config()).left_out


async def test_the_last_ones_are_given_another_chance(world: World) -> None:
    world.silent = {"turn:a", "turns:a", "stun:a", "stun:b"}
    world.ice.handed_out((handed(), IceServer(["stun:a", "stun:b"])), (None, None))
    await world.probes(4)
    for silent in world.ice._silent.values():  # it would be tried much later
        assert silent.timer is not None
        silent.timer.cancel()
    world.silent = {"turn:a", "stun:b"}
    assert (await world.ice.config()).servers == ()  # they were asked a moment ago
    assert len(world.probed) == 4
    world.now += 2
    config = await world.ice.config()
    assert {url for server in config.servers for url in server.urls} == {"turns:a", "stun:a"}
    assert len(world.probed) == 8
    world.now += 2
    await world.ice.config()
    assert len(world.probed) == 8  # there are others now


async def test_a_last_chance_is_short(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.silent = {"stun:a"}
    world.ice.handed_out((IceServer(["stun:a"]),), (None,))
    await world.probes(1)

    async def hang(*_: object) -> ServerOutcome:
        world.probed.append("again")
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(world.ice, "_probe", hang)
    monkeypatch.setattr(ice_module, "LAST_CHANCE", 0.05)
    world.now += 2
    async with asyncio.timeout(5):
        for _ in range(3):
            assert (await world.ice.config()).servers == ()
    assert world.probed == ["stun:a", "again"]


async def test_under_the_relay_policy_nothing_is_left_out(world: World) -> None:
    ice = world.make({"policy": "relay"})
    world.silent = {"turn:a", "turns:a"}
    ice.handed_out((IceServer(["stun:a"]), handed()), (None, None))
    await world.probes(2)
    config = await ice.config()
    assert config.servers[1] == handed() and not config.left_out
    assert "stun:a" not in world.probed
    world.silent = {"turn:a"}
    ice.handed_out((IceServer(["turn:a", "turn:b"], "u", "p"), handed("x", "turn:c")), (None, None))
    await world.probes(4)
    urls = [url for server in (await ice.config()).servers for url in server.urls]
    assert urls == ["turn:b", "turn:c", "turn:a"]  # what is gone comes last


async def test_another_network_may_be_another_matter(world: World) -> None:
    world.silent = {"turn:a"}
    world.ice.handed_out((handed(),), (None,))
    await world.probes(2)
    world.silent.clear()
    world.ice.network_changed()
    assert (await world.ice.config()).servers == (handed(),)
    await until(lambda: world.probed.count("turn:a") >= 2 and not other_tasks())
    assert not world.ice._silent


async def test_a_list_that_changes_takes_what_was_learned_along(world: World) -> None:
    world.silent = {"turn:a"}
    world.ice.handed_out((handed(),), (None,))
    await world.probes(2)
    world.ice.handed_out((handed("second"),), (None,))
    assert (await world.ice.config()).servers == (handed("second", "turns:a"),)
    await world.probes(3)  # and that is looked at again, for the way to the discovery server may have been away
    assert world.probed[2:] == ["turn:a"]
    world.ice.handed_out((IceServer(["stun:b"]),), (None,))
    await world.probes(4)
    assert not world.ice._silent and (await world.ice.config()).servers == (IceServer(["stun:b"]),)


async def test_urls_that_make_no_sense_are_left_to_the_connection(world: World) -> None:
    world.ice.handed_out((IceServer(["stuns:a", "nonsense"]),), (None,))
    assert (await world.ice.config()).servers == (IceServer(["stuns:a", "nonsense"]),)
    assert world.probed == []


async def test_no_more_are_looked_after_than_makes_sense(world: World) -> None:
    world.ice.handed_out((IceServer([f"stun:a{number}" for number in range(100)]),), (None,))
    await world.probes(ice_module.MAX_WATCHED)
    assert len(world.probed) == ice_module.MAX_WATCHED


async def test_lists_that_change_all_the_time_have_few_servers_tried(world: World) -> None:
    for number in range(100):
        world.ice.handed_out((IceServer([f"stun:a{number}", f"stun:b{number}"]),), (None,))
        await asyncio.sleep(0)
    assert len(world.probed) == ice_module.FIRST_TRIES.burst


async def test_after_the_end_nothing_is_tried(world: World) -> None:
    await world.ice.close()
    world.ice.handed_out((handed(),), (None,))
    assert (await world.ice.config()).servers == (handed(),)
    assert not other_tasks() and not world.probed


async def test_closing_ends_what_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> ServerOutcome:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(world, "probe", hang)
    monkeypatch.setattr(world, "refresh", hang)
    ice = world.make()
    ice.handed_out((handed(),), (0.0,))
    ice.handed_out((IceServer(["stun:a"]), handed()), (None, 0.0))
    waiting = asyncio.ensure_future(ice.config())
    await asyncio.sleep(0)
    await ice.close()
    await asyncio.gather(waiting, return_exceptions=True)
    await ice.close()


async def test_the_authority_of_the_settings_counts_for_turns(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    settings = IceSettings.model_validate(
        {"servers": [{"urls": "turns:a", "username": "u", "credential": "c"}]},
    )
    world = World()
    ice = Ice(settings, refresh=world.refresh, ca_file=authority.file, probe=world.probe)
    tls = (await ice.config()).tls
    assert tls is not None and tls.check_hostname
    assert "test authority" in str(tls.get_ca_certs())
    assert (await ice.config()).tls is tls
    assert (await world.ice.config()).tls is None
    await ice.close()


# -- probes ------------------------------------------------------------------------------------------------------------


async def outcome_of(url: str, config: IceConfig | None = None) -> str:
    outcome = await probe(parse_ice_url(url), config or IceConfig())
    assert outcome.url == url
    return outcome.outcome


async def test_probing_stun(free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonevalue.ice_servers.PROBE_TIME", 1.0)
    async with stun_server(ignored=2) as lossy, stun_server(ignored=100) as silent, stun_server(host="::1") as six:
        assert await outcome_of(lossy.url()) == "ok"
        assert await outcome_of(silent.url()) == "no answer"
        assert await outcome_of(six.url("[::1]")) == "ok"
        assert await outcome_of(f"stun:127.0.0.1:{free_port()}") == "nobody listens there"

        async def both(_: str) -> tuple[str, ...]:
            return ("127.0.0.1", "::1")

        assert await outcome_of(six.url("both"), IceConfig(addresses=both)) == "ok"


async def test_probing_turn_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonevalue.ice_servers.PROBE_TIME", 0.3)
    for transport in ("udp", "tcp"):
        async with scripted_turn(transport=transport) as server:
            assert await outcome_of(server.url) == "ok"
            assert server.allocations == 0 and server.usernames == []
        async with scripted_turn(transport=transport, silent=True) as server:
            assert await outcome_of(server.url) == "no answer"
    await until(lambda: not other_tasks())


async def test_a_process_that_stood_still_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonevalue.ice_servers.PROBE_TIME", 0.3)
    async with stun_server() as server, scripted_turn() as turn:
        probes = asyncio.gather(outcome_of(server.url()), outcome_of(turn.url))
        await asyncio.sleep(0.01)
        time.sleep(0.8)  # noqa: ASYNC251
        assert list(await probes) == ["ok", "ok"]


async def test_a_port_that_the_server_still_remembers_is_tried_once_more() -> None:
    async with scripted_turn((437, "Allocation Mismatch")) as server:
        with pytest.raises(ServerFailed, match="refused: 437"):
            await allocate(parse_ice_url(server.url), Login(USERNAME, PASSWORD), IceConfig())
        assert len(server.usernames) == 2
        server.refusals = 1
        relay = await allocate(parse_ice_url(server.url), Login(USERNAME, PASSWORD), IceConfig())
        assert server.allocations == 1
        relay.close()
        await relay.closed()


async def test_probing_a_name_that_is_not_known() -> None:
    async def unknown(_: str) -> tuple[str, ...]:
        raise OSError

    assert await outcome_of("stun:a", IceConfig(addresses=unknown)) == "name not known"
    assert await outcome_of("turn:a", IceConfig(addresses=unknown)) == "name not known"
