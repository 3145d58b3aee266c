"""The environment over the file: which variable overrides which key, and which overrides none."""

from __future__ import annotations

from pathlib import Path

import pytest

from bonevalue.config import ModuleEntry, PeerSettings
from bonevalue.settings_fields import Endpoint
from bonevalue.settings_units import Rate
from bonevalue_server.config import DiscoverySettings
from tests.support.settings import PEER, faults_of, load, peer_of

SECRET = "Xyzzy-plugh-4711"

FILE_ONLY = PEER + "rpc: {timeout: 40s}\n"


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        (("", {}, 30.0), (FILE_ONLY, {}, 40.0)),  # file over default
        (("", {}, 30.0), (PEER, {"BV_RPC__TIMEOUT": "50s"}, 50.0)),  # environment over default
        ((FILE_ONLY, {}, 40.0), (FILE_ONLY, {"BV_RPC__TIMEOUT": "50s"}, 50.0)),  # environment over file
        ((FILE_ONLY, {}, 40.0), (FILE_ONLY, {"BV_RPC": '{"timeout": 60}'}, 60.0)),  # a whole section over file
        (  # one key over a whole section
            (FILE_ONLY, {"BV_RPC": '{"timeout": 60}'}, 60.0),
            (FILE_ONLY, {"BV_RPC": '{"timeout": 60}', "BV_RPC__TIMEOUT": "70"}, 70.0),
        ),
        (  # environment over interpolation, even of what is not set
            (PEER + "rpc: {timeout: '${T:-45s}'}\n", {}, 45.0),
            (PEER + "rpc: {timeout: '${T}'}\n", {"BV_RPC__TIMEOUT": "50s"}, 50.0),
        ),
        (  # interpolated variable over interpolation default
            (PEER + "rpc: {timeout: '${T:-45s}'}\n", {}, 45.0),
            (PEER + "rpc: {timeout: '${T:-45s}'}\n", {"T": "46s"}, 46.0),
        ),
    ],
)
def test_precedence_of_each_pair_of_sources(
    tmp_path: Path, lower: tuple[str, dict[str, str], float], higher: tuple[str, dict[str, str], float]
) -> None:
    for text, environ, timeout in (lower, higher):
        assert peer_of(tmp_path, text or PEER, environ).rpc.timeout == timeout


def test_the_environment_overrides_any_key(tmp_path: Path) -> None:
    environ = {
        "BV_SERVER__ADDRESS": "wss://example.org",
        "BV_MODULES": '["a.B", {"class": "a.C", "name": "Other"}]',
        "BV_DISCOVERY__LIMITS__MESSAGES": "5/s",
        "BV_DISCOVERY__TLS": "null",
        "BV_DISCOVERY__ORIGINS": '["https://example.org"]',
        "BV_LOG__FORMAT": "json",
        "BV_METRICS": "[::1]:9464",
        "PATH": "/bin",
    }
    loaded = load(tmp_path, PEER + "modules: [x.Y]\ndiscovery: {limits: {peers: 7}}\n", environ)
    peer, discovery = loaded.get(PeerSettings), loaded.get(DiscoverySettings)
    assert peer is not None
    assert discovery is not None
    assert peer.server.address == "wss://example.org"
    assert [entry.class_path for entry in peer.modules if isinstance(entry, ModuleEntry)] == ["a.B", "a.C"]
    assert discovery.limits.messages == Rate(5, 1)
    assert discovery.limits.peers == 7
    assert discovery.origins == ("https://example.org",)
    assert peer.log.format == discovery.log.format == "json"
    assert peer.metrics == discovery.metrics == Endpoint("::1", 9464)


def test_an_object_made_in_code_does_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BV_SERVER__ADDRESS", "wss://elsewhere.example.org")
    data = {"server": {"address": "ws://127.0.0.1"}, "credentials": {"username": "admin", "password": "x"}}
    assert PeerSettings.model_validate(data).server.address == "ws://127.0.0.1"


@pytest.mark.parametrize(
    ("environ", "report"),
    [
        ({"BV_SERVER__ADRESS": "x"}, "BV_SERVER__ADRESS: overrides no key; did you mean BV_SERVER__ADDRESS?"),
        ({"BV_server__address": "x"}, "BV_server__address: overrides no key; did you mean BV_SERVER__ADDRESS?"),
        ({"BV_": "x"}, "BV_: overrides no key"),
        ({"BV_MODULES": "a.B"}, "BV_MODULES: modules: is no JSON: a list or mapping is written as JSON"),
        ({"BV_MODULES": "[" * 100_000}, "BV_MODULES: modules: is no JSON: a list or mapping is written as JSON"),
        ({"BV_POOL__HEARTBEAT": "x"}, "BV_POOL__HEARTBEAT: pool.heartbeat: is no duration: "),
        (
            {"BV_ICE__SERVERS__0__URLS": "x"},
            "BV_ICE__SERVERS__0__URLS: overrides no key: a list is given whole, as JSON",
        ),
    ],
)
def test_faults_of_the_environment_name_the_variable(tmp_path: Path, environ: dict[str, str], report: str) -> None:
    (line,) = faults_of(tmp_path, PEER, environ)
    assert line.startswith(report)


def test_variables_that_the_file_asks_for_are_known(tmp_path: Path) -> None:
    text = PEER.replace("correct horse", "'${BV_PASSWORD:-test}'")
    assert peer_of(tmp_path, text, {"BV_PASSWORD": SECRET}).credentials.password.get_secret_value() == SECRET
    assert faults_of(tmp_path, PEER, {"BV_PASSWORD": SECRET}) == [
        "BV_PASSWORD: overrides no key; did you mean BV_CREDENTIALS__PASSWORD?"
    ]
    # Also if what asks for it is overridden itself.
    environ = {"BV_PASSWORD": "other", "BV_CREDENTIALS__PASSWORD": SECRET}
    assert peer_of(tmp_path, text, environ).credentials.password.get_secret_value() == SECRET


def test_the_environment_declares_no_role(tmp_path: Path) -> None:
    loaded = load(tmp_path, "discovery: {}\n", {"BV_SERVER__ADDRESS": "wss://example.org", "BV_POOL__HEARTBEAT": "1s"})
    assert loaded.get(PeerSettings) is None
    assert loaded.warnings == (
        "BV_POOL__HEARTBEAT: overrides nothing: the file has no section server",
        "BV_SERVER__ADDRESS: overrides nothing: the file has no section server",
    )
