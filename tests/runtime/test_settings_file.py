"""The loader of the settings file: roles, secrets, the report of faults, and that no text at all makes it fail."""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from bonevalue import settings_file
from bonevalue.config import PeerSettings
from bonevalue.errors import ConfigError
from bonevalue_server.config import DiscoverySettings
from tests.support.settings import PEER, ROLES, faults_of, load, peer_of, write

SECRET = "Xyzzy-plugh-4711"


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
        (
            "discovery:\n  metrics: 127.0.0.1:9464\n",
            ["bonevalue.yaml:2: discovery.metrics: unknown key; metrics stands at the top level"],
        ),
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


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS)
@example("server:\n\x00")
@example("%YAML 9999999999.1\n---\na: b")
@example("server: {address: ws://127.0.0.1, ca_file: ~nobody-of-that-name/x}")
@example("discovery: {tls: {cert_file: " + "x" * 5000 + ", key_file: 'a\\0b'}}")
@example("? |\n- 9\n: <<")
@example("discovery: {realm: '\\u2488com', listen: '[::1%]:1'}")
def test_any_text_gives_settings_or_a_config_error(text: str) -> None:
    outcome_of(text, {})


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES, st.dictionaries(st.sampled_from(["A", "BV_SERVER__ADDRESS", "BV_MODULES", "BV_LOG", "BV_X"]), st.text()))
def test_any_values_give_settings_or_a_config_error(value: Any, environ: dict[str, str]) -> None:
    whole = {"server": value, "discovery": value, **(value if isinstance(value, dict) else {})}
    outcome_of(json.dumps(whole), environ)


# -- the schema ------------------------------------------------------------------------------------------------


def test_the_schema_describes_every_key_of_both_roles() -> None:
    schema = settings_file.schema(ROLES)
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {
        *("server", "credentials", "modules", "pool", "ice", "rpc", "trust", "metrics", "log", "discovery")
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
