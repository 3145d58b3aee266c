"""
Links through a real coturn, started from deploy/coturn, over each way to it.

The two ends and the server have addresses that look public, on the loopback interface of the tests' network: the recipe
relays to no others.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import shutil
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from bonevalue import relay, rtc_guard
from bonevalue.link import CloseReason, IceConfig
from bonevalue.rtc import RtcEngine
from bonevalue.wire.signals import IceServer
from tests.support.certificates import Authority
from tests.support.links import Ends, connect, listen
from tests.support.loopback_addresses import public_addresses
from tests.support.processes import Daemon
from tests.support.waiting import until

RECIPE = Path(__file__).parents[2] / "deploy" / "coturn" / "turnserver.conf"
#: The server, and this host: the whole network is on loopback.
ADDRESS, ADDRESS6, HERE = "203.0.113.3", "2001:db8::3", "203.0.113.80"
NAME, SECRET = "turn.example.org", "north wind and sun"
WAYS = {
    "udp": f"turn:{NAME}",
    "tcp": f"turn:{NAME}?transport=tcp",
    "tls": f"turns:{NAME}",
}
MESSAGE = bytes(range(256)) * 64


class Coturn:
    """A server that runs."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("turnserver") is None:
            pytest.fail("coturn is not installed: `make test` installs it, or apt-get install coturn")
        authority = Authority(folder)
        certificate, key = authority.issue(NAME)
        self.tls = ssl.create_default_context(cafile=authority.file)
        site = {
            "static-auth-secret": SECRET,
            "realm": NAME,
            "listening-ip": ADDRESS,
            "cert": certificate,
            "pkey": key,
            "userdb": folder / "db",
            "pidfile": folder / "pid",
        }
        lines = [f"{name}={value}" for name, value in site.items()]
        self._file = folder / "turnserver.conf"
        self._file.write_text("\n".join([RECIPE.read_text(), *lines, "verbose", ""]))
        self.start()

    def start(self) -> None:
        """Start it."""
        self.daemon = Daemon(self._file, "-c", self._file.name, script=shutil.which("turnserver") or "")
        self.daemon.wait_for("DB connection success")

    def ice(self, *ways: str, seconds: float = 3600.0) -> IceConfig:
        """Only relays, over these ways, with a credential that holds for so long."""
        username = f"{int(time.time() + seconds)}:alice"
        digest = hmac.new(SECRET.encode(), username.encode(), hashlib.sha1).digest()
        server = IceServer([WAYS[way] for way in ways], username, base64.b64encode(digest).decode())
        return IceConfig((server,), relay_only=True, addresses=_look_up, tls=self.tls)

    def count(self, text: str) -> int:
        """How often its log has this."""
        return self.daemon.output.count(text)


async def _look_up(host: str) -> tuple[str, ...]:
    assert host == NAME
    return (ADDRESS,)


@pytest.fixture(scope="module")
def coturn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coturn]:
    with public_addresses(ADDRESS, ADDRESS6):
        coturn = Coturn(tmp_path_factory.mktemp("coturn"))
        yield coturn
        coturn.daemon.kill()


@pytest.fixture(autouse=True)
def host_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host has one address, which may be relayed to."""
    monkeypatch.setattr(rtc_guard, "_find_addresses", lambda use_ipv4, use_ipv6: [HERE])


async def exchange(ends: Ends, count: int = 8) -> None:
    """Send messages both ways at once, and see them come."""
    heard = listen(ends.ours), listen(ends.theirs)
    for _ in range(count):
        ends.ours.send(MESSAGE)
        ends.theirs.send(MESSAGE)
    await until(lambda: all(each.messages == [MESSAGE] * count for each in heard), 30)


async def relayed(coturn: Coturn, way: str) -> None:
    ends = await connect(RtcEngine(), ice=coturn.ice(way))
    for path in (ends.caller.path(), ends.callee.path()):
        assert path is not None
        assert (path.local, path.family, path.relay) == ("relay", "IPv4", way)
        assert path.local_address.startswith("203.0.113.")
        assert path.remote in ("relay", "prflx")
    await exchange(ends)
    before = coturn.count("refreshed, realm")
    await ends.close()
    await until(lambda: coturn.count("lifetime=0") >= 2 or coturn.count("refreshed, realm") >= before + 2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_link_over_each_way_to_the_server(coturn: Coturn, way: str, loop: type[asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(relayed(coturn, way))


async def test_one_side_with_a_relay_is_enough(coturn: Coturn) -> None:
    engine = RtcEngine()
    caller, callee = engine.connection(coturn.ice("udp")), engine.connection(IceConfig())
    await caller.accept_answer(await callee.accept_offer(await caller.create_offer()))
    ours, theirs = await asyncio.wait_for(asyncio.gather(caller.opened(), callee.opened()), 20)
    assert str(caller.path()) in ("relay/host", "relay/prflx")
    assert str(callee.path()) in ("host/relay", "host/prflx")
    ends = Ends(caller, callee, ours, theirs)
    await exchange(ends)
    await ends.close()


async def test_channels_are_kept(coturn: Coturn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "CHANNEL_REFRESH", 0.1)
    ends = await connect(RtcEngine(), ice=coturn.ice("udp"))
    before = coturn.count("CHANNEL_BIND processed, success")
    await until(lambda: coturn.count("CHANNEL_BIND processed, success") >= before + 4)
    await exchange(ends)
    await ends.close()


async def test_a_credential_that_has_expired_is_renewed_in_silence(coturn: Coturn) -> None:
    stale, fresh = coturn.ice("udp", "tcp", seconds=-1), coturn.ice("udp", "tcp")
    renewed: list[IceServer] = []

    async def renew(server: IceServer) -> IceServer:
        renewed.append(server)
        return fresh.servers[0]

    connection = RtcEngine().connection(stale)
    with pytest.raises(Exception, match="no TURN server gave one"):
        await connection.create_offer()
    assert {each.outcome for each in connection.tried().servers} == {"refused: 401 Unauthorized"}
    ice = IceConfig(stale.servers, relay_only=True, addresses=_look_up, renew=renew)
    ends = await connect(RtcEngine(), ice=ice)
    assert len(renewed) == 2  # once for each end
    await ends.close()


async def test_a_server_that_dies_takes_its_links_along_at_once_over_tcp(coturn: Coturn) -> None:
    ends = await connect(RtcEngine(), ice=coturn.ice("tcp"))
    heard = listen(ends.ours), listen(ends.theirs)
    coturn.daemon.kill()
    try:
        await until(lambda: all(each.closed for each in heard), 5)
        assert [each.closed for each in heard] == [[CloseReason.LOST]] * 2
        await ends.close()
    finally:
        coturn.start()
