"""The pages of `metrics:` and `bv.stats`, of a real `bv-run`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bonevalue.counters import Counters
from bonevalue.metrics import DISCOVERY_GAUGES, PEER_COUNTERS, PEER_GAUGES
from tests.support.processes import Daemon, both_roles, bv, daemons, free_port, peer_role, write_module, write_yaml


@pytest.fixture
def running() -> Iterator[list[Daemon]]:
    """Daemons of a test, ended at its end."""
    with daemons() as started:
        yield started


def ask(port: int, page: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{page}", trust_env=False)


def test_a_daemon_shows_what_it_is_at(tmp_path: Path, running: list[Daemon]) -> None:
    write_module(tmp_path)
    port = free_port()
    settings = both_roles(free_port(), modules=["modules.echo.Echo"], metrics=f"127.0.0.1:{port}")
    daemon = Daemon(write_yaml(tmp_path / "bonevalue.yaml", settings))
    running.append(daemon)
    daemon.wait_for(f"metrics on http://127.0.0.1:{port}/metrics")
    assert ask(port, "/healthz").status_code == 200
    daemon.wait_for("online as admin")
    answer = ask(port, "/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "peer": True, "discovery": True})
    assert bv("call", "Us", "My.Echo.Module", '{"text": "Friday"}', folder=tmp_path).code == 0
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(ask(port, "/metrics").text)
        for sample in family.samples
        if not sample.labels
    }
    assert samples["bonevalue_calls_served_total"] == 1
    assert samples["bonevalue_online"] == 1 <= samples["bonevalue_discovery_peers_online"]  # `bv` may just be leaving
    for name in PEER_GAUGES:
        assert f"bonevalue_{name}" in samples
    for name in DISCOVERY_GAUGES:
        assert f"bonevalue_discovery_{name}" in samples
    (stats,) = bv("call", "Us", "bv.stats", "--json", folder=tmp_path).json[:1]
    assert stats["response"]["counters"]["links_accepted"] >= 1  # the one of this call may not be counted yet
    assert set(stats["response"]["counters"]) == set(PEER_COUNTERS) == set(vars(Counters()))
    assert set(stats["response"]["gauges"]) == set(PEER_GAUGES)
    assert daemon.stop() == 0


def test_one_that_is_not_online_is_not_ready(tmp_path: Path, running: list[Daemon]) -> None:
    port = free_port()
    daemon = Daemon(write_yaml(tmp_path / "bonevalue.yaml", peer_role(free_port(), metrics=f"127.0.0.1:{port}")))
    running.append(daemon)
    daemon.wait_for("cannot reach the discovery server")
    answer = ask(port, "/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready", "peer": False})
    twin = Daemon(daemon.file)
    running.append(twin)
    assert twin.wait() == 1
    assert f"metrics: cannot listen on 127.0.0.1:{port}: the port is taken by another program" in twin.output
    assert "Traceback" not in twin.output
