"""
The pages of ``metrics:``: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for whoever watches a process.

Nothing is prepared: a page is made of the counters when it is asked for. Names and labels are ours alone; what other
peers send becomes neither, or each of them could fill the memory of this process and of everybody who scrapes it.

Who may read them: whoever reaches the address, programs that is. Pages in a browser may not: their requests name an
origin or say that they come from another site, and on loopback a foreign ``Host`` gives away a name that was pointed
at this machine for the purpose.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any, Protocol

import uvicorn
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from bonevalue.counters import Counters, Tally
from bonevalue.listening import bind, serve
from bonevalue.settings_fields import Endpoint, is_loopback

__all__ = ["DISCOVERY_COUNTERS", "DISCOVERY_GAUGES", "PEER_COUNTERS", "PEER_GAUGES", "Pages", "Watched"]

#: The counters of a peer, as attributes of :class:`~bonevalue.counters.Counters`. Tallies have the label ``reason``.
PEER_COUNTERS = {
    "calls_made": "Calls to other peers that went out.",
    "calls_served": "Calls of other peers that a module answered.",
    "items_sent": "Items of streams sent.",
    "items_received": "Items of streams received.",
    "refused": "Calls of other peers that ended with an error, by its code.",
    "limited": "How often each limit took effect.",
    "links_dialled": "Links proved that this peer dialled.",
    "links_accepted": "Links proved that others dialled.",
    "links_closed": "Links that ended, by why.",
    "dials_failed": "Attempts to make a link that failed, by code.",
    "offers_refused": "Connection requests of others that came to nothing, by code.",
    "log_lines_left_out": "Lines kept out of the log because there were too many of a kind.",
}
#: What a peer is at, as ``Peer.gauges()`` has it.
PEER_GAUGES = {
    "online": "Whether the peer is logged in to its discovery server.",
    "links": "Links proved and not yet gone.",
    "links_pending": "Links being set up, by this peer and by others.",
    "calls": "Calls under way, both directions.",
    "handlers": "Handlers of modules that are running.",
    "send_buffer_bytes": "Bytes that wait to be sent or acknowledged, all links.",
    "memory_bytes": "Bytes that links hold of long bodies and items.",
    "memory_limit_bytes": "How many bytes they may hold (rpc.memory).",
    "accounts_kept_away": "Accounts that get no link for now, because they broke the rules of one.",
    "loop_lag_seconds": "Longest time in the last seconds for which nothing else could run.",
}
#: The counters of a discovery server, as attributes of its ``counters``. Tallies have the label ``reason``.
DISCOVERY_COUNTERS = {
    "sockets_refused": "Sockets that were not let in, by code.",
    "sockets_closed": "Sockets closed because of what the client did or failed to do, by code.",
    "logins_by_key": "Logins by key.",
    "logins_by_password": "Logins by password.",
    "relayed": "Messages passed on from one peer to another.",
    "refused": "What clients asked for and did not get, by code.",
    "stun_answered": "STUN requests answered.",
    "stun_ignored": "Datagrams to the STUN port that got no answer, by why.",
}
#: What a discovery server is at, as its ``gauges()`` has it.
DISCOVERY_GAUGES = {
    "sockets": "Open sockets of clients.",
    "sockets_pending": "Of these, not logged in yet.",
    "peers_online": "Peers online on this node.",
    "database_well": "Whether the database answered when it was last asked.",
}

_HEADERS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
#: Connections at once; a scraper needs one.
_CONNECTIONS = 32

_Response = tuple[int, bytes, bytes]
_Send = Callable[[dict[str, Any]], Awaitable[None]]


class Watched(Protocol):
    """What has gauges: a peer, a discovery server."""

    def gauges(self) -> Mapping[str, float]:
        """Its numbers at this moment, by name."""
        ...


class _Gauges(Collector):
    def __init__(self, prefix: str, help_of: Mapping[str, str], watched: Watched) -> None:
        self._prefix = prefix
        self._help_of = help_of
        self._watched = watched

    def collect(self) -> Iterable[Metric]:
        for name, value in self._watched.gauges().items():
            yield GaugeMetricFamily(self._prefix + name, self._help_of[name], value=value)


class _Counters(Collector):
    def __init__(self, prefix: str, help_of: Mapping[str, str], counters: object) -> None:
        self._prefix = prefix
        self._help_of = help_of
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        for name, value in vars(self._counters).items():
            if isinstance(value, Tally):
                family = CounterMetricFamily(self._prefix + name, self._help_of[name], labels=["reason"])
                for reason, count in value.items():
                    family.add_metric([reason], count)
            else:
                family = CounterMetricFamily(self._prefix + name, self._help_of[name], value=value)
            yield family


class _Version(Collector):
    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("bonevalue", "What runs here.", value={"version": version("bonevalue")})


class Pages:
    """
    The pages of one process.

    Args:
        endpoint: where to serve them.
        ready: the roles of the process, and whether each is ready for work.
    """

    def __init__(self, endpoint: Endpoint, ready: Callable[[], Mapping[str, bool]]) -> None:
        self._endpoint = endpoint
        self._ready = ready
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Version())
        ProcessCollector(registry=self._registry)
        self._stop: Callable[[], Awaitable[None]] | None = None
        #: The port they are on, once they are served.
        self.port = endpoint.port

    def show_peer(self, peer: Watched, counters: Counters) -> None:
        """Show a peer's numbers from now on."""
        self._registry.register(_Counters("bonevalue_", PEER_COUNTERS, counters))
        self._registry.register(_Gauges("bonevalue_", PEER_GAUGES, peer))

    def show_discovery(self, server: Watched, counters: object) -> None:
        """Show a discovery server's numbers from now on; its counters are attributes, like those of a peer."""
        self._registry.register(_Counters("bonevalue_discovery_", DISCOVERY_COUNTERS, counters))
        self._registry.register(_Gauges("bonevalue_discovery_", DISCOVERY_GAUGES, server))

    async def start(self) -> None:
        """
        Serve them.

        Raises:
            Unavailable: the port is taken.
        """
        listener = bind(self._endpoint, key="metrics")
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._answer,
            http="httptools",
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
        config.load()
        try:
            self._stop = await serve(config, listener, self._endpoint, key="metrics")
        except BaseException:
            listener.close()
            raise

    async def stop(self) -> None:
        """Serve them no more; idempotent."""
        stop, self._stop = self._stop, None
        if stop is not None:
            await stop()

    async def _answer(self, scope: dict[str, Any], receive: Callable[[], Awaitable[object]], send: _Send) -> None:
        status, kind, body = self._page(scope["method"], scope["path"], dict(scope["headers"]))
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *_HEADERS]
        if status == 405:
            headers.append((b"allow", b"GET"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _page(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> _Response:
        if _is_foreign(headers) or (self._endpoint.is_loopback and not _is_for_loopback(headers)):
            return _text(403, "not for pages in a browser")
        if path not in ("/metrics", "/healthz", "/readyz"):
            return _text(404, "here are /metrics, /healthz and /readyz")
        if method != "GET":
            return _text(405, "only GET")
        if path == "/metrics":
            encode, kind = choose_encoder(headers.get(b"accept", b"").decode("latin-1"))
            return 200, kind.encode(), encode(self._registry)
        if path == "/healthz":
            return _json(200, {"status": "ok", "version": version("bonevalue")})
        roles = self._ready()
        is_ready = all(roles.values())
        return _json(200 if is_ready else 503, {"status": "ok" if is_ready else "not ready", **roles})


def _is_foreign(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser asks on behalf of a page."""
    return b"origin" in headers or headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin")


def _is_for_loopback(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the host asked for is this machine by its own name; programs of old name none."""
    name = headers.get(b"host", b"localhost").decode("latin-1")
    return is_loopback(name[: name.rfind("]") + 1] if name.startswith("[") else name.partition(":")[0])


def _text(status: int, text: str) -> _Response:
    return status, b"text/plain; charset=utf-8", f"{text}\n".encode()


def _json(status: int, value: Mapping[str, object]) -> _Response:
    return status, b"application/json", json.dumps(value).encode()
