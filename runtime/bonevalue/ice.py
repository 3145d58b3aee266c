"""
The STUN and TURN servers of one peer: those of its settings, and those that the discovery server hands out.

- Only credentials that still hold are used, by a clock of our own that goes on while the machine sleeps. Stale ones
  are asked for anew first.
- A server that is gone would cost each connection its time. It is left out until it answers again, which is tried
  beside, less and less often. All servers are tried so as soon as they are known. If all STUN servers, or all TURN
  servers, are left out, a connection first gives them another chance, a short one. A server that refuses is there, and
  is not left out.
- When the network has changed, all that was learned about it is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bonevalue.config import IceSettings
from bonevalue.errors import BoneValueError, ServerOutcome
from bonevalue.ice_servers import probe
from bonevalue.ice_url import IceUrl, parse_ice_url
from bonevalue.link import IceConfig
from bonevalue.names import Names
from bonevalue.relay import NO_ANSWER, NOBODY_THERE
from bonevalue.wire.pacing import Bucket, Pace
from bonevalue.wire.refusals import plain
from bonevalue.wire.signals import IceServer

__all__ = ["Ice"]

#: Seconds that a connection waits for new credentials.
REFRESH_TIME = 2.0
#: Seconds between requests for them; the server answers 6 a minute.
REFRESH_APART = 10.0
#: A credential is not used in its last seconds, nor in the last tenth of its time.
LAST_SECONDS, LAST_PART = 5.0, 0.1
#: What is said of a server that is gone. A port where nobody listens says so at once, but not to each who asks: that
#: is limited to one answer a second.
GONE = (NO_ANSWER, NOBODY_THERE)
#: Seconds after which a server that did not answer is tried again: the first time, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0
#: Seconds that a connection waits for the first of its last servers, and seconds for which it then knows them silent.
LAST_CHANCE, NO_CHANCE = 0.5, 2.0
#: Servers that are looked after; and how often one is tried for the first time, however often the lists change.
MAX_WATCHED = 24
FIRST_TRIES = Pace(per_second=1.0, burst=24.0)
#: Characters of a URL that are told.
MAX_TOLD = 80
EXPIRED = "left out: its credential has expired"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _HandedOut:
    """A server of the discovery server's, and when its credential is not to be used any more; None for never."""

    server: IceServer
    until: float | None


def _part(server: IceServer, urls: list[str]) -> list[IceServer]:
    """A server with some of its URLs; none if there are none."""
    return [IceServer(urls, server.username, server.credential, server.expires)] if urls else []


class _Silent:
    """A server that is gone: why, since when, when it was last asked, and when it will be."""

    def __init__(self, since: float, why: str) -> None:
        self.why = why
        self.since = since
        self.asked = since
        self.pause = FIRST_PAUSE
        self.timer: asyncio.TimerHandle | None = None


def _seconds() -> float:
    """Monotonic seconds, with those in which this machine slept: a credential runs out meanwhile."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Ice:
    """
    What connections are made with.

    Args:
        settings: our own servers, and whether only relays may be used.
        refresh: asks the discovery server for its servers; :meth:`handed_out` is called before it comes back. May
            raise any error of ours.
        ca_file: authorities for the certificates of ``turns:`` servers, beside those of the system.
        clock: monotonic seconds.
        probe: whether a server answers.
    """

    def __init__(
        self,
        settings: IceSettings,
        *,
        refresh: Callable[[], Awaitable[object]],
        ca_file: Path | None = None,
        clock: Callable[[], float] = _seconds,
        probe: Callable[[IceUrl, IceConfig], Awaitable[ServerOutcome]] = probe,
    ) -> None:
        self._relay_only = settings.policy == "relay"
        self._own = tuple(
            IceServer(
                list(entry.urls),
                entry.username,
                entry.credential.get_secret_value() if entry.credential is not None else None,
            )
            for entry in settings.servers
        )
        self._refresh = refresh
        self._ca_file = ca_file
        self._clock = clock
        self._probe = probe
        self._names = Names(clock=clock)
        self._tls: ssl.SSLContext | None = None
        self._handed_out: tuple[_HandedOut, ...] = ()
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed = -REFRESH_APART
        self._watched: set[str] = set()
        self._silent: dict[str, _Silent] = {}
        self._probing: dict[str, asyncio.Task[None]] = {}
        self._first_tries = Bucket(FIRST_TRIES, clock())
        self._is_closed = False

    @property
    def servers(self) -> tuple[IceServer, ...]:
        """Our own servers, then those handed out whose credentials hold."""
        return self._own + tuple(each.server for each in self._handed_out if self._holds(each))

    def handed_out(self, servers: Iterable[IceServer], lifetimes: Iterable[float | None]) -> None:
        """
        The discovery server has told its servers. Must be called in a running event loop.

        Args:
            servers: all of them, in the order in which they are to be tried.
            lifetimes: for each the seconds for which its credential holds, None for ever.
        """
        now = self._clock()
        self._handed_out = tuple(
            _HandedOut(server, None if left is None else now + left - min(LAST_SECONDS, left * LAST_PART))
            for server, left in zip(servers, lifetimes, strict=True)
        )
        known = {url for server in self.servers for url in server.urls}
        for url in self._watched - known:
            self._forget(url)
        for url in self._silent:
            if not self._first_tries.take(self._clock()):
                self._try(url)  # it may be the way to it that is there again, as it is to the discovery server
        self._watch()

    async def config(self) -> IceConfig:
        """What to make the next connection with; waits up to :data:`REFRESH_TIME` if credentials are stale."""
        if not all(map(self._holds, self._handed_out)):
            await self._renew_all()
        self._watch()
        await self._last_chance()
        servers, silent = [], []
        left_out = self._stale()
        for server in self.servers:
            used = [url for url in server.urls if url not in self._silent]
            gone = [url for url in server.urls if url in self._silent]
            servers += _part(server, used)
            silent += _part(server, gone)
            left_out += [] if self._relay_only else map(self._why_left_out, gone)
        # Where there is nothing but relays, those that are gone are tried as well, last.
        return self._config(tuple(servers + (silent if self._relay_only else [])), tuple(left_out))

    def network_changed(self) -> None:
        """Who answers may be another matter now. Must be called in a running event loop."""
        self._names.forget()
        for url in list(self._watched):
            self._forget(url)
        self._watch()

    async def close(self) -> None:
        """End what goes on beside, for good."""
        self._is_closed = True
        tasks = [task for task in (*self._probing.values(), self._refreshing) if task is not None]
        for url in list(self._watched):
            self._forget(url)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _stale(self) -> list[ServerOutcome]:
        """The servers that cannot be used for want of a credential."""
        stale = [each.server for each in self._handed_out if not self._holds(each)]
        return [ServerOutcome(plain(url)[:MAX_TOLD], EXPIRED) for server in stale for url in server.urls][:MAX_WATCHED]

    def _config(self, servers: tuple[IceServer, ...] = (), left_out: tuple[ServerOutcome, ...] = ()) -> IceConfig:
        return IceConfig(
            servers,
            self._relay_only,
            left_out,
            addresses=self._names.addresses,
            tls=self._trusted(),
            on_outcome=self._told,
            renew=self._renewed,
        )

    def _trusted(self) -> ssl.SSLContext | None:
        if self._tls is None and any(url.startswith("turns:") for server in self.servers for url in server.urls):
            self._tls = ssl.create_default_context()
            if self._ca_file is not None:
                self._tls.load_verify_locations(self._ca_file)
        return self._tls

    # -- credentials ---------------------------------------------------------------------------------------------------

    def _holds(self, each: _HandedOut) -> bool:
        return each.until is None or self._clock() < each.until

    async def _renewed(self, refused: IceServer) -> IceServer | None:
        """The same server with another credential than the one that was refused."""
        login = (refused.username, refused.credential)
        if any((own.username, own.credential) == login for own in self._own):
            return None
        if (newer := self._other_login(refused)) is None:
            await self._renew_all()
            newer = self._other_login(refused)
        return newer

    def _other_login(self, refused: IceServer) -> IceServer | None:
        for each in self._handed_out:
            login = (each.server.username, each.server.credential)
            if not set(refused.urls).isdisjoint(each.server.urls) and login != (refused.username, refused.credential):
                return each.server
        return None

    async def _renew_all(self) -> None:
        """Have the discovery server hand out its servers anew; if it does not, nothing changes."""
        if self._refreshing is None:
            if self._clock() - self._refreshed < REFRESH_APART:
                return
            self._refreshed = self._clock()
            self._refreshing = asyncio.get_running_loop().create_task(self._ask_for_servers())
        await asyncio.shield(self._refreshing)

    async def _ask_for_servers(self) -> None:
        try:
            async with asyncio.timeout(REFRESH_TIME):
                await self._refresh()
        except TimeoutError:
            logger.info("no new credentials for TURN servers within %g s", REFRESH_TIME)
        except BoneValueError as error:
            logger.info("no new credentials for TURN servers: %s: %s", error.code, error.message)
        finally:
            self._refreshing = None

    # -- who answers ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Try all servers that have not been tried yet."""
        for url in dict.fromkeys(url for server in self.servers for url in server.urls):
            if url not in self._watched and len(self._watched) < MAX_WATCHED and not self._is_closed:
                self._watched.add(url)
                if not self._first_tries.take(self._clock()):
                    self._try(url)

    def _forget(self, url: str) -> None:
        self._watched.discard(url)
        self._stop_leaving_out(url)
        if (task := self._probing.pop(url, None)) is not None:
            task.cancel()

    async def _last_chance(self) -> None:
        """If no STUN server, or no TURN server, would be left, ask those that are left out once more."""
        if self._relay_only:
            return  # then none is left out
        now = self._clock()
        asked: set[asyncio.Task[None]] = set()
        for is_stun in (True, False):
            urls = {url for server in self.servers for url in server.urls if url.startswith("stun:") == is_stun}
            if urls and urls <= self._silent.keys():
                again = [url for url in urls if now - self._silent[url].asked >= NO_CHANCE]
                asked.update(task for url in again if (task := self._try(url)) is not None)
        if asked:
            await asyncio.wait(asked, timeout=LAST_CHANCE, return_when=asyncio.FIRST_COMPLETED)

    def _try(self, text: str) -> asyncio.Task[None] | None:
        """Find out, beside, whether a server answers; None if it is none that is tried."""
        if text in self._probing:
            return self._probing[text]
        try:
            url = parse_ice_url(text)
        except ValueError:
            return None  # each connection says so
        if self._relay_only and url.is_stun:
            return None
        task = self._probing[text] = asyncio.get_running_loop().create_task(self._ask(url))
        task.add_done_callback(lambda _: self._asked(text, task))
        return task

    async def _ask(self, url: IceUrl) -> None:
        outcome = await self._probe(url, self._config())
        silent = self._silent.get(url.text)
        if silent is None or outcome.outcome not in GONE:
            self._told(outcome)
            return
        silent.asked = self._clock()
        silent.pause = min(silent.pause * 2, LONGEST_PAUSE)
        self._try_later(url.text, silent)

    def _asked(self, text: str, task: asyncio.Task[None]) -> None:
        if self._probing.get(text) is task:
            del self._probing[text]

    def _told(self, outcome: ServerOutcome) -> None:
        """It is known how it went with a server."""
        url = outcome.url
        if url not in self._watched:
            return  # of a list, or a network, of before
        silent = self._silent.get(url)
        if outcome.outcome not in GONE:
            if silent is not None:
                logger.info("ICE server %s answers again", url)
                self._stop_leaving_out(url)
        elif silent is None:
            logger.warning("ICE server %s: %s: left out until it answers", url, outcome.outcome)
            silent = self._silent[url] = _Silent(self._clock(), outcome.outcome)
            self._try_later(url, silent)

    def _try_later(self, url: str, silent: _Silent) -> None:
        if silent.timer is not None:
            silent.timer.cancel()
        silent.timer = asyncio.get_running_loop().call_later(silent.pause, self._try, url)

    def _stop_leaving_out(self, url: str) -> None:
        silent = self._silent.pop(url, None)
        if silent is not None and silent.timer is not None:
            silent.timer.cancel()

    def _why_left_out(self, url: str) -> ServerOutcome:
        silent = self._silent[url]
        return ServerOutcome(url, f"left out for {self._clock() - silent.since:.0f} s: {silent.why}")
