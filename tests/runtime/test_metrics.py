"""The pages of `metrics:`: what stands on them, and who may not read them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bonevalue.counters import Counters, Tally
from bonevalue.errors import Unavailable
from bonevalue.metrics import DISCOVERY_COUNTERS, DISCOVERY_GAUGES, PEER_COUNTERS, PEER_GAUGES, Pages
from bonevalue.settings_fields import Endpoint
from bonevalue_server.counters import Counters as ServerCounters
from tests.support.waiting import other_tasks

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


class Watched:
    """Something with gauges."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.values = {name: float(number) for number, name in enumerate(names)}

    def gauges(self) -> Mapping[str, float]:
        return self.values


class World:
    """Pages that are served, and what stands on them."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.ready = {"peer": False, "discovery": True}
        self.counters = Counters()
        self.pages = Pages(Endpoint(host, 0), lambda: self.ready)
        self.client = httpx.AsyncClient(trust_env=False)

    async def ask(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        url = f"http://127.0.0.1:{self.pages.port}{path}"
        return await self.client.request(method, url, headers={k.replace("_", "-"): v for k, v in headers.items()})

    async def samples(self) -> dict[str, float]:
        """What Prometheus would read: each series with its value."""
        answer = await self.ask("/metrics")
        assert answer.status_code == 200
        return {
            sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }


@pytest.fixture
async def world() -> AsyncIterator[World]:
    before = other_tasks()
    world = World()
    await world.pages.start()
    yield world
    await world.client.aclose()
    await world.pages.stop()
    await world.pages.stop()
    assert other_tasks() <= before


async def test_a_process_shows_itself_before_its_roles_stand(world: World) -> None:
    samples = await world.samples()
    assert samples["process_resident_memory_bytes"] > 1e6
    assert any(name.startswith("bonevalue_info[") for name in samples)


async def test_every_counter_and_gauge_is_shown_under_its_name(world: World) -> None:
    world.pages.show_peer(Watched(PEER_GAUGES), world.counters)
    of_server = ServerCounters()
    world.pages.show_discovery(Watched(DISCOVERY_GAUGES), of_server)
    of_server.relayed += 7
    of_server.stun_ignored["malformed"] += 3
    of_server.stun_ignored["made up"] += 4
    world.counters.calls_served += 5
    world.counters.refused["busy"] += 2
    samples = await world.samples()
    assert samples["bonevalue_calls_served_total"] == 5
    assert samples["bonevalue_refused_total[busy]"] == 2
    assert samples["bonevalue_refused_total[denied]"] == 0
    assert samples["bonevalue_discovery_relayed_total"] == 7
    assert samples["bonevalue_discovery_stun_ignored_total[malformed]"] == 3
    assert samples["bonevalue_discovery_stun_ignored_total[other]"] == 4
    for number, name in enumerate(PEER_GAUGES):
        assert samples[f"bonevalue_{name}"] == number
    for number, name in enumerate(DISCOVERY_GAUGES):
        assert samples[f"bonevalue_discovery_{name}"] == number
    world.counters.calls_served += 1
    assert (await world.samples())["bonevalue_calls_served_total"] == 6


async def test_no_reason_of_a_remote_peer_becomes_a_series(world: World) -> None:
    world.pages.show_peer(Watched(PEER_GAUGES), world.counters)
    before = set(await world.samples())
    for number in range(100):
        world.counters.offers_refused[f"made up {number}"] += 1
    after = await world.samples()
    assert set(after) == before and after["bonevalue_offers_refused_total[other]"] == 100


async def test_openmetrics_is_spoken_to_who_asks_for_it(world: World) -> None:
    answer = await world.ask("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_health_and_readiness(world: World) -> None:
    answer = await world.ask("/healthz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    answer = await world.ask("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready", "peer": False, "discovery": True})
    world.ready["peer"] = True
    answer = await world.ask("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/", "GET", 404),
        ("/metrics/", "GET", 404),
        ("/metrics/../etc", "GET", 404),
        ("/metrics", "POST", 405),
        ("/metrics", "HEAD", 405),
        ("/healthz", "PUT", 405),
        ("/readyz", "OPTIONS", 405),
    ],
)
async def test_nothing_but_get_on_three_pages(world: World, path: str, method: str, status: int) -> None:
    answer = await world.ask(path, method)
    assert answer.status_code == status
    if status == 405:
        assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:9464"}, 200),
        ({"host": "[::1]:9464"}, 200),
        ({"host": "127.8.9.1"}, 200),
        ({"sec_fetch_site": "none"}, 200),  # typed into the address line
        ({"origin": "https://example.org"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9464"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"host": "example.org"}, 403),  # a name that was pointed at this machine
        ({"host": "127.0.0.1.example.org:9464"}, 403),
        ({"host": "[2001:db8::1]:9464"}, 403),
    ],
)
async def test_pages_in_a_browser_may_not_read_them(world: World, headers: dict[str, str], status: int) -> None:
    for path in ("/metrics", "/healthz", "/readyz"):
        answer = await world.ask(path, **headers)
        assert answer.status_code == (status if path != "/readyz" or status != 200 else 503)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_beyond_loopback_any_host_name_will_do() -> None:
    world = World("0.0.0.0")
    await world.pages.start()
    assert (await world.ask("/healthz", host="peer-7.example.org:9464")).status_code == 200
    assert (await world.ask("/healthz", origin="https://example.org")).status_code == 403
    await world.client.aclose()
    await world.pages.stop()


async def test_a_taken_port_is_one_clear_error(world: World) -> None:
    second = Pages(Endpoint("127.0.0.1", world.pages.port), dict)
    with pytest.raises(Unavailable, match=rf"metrics: cannot listen on 127\.0\.0\.1:{world.pages.port}: the port is"):
        await second.start()
    await second.stop()


def test_the_guide_for_operators_has_every_metric_and_every_limit() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    named = set(re.findall(r"`(bonevalue_[a-z_]+)[`{]", text))
    counters = {f"bonevalue_{name}_total" for name in PEER_COUNTERS} | {
        f"bonevalue_discovery_{name}_total" for name in DISCOVERY_COUNTERS
    }
    assert set(DISCOVERY_COUNTERS) == set(vars(ServerCounters()))
    gauges = {f"bonevalue_{name}" for name in PEER_GAUGES} | {
        f"bonevalue_discovery_{name}" for name in DISCOVERY_GAUGES
    }
    assert counters | gauges | {"bonevalue_info"} == named
    tallies = {name: value for name, value in vars(Counters()).items() if isinstance(value, Tally)}
    tallies["stun_ignored"] = ServerCounters().stun_ignored
    for name in ("limited", "links_closed", "stun_ignored"):
        for reason in tallies[name]:
            assert f"`{reason}`" in text, (name, reason)


def test_every_counter_has_its_text() -> None:
    assert set(PEER_COUNTERS) == set(vars(Counters()))
