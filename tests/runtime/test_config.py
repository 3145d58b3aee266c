"""The settings of a peer: addresses, modules, ICE servers, and the rules between keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bonevalue.config import Address, FolderEntry, ModuleEntry, PeerSettings
from bonevalue.settings_fields import IceServerEntry, Section, sections_of
from bonevalue.wire.keys import fingerprint
from bonevalue_server.config import DiscoverySettings
from tests.support.settings import PEER, faults_of, peer_of

CREDENTIALS = "credentials: {username: admin, password: x}\n"


def test_the_defaults_are_those_of_the_documentation(tmp_path: Path) -> None:
    peer = peer_of(tmp_path, PEER)
    assert peer.model_dump(mode="json", exclude={"credentials"}) == {
        "server": {"address": "ws://127.0.0.1:8008", "realm": None, "ca_file": None, "insecure": False},
        "modules": [],
        "pool": {
            "max_outgoing": 64,
            "max_incoming": 256,
            "connect_timeout": "20s",
            "idle_timeout": "1m",
            "heartbeat": "5s",
        },
        "ice": {"servers": [], "policy": "all"},
        "rpc": {
            "timeout": "30s",
            "max_timeout": "10m",
            "max_body": "8MiB",
            "max_calls": 1024,
            "queue": 1024,
            "memory": "64MiB",
            "send_buffer": "4MiB",
            "stall_timeout": "30s",
        },
        "trust": {"refuse": []},
        "metrics": None,
        "log": {"level": "info", "format": "console"},
    }


@pytest.mark.parametrize("role", [PeerSettings, DiscoverySettings])
def test_every_key_is_described_and_every_section_is_frozen(role: type[Section]) -> None:
    waiting: list[type[Section]] = [role]
    while waiting:
        section = waiting.pop()
        assert section.model_config.get("frozen"), section
        assert section.model_config.get("extra") == "forbid", section
        assert section.__doc__, section
        for key, info in section.key_fields().items():
            assert info.description, f"{section.__name__}.{key}"
            assert info.description.endswith("."), f"{section.__name__}.{key}"
            waiting += sections_of(info.annotation)


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    peer = peer_of(tmp_path, PEER)
    with pytest.raises(ValidationError, match="frozen"):
        peer.pool.heartbeat = 1.0  # type: ignore[misc]


def test_what_is_needed_is_named(tmp_path: Path) -> None:
    assert faults_of(tmp_path, "server: {}\n") == [
        "bonevalue.yaml:1: server.address: is missing",
        "bonevalue.yaml:1: credentials: is missing",
    ]
    assert faults_of(tmp_path, "server: {address: localhost}\ncredentials:\n  username: a\n") == [
        "bonevalue.yaml:2: credentials.password: is missing"
    ]


# -- addresses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "url", "realm"),
    [
        ("ws://127.0.0.1:8008", "ws://127.0.0.1:8008", "localhost"),
        ("wss://example.org", "wss://example.org", "example.org"),
        ("example.org", "wss://example.org", "example.org"),
        ("Example.org:8443", "wss://Example.org:8443", "example.org"),
        ("localhost", "ws://localhost", "localhost"),
        ("127.9.9.9:8008", "ws://127.9.9.9:8008", "localhost"),
        ("[::1]:8008", "ws://[::1]:8008", "localhost"),
        ("wss://[2001:db8::1]", "wss://[2001:db8::1]", "2001:db8::1"),
        ("wss://example.org/bv", "wss://example.org/bv", "example.org"),
        ("wss://bücher.example", "wss://bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_addresses(written: str, url: str, realm: str) -> None:
    address = Address.parse(written)
    assert (address.url, address.realm) == (url, realm)
    assert address.secure is url.startswith("wss:")
    assert address.is_loopback is (realm == "localhost")


@pytest.mark.parametrize(
    "written",
    [
        "",
        "http://a",
        "ws://",
        "wss://a:99999",
        "wss://user:pw@a",
        "wss://a?x",
        "wss://a#x",
        "a b",
        "wss://[::g]",
        "a/b c",
    ],
)
def test_what_is_no_address(tmp_path: Path, written: str) -> None:
    with pytest.raises(ValueError, match="is no server address"):
        Address.parse(written)
    (report,) = faults_of(tmp_path, f"server: {{address: '{written}'}}\n{CREDENTIALS}")
    assert report.startswith("bonevalue.yaml:1: server.address: is no server address")


def test_unencrypted_beyond_loopback_must_be_wanted(tmp_path: Path) -> None:
    assert faults_of(tmp_path, f"server:\n  address: ws://example.org\n  insecure: false\n{CREDENTIALS}") == [
        "bonevalue.yaml:3: server.insecure: must be true to let ws:// leave this machine, unencrypted; better use wss://"
    ]
    assert len(faults_of(tmp_path, f"server: {{address: ws://192.168.1.1}}\n{CREDENTIALS}")) == 1
    for address, insecure in [("ws://example.org", "true"), ("wss://example.org", "false"), ("ws://[::1]:1", "false")]:
        peer_of(tmp_path, f"server: {{address: '{address}', insecure: {insecure}}}\n{CREDENTIALS}")


def test_the_realm_is_put_in_its_canonical_form(tmp_path: Path) -> None:
    assert (
        peer_of(tmp_path, f"server: {{address: a, realm: Example.ORG.}}\n{CREDENTIALS}").server.realm == "example.org"
    )


def test_a_certificate_authority_must_be_there(tmp_path: Path) -> None:
    assert faults_of(tmp_path, f"server: {{address: a, ca_file: ca.pem}}\n{CREDENTIALS}") == [
        "bonevalue.yaml:1: server.ca_file: names a file that does not exist"
    ]


# -- modules ---------------------------------------------------------------------------------------------------


def test_modules_in_short_and_long_form_and_by_folder(tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    text = PEER + (
        "modules:\n"
        "  - a.b.C\n"
        "  - a.b:C\n"
        "  - {class: a.B, name: Team.Files, allow: [us, Bob, '*'], concurrency: 8, config: {root: ./public}}\n"
        "  - folder: modules\n"
    )
    short, colon, long, folder = peer_of(tmp_path, text).modules
    assert short == ModuleEntry.model_validate("a.b.C")
    assert isinstance(short, ModuleEntry)
    assert (short.class_path, short.name, short.allow, short.concurrency, short.config) == (
        "a.b.C",
        None,
        ("*",),
        64,
        {},
    )
    assert isinstance(colon, ModuleEntry)
    assert colon.class_path == "a.b:C"
    assert isinstance(long, ModuleEntry)
    assert (long.name, long.allow, long.concurrency) == ("Team.Files", ("Us", "bob", "*"), 8)
    assert long.config == {"root": "./public"}
    assert folder == FolderEntry.model_construct(folder=tmp_path / "modules")


@pytest.mark.parametrize(
    ("entry", "report"),
    [
        ("{name: x}", "modules[0].class: is missing"),
        ("{class: a.B, nam: x}", "modules[0].nam: unknown key; did you mean name?"),
        ("{folder: ., name: x}", "modules[0].name: unknown key"),
        ("{class: C}", "modules[0].class: is no import path of a class: write package.module.Class"),
        ("../a.py", "modules[0].class: is no import path of a class: write package.module.Class"),
        ("{class: a.B, name: bv.x}", "modules[0].name: begins with bv., which is kept for the platform's own modules"),
        ("{class: a.B, concurrency: 0}", "modules[0].concurrency: must be at least 1"),
        ("{class: a.B, rate: 0}", "modules[0].rate: must be at least 0.001"),
        ("{class: a.B, rate: fast}", "modules[0].rate: must be a number"),
        ("{class: a.B, allow: bob}", "modules[0].allow: must be a list"),
        ("{class: a.B, config: []}", "modules[0].config: must be a mapping of keys to values"),
        ("{class: a.B, class_path: a.B}", "modules[0].class_path: unknown key; did you mean class?"),
        ("null", "modules[0]: must be a mapping of keys to values"),
    ],
)
def test_wrong_modules(tmp_path: Path, entry: str, report: str) -> None:
    assert faults_of(tmp_path, f"{PEER}modules:\n  - {entry}\n") == [f"bonevalue.yaml:4: {report}"]


def test_two_modules_of_one_name_are_a_fault_also_beside_another(tmp_path: Path) -> None:
    text = PEER + "modules:\n  - {class: a.B, name: x}\n  - {class: 1}\n  - {class: a.C, name: x}\n"
    assert faults_of(tmp_path, text) == [
        "bonevalue.yaml:5: modules[1].class: must be text: put it in quotes",
        "bonevalue.yaml:6: modules[2].name: is the name of an earlier module, too",
    ]


# -- the rest --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "urls",
    ["stun:a", "stun:[2001:db8::1]:3478", "turn:a.example:3478?transport=udp", "turns:a:443?transport=tcp", ["stun:a"]],
)
def test_ice_servers(urls: str | list[str]) -> None:
    server = IceServerEntry.model_validate({"urls": urls, "username": "u", "credential": "c"})
    assert server.urls == ((urls,) if isinstance(urls, str) else tuple(urls))


@pytest.mark.parametrize(
    "entry",
    [
        {"urls": "http://a"},
        {"urls": "stun:a:99999"},
        {"urls": "stun:a?transport=udp"},
        {"urls": "turn:a?transport=tls", "username": "u", "credential": "c"},
        {"urls": []},
        {"urls": "turn:a"},
        {"urls": "turn:a", "username": "u"},
        {"urls": "turn:a", "credential": "c"},
        {"urls": ["stun:a", "turns:a"]},
    ],
)
def test_wrong_ice_servers(entry: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        IceServerEntry.model_validate(entry)


def test_fingerprints_to_refuse_are_put_in_their_canonical_form(tmp_path: Path) -> None:
    print_ = fingerprint(b"k" * 32)
    text = f"{PEER}trust: {{refuse: ['{print_.upper().replace('-', ' ')}']}}\n"
    assert peer_of(tmp_path, text).trust.refuse == (print_,)


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ("rpc: {timeout: 11m}", "rpc.timeout: must be at most 10m"),
        ("rpc: {timeout: 0}", "rpc.timeout: must be more than 0s"),
        ("rpc: {timeout: 20s, max_timeout: 10s}", "rpc.max_timeout: is shorter than rpc.timeout"),
        ("rpc: {max_timeout: 10s}", "rpc.max_timeout: is shorter than rpc.timeout"),
        ("rpc: {max_timeout: 11m}", "rpc.max_timeout: must be at most 10m"),
        ("rpc: {max_body: 17MiB}", "rpc.max_body: must be at most 16MiB"),
        ("rpc: {max_calls: 0}", "rpc.max_calls: must be at least 1"),
        ("rpc: {queue: -1}", "rpc.queue: must be at least 0"),
        ("rpc: {memory: 15MiB}", "rpc.memory: is less than twice rpc.max_body"),
        ("rpc: {send_buffer: 1KiB}", "rpc.send_buffer: must be at least 256KiB"),
        ("rpc: {stall_timeout: 10ms}", "rpc.stall_timeout: must be at least 1s"),
        ("metrics: 9464", "metrics: is no host:port: write 127.0.0.1:8008, 0.0.0.0:8008 or [::1]:8008"),
        ("pool: {max_outgoing: 0}", "pool.max_outgoing: must be at least 1"),
        ("pool: {heartbeat: 1ms}", "pool.heartbeat: must be at least 50ms"),
        ("ice: {policy: some}", "ice.policy: must be 'all' or 'relay'"),
        ("log: {format: xml}", "log.format: must be 'console' or 'json'"),
        ("credentials: {username: a, password: 12345}", "credentials.password: must be text: put it in quotes"),
        ("credentials: {username: a, password: ''}", "credentials.password: is empty"),
    ],
)
def test_values_out_of_range(tmp_path: Path, text: str, report: str) -> None:
    lines = [line for line in PEER.splitlines() if line.partition(":")[0] != text.partition(":")[0]]
    assert faults_of(tmp_path, "\n".join([*lines, text])) == [f"bonevalue.yaml:{len(lines) + 1}: {report}"]


def test_errors_of_pydantic_itself_show_no_value() -> None:
    with pytest.raises(ValidationError) as caught:
        PeerSettings.model_validate({"server": {"address": "hunter2"}, "credentials": {"password": ["hunter2"]}})
    assert "hunter2" not in str(caught.value)
