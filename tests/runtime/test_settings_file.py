"""The loader of the settings file: YAML, marks, environment, interpolation, secrets, and the report of faults."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from bonevalue import settings_file
from bonevalue.config import ModuleEntry, PeerSettings
from bonevalue.errors import ConfigError, Fault
from bonevalue.settings_fields import Rate, duration_text, parse_duration, parse_size, size_text
from bonevalue.settings_tree import MAX_NODES, Node, Source, node_of, parse
from bonevalue_server.config import DiscoverySettings
from tests.support.settings import PEER, ROLES, faults_of, load, peer_of, write

SECRET = "Xyzzy-plugh-4711"


# -- YAML ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ("", "bonevalue.yaml: is empty"),
        ("# nothing\n", "bonevalue.yaml: is empty"),
        ("just words", "bonevalue.yaml:1: must be a mapping of keys to values"),
        ("- a\n- b\n", "bonevalue.yaml:1: must be a mapping of keys to values"),
        ("server: [1, 2\n", "bonevalue.yaml:2: is no YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: b\n---\nc: d\n", "bonevalue.yaml:2: holds more than one YAML document"),
        ("a: 1\n? [x]\n: 2\n", "bonevalue.yaml:2: a key must be a word"),
        ("a: *nobody\n", "bonevalue.yaml:1: no such anchor: quote a value that begins with *"),
        ("a: &x [*x]\n", "bonevalue.yaml:1: no such anchor: quote a value that begins with *"),
        ("a: !!python/object:os.system x\n", "bonevalue.yaml:1: tags are not taken: quote a value that begins with !"),
        ("a: !secret!word\n", "bonevalue.yaml:1: is no YAML: quote a value that begins with !"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "bonevalue.yaml:3: merge keys (<<) are not taken"),
        ("a: " + "[" * 40 + "]" * 40, "bonevalue.yaml:1: is nested more than 32 deep"),
        ("a: b: c\n", "bonevalue.yaml:1: is no YAML: a colon where none may stand (quote the value if it holds one)"),
        ("a: 1\nb: \x07\n", "bonevalue.yaml:2: is no YAML: holds a control character"),
        ('a: "\\UFFFFFFFF"\n', "bonevalue.yaml:1: is no YAML"),
    ],
)
def test_what_is_no_yaml_mapping_is_one_fault(tmp_path: Path, text: str, report: str) -> None:
    assert faults_of(tmp_path, text) == [report]


def test_aliases_are_taken_but_not_a_bomb_of_them(tmp_path: Path) -> None:
    peer = peer_of(tmp_path, PEER + "pool: {connect_timeout: &t 7s, idle_timeout: *t}\n")
    assert (peer.pool.connect_timeout, peer.pool.idle_timeout) == (7.0, 7.0)
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
    assert f"holds more than {MAX_NODES} values" in faults_of(tmp_path, bomb)[0]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b"# " + b"x" * 2**20), "is larger than 1 MiB"),
        (lambda path: path.write_bytes(b"a: 1\nb: \xff\n"), "is not UTF-8 in line 2"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_fault(tmp_path: Path, make: Callable[[Path], Any], problem: str) -> None:
    path = write(tmp_path, PEER)
    make(path)
    with pytest.raises(ConfigError) as caught:
        settings_file.load(path, ROLES, environ={})
    assert caught.value.faults == (Fault(str(path), None, "", problem),)
    with pytest.raises(ConfigError, match="no such path"):
        settings_file.load("a\0b", ROLES, environ={})


def test_plain_words_are_read_by_yaml_1_2() -> None:
    text = (
        "{a: no, b: 1:30, c: 0123, d: 1_000, e: 0x1F, f: 1.5, g: ~, h: 'true', i: TRUE, j: .inf, k: 1e3, l: 2026-01-01}"
    )
    tree = parse(text, place="x", report=lambda *fault: pytest.fail(str(fault)))
    assert tree is not None
    assert tree.plain == {
        "a": "no",
        "b": "1:30",
        "c": 123,
        "d": "1_000",
        "e": 31,
        "f": 1.5,
        "g": None,
        "h": "true",
        "i": True,
        "j": ".inf",
        "k": 1000.0,
        "l": "2026-01-01",
    }


def test_a_key_that_stands_twice_is_a_fault(tmp_path: Path) -> None:
    text = PEER + "pool:\n  heartbeat: 5s\n  idle_timeout: 9s\n  heartbeat: 6s\n"
    assert faults_of(tmp_path, text) == ["bonevalue.yaml:6: pool.heartbeat: stands twice; the first is in line 4"]


def test_a_byte_order_mark_and_null_are_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff" + PEER + "pool:\n  # heartbeat: 5s\nmodules: null\nice: {servers: ~}\n")
    peer = settings_file.load(path, ROLES, environ={}).get(PeerSettings)
    assert peer is not None
    assert (peer.pool.heartbeat, peer.modules, peer.ice.servers) == (5.0, (), ())


# -- roles and keys --------------------------------------------------------------------------------------------


def test_a_file_declares_one_role_or_both(tmp_path: Path) -> None:
    discovery = "discovery: {listen: '127.0.0.1:0'}\n"
    assert {name for name, found in load(tmp_path, PEER).settings.items() if found} == {"peer"}
    assert {name for name, found in load(tmp_path, discovery).settings.items() if found} == {"discovery"}
    both = load(tmp_path, PEER + discovery + "log: {level: debug}\n")
    assert {type(found) for found in both.settings.values()} == {PeerSettings, DiscoverySettings}
    assert {found.log.level for found in both.settings.values() if found} == {"debug"}
    assert load(tmp_path, "discovery:\n").get(DiscoverySettings) is not None


def test_only_the_roles_asked_for_are_looked_at(tmp_path: Path) -> None:
    text = PEER + "discovery: {listen: nowhere, database: '${UNSET}', accounts: 7}\n"
    loaded = load(tmp_path, text, only=["peer"])
    assert loaded.get(PeerSettings) is not None
    assert loaded.settings["discovery"] is None
    with pytest.raises(ConfigError, match="declares no discovery: it has no section discovery"):
        load(tmp_path, PEER, only=["discovery"])


@pytest.mark.parametrize(
    ("text", "reports"),
    [
        (
            "log: {level: info}\n",
            ["bonevalue.yaml:1: declares no role: the section server makes it a peer, discovery makes it a discovery"],
        ),
        (PEER + "poll: {}\n", ["bonevalue.yaml:3: poll: unknown key; did you mean pool?"]),
        (PEER + "zzzzzz: 1\n", ["bonevalue.yaml:3: zzzzzz: unknown key"]),
        (PEER + "pool: {hartbeat: 1s}\n", ["bonevalue.yaml:3: pool.hartbeat: unknown key; did you mean heartbeat?"]),
        (PEER + "metrics: null\n", ["bonevalue.yaml:3: metrics: unknown key"]),
        (
            "discovery: {}\npool: {}\n",
            ["bonevalue.yaml:2: pool: is for a peer, and there is no section server"],
        ),
        (
            "discovery:\n  log: {level: info}\n",
            ["bonevalue.yaml:2: discovery.log: unknown key; log stands at the top level"],
        ),
        ("discovery: [1]\n", ["bonevalue.yaml:1: discovery: must be a mapping of keys to values"]),
        ("discovery:\n  limit: {}\n", ["bonevalue.yaml:2: discovery.limit: unknown key; did you mean limits?"]),
        (PEER + '"\\e[31m": 1\n', ["bonevalue.yaml:3: '\\x1b[31m': unknown key"]),
    ],
)
def test_unknown_and_misplaced_keys_are_refused(tmp_path: Path, text: str, reports: list[str]) -> None:
    assert faults_of(tmp_path, text) == reports


def test_every_fault_is_reported_at_once_with_file_line_and_key(tmp_path: Path) -> None:
    text = """\
    servr: 1
    server:
      adress: ws://x
      address: ws://example.org
      realm: a b
      insecure: maybe
    credentials:
      username: us
      password: one
      password_file: two
    modules:
      - modules.echo.Echo
      - 5
      - class: no
        nam: x
      - {class: a.B, name: x, allow: [Us, '1'], concurrency: 0}
      - {class: a.C, name: x}
      - folder: nowhere
    pool: {max_outgoing: many, heartbeat: 5x}
    rpc:
      timeout: ${UNSET}
      max_body: 1 PB
    ice:
      servers:
        - {urls: 'turn:a', username: x}
        - urls: [stun:a, http://a]
    trust: {refuse: [abc]}
    discovery:
      listen: 0.0.0.0:8008
      relam: x
      accounts:
        - {username: admin, password: test}
        - {username: admin}
      limits: {messages: 3}
    log: {level: loud}
    """
    name = "1 to 32 of a-z 0-9 _ . -, not all digits, not us"
    assert faults_of(tmp_path, text, {"BV_PASWORD": "x", "BV_SERVER__RELM": "x", "BV_MODULES__0": "x"}) == [
        "bonevalue.yaml:1: servr: unknown key; did you mean server?",
        "bonevalue.yaml:3: server.adress: unknown key; did you mean address?",
        "bonevalue.yaml:5: server.realm: is no host name",
        "bonevalue.yaml:6: server.insecure: must be true or false",
        f"bonevalue.yaml:8: credentials.username: is no username: {name}",
        "bonevalue.yaml:10: credentials.password_file: is given beside password: keep one or the other",
        "bonevalue.yaml:13: modules[1]: must be a mapping of keys to values",
        "bonevalue.yaml:14: modules[2].class: is no import path of a class: write package.module.Class",
        "bonevalue.yaml:15: modules[2].nam: unknown key; did you mean name?",
        f"bonevalue.yaml:16: modules[3].allow[1]: is no alias, Us or *: an alias is {name}",
        "bonevalue.yaml:16: modules[3].concurrency: must be at least 1",
        "bonevalue.yaml:18: modules[5].folder: names a folder that does not exist",
        "bonevalue.yaml:19: pool.max_outgoing: must be a whole number",
        "bonevalue.yaml:19: pool.heartbeat: is no duration: write 250ms, 20s, 5m, 1h, 7d, or a number of seconds",
        "bonevalue.yaml:21: rpc.timeout: the environment variable UNSET is not set",
        "bonevalue.yaml:22: rpc.max_body: is no size: write 64KiB, 8MiB, 1MB, or a number of bytes",
        "bonevalue.yaml:25: ice.servers[0].credential: is missing: a TURN server needs username and credential",
        "bonevalue.yaml:26: ice.servers[1].urls[1]: is no ICE URL: "
        "write stun:HOST:PORT, turn:HOST:PORT?transport=udp or turns:HOST:PORT",
        "bonevalue.yaml:27: trust.refuse[0]: is no key fingerprint",
        "bonevalue.yaml:28: discovery.realm: is missing: "
        "set the public host name of this server; accounts are bound to it for ever",
        "bonevalue.yaml:30: discovery.relam: unknown key; did you mean realm?",
        "bonevalue.yaml:32: discovery.accounts[0].password: is too weak to be reached from other machines: "
        "under 10 characters, or among the common ones",
        "bonevalue.yaml:33: discovery.accounts[1].password: is missing: "
        "an account has a password, or public_key and login_hash",
        "bonevalue.yaml:34: discovery.limits.messages: is no rate: "
        "write 20/s, 60/m, 3/h, 10/10m (ten in ten minutes), or 20/s burst 256",
        "bonevalue.yaml:35: log.level: must be 'debug', 'info', 'warning' or 'error'",
        "BV_MODULES__0: overrides no key: a list is given whole, as JSON in BV_MODULES",
        "BV_PASWORD: overrides no key",
        "BV_SERVER__RELM: overrides no key; did you mean BV_SERVER__REALM?",
    ]


def test_later_steps_add_to_the_same_report(tmp_path: Path) -> None:
    class Config(BaseModel):
        root: str
        depth: int = 1

    text = PEER + "modules:\n  - a.B\n  - class: a.C\n    config:\n      depth: deep\n  - 7\npool: {heartbeat: x}\n"
    loaded = settings_file.read(write(tmp_path, text), ROLES, environ={})
    assert loaded.get(PeerSettings) is None
    entries = loaded.sound("peer", "modules")
    assert [(path, entry.class_path) for path, entry in entries] == [
        (("modules", 0), "a.B"),
        (("modules", 1), "a.C"),
    ]
    loaded.faults.add((*entries[0][0], "class"), "cannot import a: no such file")
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(entries[1][1].config)
    loaded.faults.add_errors(caught.value, (*entries[1][0], "config"), model=Config)
    with pytest.raises(ConfigError) as report:
        loaded.faults.check()
    assert report.value.message.replace(f"{tmp_path}/", "").splitlines() == [
        "bonevalue.yaml:4: modules[0].class: cannot import a: no such file",
        "bonevalue.yaml:6: modules[1].config.root: is missing",
        "bonevalue.yaml:7: modules[1].config.depth: must be a whole number",
        "bonevalue.yaml:8: modules[2]: must be a mapping of keys to values",
        "bonevalue.yaml:9: pool.heartbeat: is no duration: write 250ms, 20s, 5m, 1h, 7d, or a number of seconds",
    ]


# -- ${VAR} ----------------------------------------------------------------------------------------------------


def test_variables_are_replaced_in_any_value(tmp_path: Path) -> None:
    text = PEER + (
        "modules:\n  - {class: a.B, concurrency: '${N}', allow: ['${WHO:-bob}'], config: {url: 'http://${HOST}:${PORT:-80}/'}}\n"
        "  - {class: a.C, config: {text: '$${HOST} $HOST ${EMPTY:-x} ${EMPTY}.', list: ['${HOST}']}}\n"
    )
    peer = peer_of(tmp_path, text, {"N": "3", "HOST": "h${N}", "EMPTY": ""})
    first, second = peer.modules
    assert isinstance(first, ModuleEntry)
    assert isinstance(second, ModuleEntry)
    assert (first.concurrency, first.allow, first.config) == (3, ("bob",), {"url": "http://h${N}:80/"})
    assert second.config == {"text": "${HOST} $HOST x .", "list": ["h${N}"]}


def test_what_a_variable_holds_stays_text(tmp_path: Path) -> None:
    text = "server: {address: ws://127.0.0.1}\ncredentials: {username: admin, password: '${P}'}\n"
    assert peer_of(tmp_path, text, {"P": "0012345678"}).credentials.password.get_secret_value() == "0012345678"


def test_an_unset_variable_and_a_broken_one_are_faults(tmp_path: Path) -> None:
    text = PEER + "log:\n  level: ${UNSET}\n  format: ${broken\n"
    assert faults_of(tmp_path, text) == [
        "bonevalue.yaml:4: log.level: the environment variable UNSET is not set",
        "bonevalue.yaml:5: log.format: holds ${ without a name and }: "
        "write ${NAME}, ${NAME:-default}, or $${ for the text ${",
    ]


# -- the environment -------------------------------------------------------------------------------------------

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


# -- secrets ---------------------------------------------------------------------------------------------------

BY_FILE = "server: {address: ws://127.0.0.1}\ncredentials:\n  username: admin\n  password_file: secrets/pw\n"


def secret_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    """`secrets/pw` below a folder."""
    path = folder / "secrets" / "pw"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [b"s3cret", b"s3cret\n", b"s3cret\r\n"])
def test_a_secret_may_stand_in_a_file_of_its_own(tmp_path: Path, content: bytes) -> None:
    secret_file(tmp_path, content)
    loaded = load(tmp_path, BY_FILE)
    peer = loaded.get(PeerSettings)
    assert peer is not None
    assert peer.credentials.password.get_secret_value() == "s3cret"
    assert loaded.warnings == ()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_secret_file_that_others_may_read_is_warned_about(tmp_path: Path, mode: int) -> None:
    secret_file(tmp_path, b"s3cret", mode)
    (warning,) = load(tmp_path, BY_FILE).warnings
    assert warning == (
        f"{tmp_path}/bonevalue.yaml:4: credentials.password_file: other users may read this file: chmod 600 it"
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "names an empty file"),
        (b"\n", "names an empty file"),
        (b"\xff", "names a file that is not UTF-8"),
        (b"x" * 5000, "names a file of more than 4096 bytes"),
        (None, "names a file that does not exist"),
    ],
)
def test_a_secret_file_with_no_secret_is_one_fault(tmp_path: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        secret_file(tmp_path, content)
    assert faults_of(tmp_path, BY_FILE) == [f"bonevalue.yaml:4: credentials.password_file: {problem}"]


def test_of_a_secret_and_its_file_the_environment_wins(tmp_path: Path) -> None:
    path = secret_file(tmp_path, b"from file")
    by_value = BY_FILE.replace("password_file: secrets/pw", "password: in yaml")
    for text, environ, password in [
        (BY_FILE, {"BV_CREDENTIALS__PASSWORD": "from environment"}, "from environment"),
        (by_value, {"BV_CREDENTIALS__PASSWORD_FILE": str(path)}, "from file"),
        (by_value, {"BV_CREDENTIALS__PASSWORD": "from environment"}, "from environment"),
    ]:
        assert peer_of(tmp_path, text, environ).credentials.password.get_secret_value() == password
    both = {"BV_CREDENTIALS__PASSWORD": "x", "BV_CREDENTIALS__PASSWORD_FILE": str(path)}
    assert faults_of(tmp_path, by_value, both) == [
        "BV_CREDENTIALS__PASSWORD_FILE: credentials.password_file: is given beside password: keep one or the other"
    ]


def test_every_secret_has_a_file(tmp_path: Path) -> None:
    path = secret_file(tmp_path, b"sqlite:///of-the-file.db")
    text = PEER + (
        "ice:\n  servers:\n    - {urls: 'turn:a', username: b, credential_file: secrets/pw}\n"
        "discovery:\n  database_file: secrets/pw\n"
        f"  accounts:\n    - {{username: bob, password_file: {path}}}\n"
    )
    loaded = load(tmp_path, text)
    peer, discovery = loaded.get(PeerSettings), loaded.get(DiscoverySettings)
    assert peer is not None
    assert discovery is not None
    assert peer.ice.servers[0].credential is not None
    assert peer.ice.servers[0].credential.get_secret_value() == "sqlite:///of-the-file.db"
    assert discovery.database.get_secret_value() == f"sqlite:///{tmp_path}/of-the-file.db"
    assert discovery.accounts[0].password is not None
    assert discovery.accounts[0].password.get_secret_value() == "sqlite:///of-the-file.db"


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    text = f"""\
    server: {{address: ws://127.0.0.1}}
    credentials: {{username: admin, password: "{SECRET}"}}
    modules:
      - class: a.B
        config: {{api_key: "{SECRET}", deep: [{{db_password: "{SECRET}", url: "amqp://me:{SECRET}@host/"}}], n: 1}}
    ice: {{servers: [{{urls: "turn:a", username: u, credential: "{SECRET}"}}]}}
    discovery:
      database: sqlite:///{SECRET}.db
      accounts:
        - {{username: admin, password: "{SECRET}"}}
        - {{username: bob, public_key: {"A" * 43}, login_hash: "$2b$12${"x" * 53}"}}
    """
    loaded = load(tmp_path, text)
    shown = json.dumps(loaded.masked())
    for printed in (
        repr(loaded),
        *(
            f"{found!r} {found!s} {found.model_dump()} {found.model_dump_json()}"
            for found in loaded.settings.values()
            if found
        ),
        repr(loaded.faults.tree),
        shown,
    ):
        assert SECRET not in printed
        assert "xxx" not in printed
    assert shown.count("**********") == 8
    assert loaded.masked()["modules"][0]["config"]["n"] == 1
    assert loaded.masked()["modules"][0]["config"]["deep"][0]["url"] == "amqp://me:**********@host/"


@pytest.mark.parametrize(
    "text",
    [
        f"server: {{address: '{SECRET}'}}\ncredentials: {{username: '{SECRET}', password: ''}}\n",
        f"server: '{SECRET}'\ncredentials: '{SECRET}'\nmodules: '{SECRET}'\npool: {{heartbeat: '{SECRET}'}}\n",
        PEER + f"modules: [{{class: '{SECRET}'}}, '{SECRET} x', {{folder: '{SECRET}'}}, ['{SECRET}']]\n",
        PEER + f"credentials: {{username: a, password: ['{SECRET}'], password_file: '{SECRET}'}}\n",
        PEER + f"log: {{level: '{SECRET}', format: ['{SECRET}']}}\nrpc: {{max_body: '{SECRET}'}}\n",
        PEER + f"trust: {{refuse: ['{SECRET}']}}\nice: {{policy: '{SECRET}', servers: [{{urls: '{SECRET}'}}]}}\n",
        f"discovery: {{database: 'postgresql://u:{SECRET}@h/d', listen: '{SECRET}', realm: 'a {SECRET}'}}\n",
        f"discovery: {{tls: {{cert_file: '{SECRET}', key_file: '{SECRET}'}}, origins: ['{SECRET}']}}\n",
        f"discovery: {{listen: '0.0.0.0:1', accounts: [{{username: a, password: '{SECRET[:5]}'}}]}}\n",
        f"discovery: {{accounts: [{{username: a, public_key: '{SECRET}', login_hash: '{SECRET}'}}]}}\n",
        f"discovery: {{trusted_proxies: ['{SECRET}'], limits: {{messages: '{SECRET}'}}}}\n",
        f"server: *{SECRET}\n",
        f"server: !{SECRET} x\n",
        f"server: !{SECRET.replace('-', '')}!x x\n",
        f"credentials: {{password: {SECRET}: x}}\n",
        f"credentials:\n  password: {SECRET}\n bad: [\n",
    ],
)
def test_no_fault_repeats_a_value(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET[:5] not in told.replace(str(tmp_path), "")


def test_a_private_key_that_others_may_read_is_warned_about(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("pem")
        (tmp_path / name).chmod(0o644)
    loaded = load(tmp_path, "discovery: {tls: {cert_file: cert.pem, key_file: key.pem}}\n")
    assert loaded.warnings == (
        f"{tmp_path}/bonevalue.yaml:1: discovery.tls.key_file: other users may read this file: chmod 600 it",
    )


# -- units -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("20s", 20),
        ("250ms", 0.25),
        ("5m", 300),
        ("1h", 3600),
        ("7d", 604800),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        (" 3s ", 3),
        ("8", 8),
        (8, 8),
        (0.5, 0.5),
        (0, 0),
    ],
)
def test_durations(written: object, seconds: float) -> None:
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize("written", ["", "s", "5 x", "5S", "-1s", "1e3", "٣s", True, -1, float("nan"), 1e30, None, []])
def test_what_is_no_duration(written: object) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "size"),
    [("8MiB", 2**23), ("64KiB", 2**16), ("1MB", 10**6), ("1.5 kib", 1536), ("7", 7), (7, 7), ("10B", 10), (2.0, 2)],
)
def test_sizes(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["", "MiB", "1M", "1.5", "0.3B", "-1", "1PB", True, -1, float("inf"), None, 10**30])
def test_what_is_no_size(written: object) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(written)


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        ("20/s burst 256", Rate(20, 1, 256)),
        ("60/m", Rate(60, 60, 60)),
        ("10/10m", Rate(10, 600)),
        ("3/h, burst 5", Rate(3, 3600, 5)),
    ],
)
def test_rates(written: str, rate: Rate) -> None:
    assert Rate.parse(written) == rate
    assert Rate.parse(str(rate)) == rate
    assert Rate.parse("60/m").per_second == 1.0


@pytest.mark.parametrize("written", ["", "20", "20/x", "0/s", "1/0s", "1/s burst", 20, None])
def test_what_is_no_rate(written: object) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        Rate.parse(written)


@given(st.floats(min_value=0.001, max_value=3e8))
def test_durations_are_written_as_they_are_read(seconds: float) -> None:
    assert parse_duration(duration_text(seconds)) == pytest.approx(seconds, rel=1e-5, abs=1e-9)


@given(st.integers(min_value=0, max_value=2**50))
def test_sizes_are_written_as_they_are_read(size: int) -> None:
    assert parse_size(size_text(size)) == size


# -- any text at all -------------------------------------------------------------------------------------------

KEYS = ["server", "credentials", "modules", "discovery", "address", "username", "password", "password_file", "class"]
KEYS += [
    "folder",
    "limits",
    "accounts",
    "ice",
    "servers",
    "urls",
    "pool",
    "heartbeat",
    "log",
    "listen",
    "config",
    "tls",
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["${A}", "1s", "a.B"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
TEXTS = (
    st.text()
    | st.text(alphabet="{}[]:,-&*!|>'\"%@`#\n ab~$?<.=0")
    | st.lists(
        st.sampled_from([*KEYS, ": ", "\n", "\n  ", "- ", "{", "}", "[", "]", "&a ", "*a", "'", '"', "!", "${A:-1}"])
    ).map("".join)
)


def outcome_of(text: str, environ: dict[str, str]) -> None:
    """Loading gives settings or a ConfigError with faults, and never anything else."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bonevalue.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            loaded = settings_file.load(path, ROLES, environ=environ)
        except ConfigError as error:
            assert error.faults
            assert all(fault.message for fault in error.faults)
            assert all(fault.line is None or fault.line >= 1 for fault in error.faults)
        else:
            json.dumps(loaded.masked())


@settings(max_examples=200, deadline=None)
@given(TEXTS)
@example("server:\n\x00")
@example("%YAML 9999999999.1\n---\na: b")
@example("server: {address: ws://127.0.0.1, ca_file: ~nobody-of-that-name/x}")
@example("discovery: {tls: {cert_file: " + "x" * 5000 + ", key_file: 'a\\0b'}}")
@example("? |\n- 9\n: <<")
@example("discovery: {realm: '\\u2488com', listen: '[::1%]:1'}")
def test_any_text_gives_settings_or_a_config_error(text: str) -> None:
    outcome_of(text, {})


@settings(max_examples=200, deadline=None)
@given(VALUES, st.dictionaries(st.sampled_from(["A", "BV_SERVER__ADDRESS", "BV_MODULES", "BV_LOG", "BV_X"]), st.text()))
def test_any_values_give_settings_or_a_config_error(value: Any, environ: dict[str, str]) -> None:
    whole = {"server": value, "discovery": value, **(value if isinstance(value, dict) else {})}
    outcome_of(json.dumps(whole), environ)


@given(VALUES)
def test_a_tree_gives_back_the_value_it_was_made_of(value: Any) -> None:
    assert json.dumps(node_of(value, Source("x", 1)).plain) == json.dumps(value)


# -- the schema ------------------------------------------------------------------------------------------------


def test_the_schema_describes_every_key_of_both_roles() -> None:
    schema = settings_file.schema(ROLES)
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {
        *("server", "credentials", "modules", "pool", "ice", "rpc", "trust", "log", "discovery")
    }
    assert "password_file" in schema["$defs"]["CredentialsSettings"]["properties"]
    assert "log" not in schema["properties"]["discovery"]["properties"]
    objects = [*schema["$defs"].values(), schema["properties"]["discovery"], schema]
    objects += [option for made in objects for option in made.get("anyOf", []) if "properties" in option]
    for made in objects:
        for key, about in made.get("properties", {}).items():
            assert about.get("description"), key
    json.dumps(schema)


def test_the_example_of_the_repository_is_right() -> None:
    path = Path(__file__).parents[2] / "bonevalue.yaml"
    loaded = settings_file.load(path, ROLES, environ={})
    assert all(loaded.settings.values())
    assert loaded.warnings == ()
    assert loaded.folder == path.parent


def test_the_line_of_what_is_missing_is_that_of_what_is_around_it() -> None:
    tree = Node({"a": Node({"b": Node(1, Source("f", 3))}, Source("f", 2))}, Source("f", 1))
    assert [tree.locate(path).line for path in [(), ("a",), ("a", "b"), ("a", "c"), ("a", 0), ("x", "y")]] == [
        *(1, 2, 3, 2, 2, 1)
    ]


def test_relative_paths_start_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "ca.pem").write_text("pem")
    write(tmp_path / "conf", PEER.replace("8008}", "8008, ca_file: ca.pem}") + "discovery: {}\n")
    monkeypatch.chdir(tmp_path)
    loaded = settings_file.load(os.path.join("conf", "bonevalue.yaml"), ROLES, environ={})
    peer, discovery = loaded.get(PeerSettings), loaded.get(DiscoverySettings)
    assert peer is not None
    assert discovery is not None
    assert peer.server.ca_file == tmp_path / "conf" / "ca.pem"
    assert discovery.database.get_secret_value() == f"sqlite:///{tmp_path}/conf/bonevalue.db"
