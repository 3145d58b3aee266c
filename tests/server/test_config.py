"""The settings of the discovery server: realm, registration, accounts, addresses, and the limits."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from bonevalue.settings_fields import Endpoint, Rate
from bonevalue_server.config import AccountEntry, DiscoverySettings
from bonevalue_server.limits import Limits
from tests.support.settings import discovery_of, faults_of

SERVER = Path(__file__).parents[2] / "server" / "bonevalue_server"
KEY = "A" * 43
HASH = "$2b$12$" + "x" * 53


def test_the_defaults_are_those_of_the_documentation(tmp_path: Path) -> None:
    found = discovery_of(tmp_path, "discovery: {}\n")
    assert (found.listen, found.tls, found.trusted_proxies) == (Endpoint("127.0.0.1", 8008), None, ())
    assert (found.realm, found.registration) == ("localhost", "open")
    assert found.database.get_secret_value() == f"sqlite:///{tmp_path}/bonevalue.db"
    assert (found.accounts, found.ice_servers, found.origins, found.token_lifetime) == ((), (), (), 86400.0)
    assert found.limits == Limits()


def test_made_in_code_it_is_the_same() -> None:
    found = DiscoverySettings.model_validate({"listen": "127.0.0.1:0", "limits": {"peers": 3}})
    assert (found.listen.port, found.realm, found.limits.peers) == (0, "localhost", 3)
    assert found.database.get_secret_value() == "sqlite:///bonevalue.db"


# -- reachable or not ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "is_loopback"),
    [
        ("127.0.0.1:8008", True),
        ("127.8.8.8:1", True),
        ("localhost:0", True),
        ("[::1]:8008", True),
        ("0.0.0.0:8008", False),
        ("[::]:8008", False),
        ("192.168.1.1:8008", False),
        ("example.org:8008", False),
    ],
)
def test_beyond_loopback_a_realm_is_needed_and_registration_is_closed(
    tmp_path: Path, listen: str, is_loopback: bool
) -> None:
    text = f"discovery:\n  listen: '{listen}'\n"
    if is_loopback:
        assert discovery_of(tmp_path, text).registration == "open"
    else:
        assert faults_of(tmp_path, text) == [
            "bonevalue.yaml:1: discovery.realm: is missing: "
            "set the public host name of this server; accounts are bound to it for ever"
        ]
    named = discovery_of(tmp_path, f"{text}  realm: Example.ORG\n")
    assert (named.realm, named.registration) == ("example.org", "open" if is_loopback else "closed")
    assert discovery_of(tmp_path, f"{text}  realm: a.example\n  registration: open\n").registration == "open"
    assert str(named.listen) == listen


@pytest.mark.parametrize("listen", ["8008", "127.0.0.1", ":8008", "::1:8008", "[::g]:1", "a:65536", "a:-1", "ws://a:1"])
def test_what_is_no_host_and_port(tmp_path: Path, listen: str) -> None:
    # A wrong address says nothing about realm, registration and accounts.
    text = f"discovery:\n  listen: '{listen}'\n  accounts: [{{username: admin, password: test}}]\n"
    (report,) = faults_of(tmp_path, text)
    assert report.startswith("bonevalue.yaml:2: discovery.listen: ")


# -- accounts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", ["test", "short", "password123", "aaaaaaaaaaaaaaaa"])
def test_weak_passwords_of_accounts_stay_on_loopback(tmp_path: Path, password: str) -> None:
    accounts = f"  accounts:\n    - {{username: admin, password: {password}}}\n"
    assert len(discovery_of(tmp_path, f"discovery:\n{accounts}").accounts) == 1
    text = f"discovery:\n  listen: 0.0.0.0:1\n  realm: a.example\n{accounts}"
    assert faults_of(tmp_path, text) == [
        "bonevalue.yaml:5: discovery.accounts[0].password: is too weak to be reached from other machines: "
        "under 10 characters, or among the common ones"
    ]


def test_strong_passwords_and_keys_go_anywhere(tmp_path: Path) -> None:
    text = f"""\
    discovery:
      listen: 0.0.0.0:1
      realm: a.example
      accounts:
        - {{username: Admin, password: Tr0mbone-under-glass}}
        - {{username: bob, public_key: {KEY}, login_hash: "{HASH}"}}
    """
    admin, bob = discovery_of(tmp_path, text).accounts
    assert admin.username == "admin"
    assert (bob.public_key, bob.password) == (KEY, None)
    assert bob.login_hash is not None
    assert bob.login_hash.get_secret_value() == HASH


@pytest.mark.parametrize(
    ("entry", "report"),
    [
        ("{password: x}", ".username: is missing"),
        ("{username: a}", ".password: is missing: an account has a password, or public_key and login_hash"),
        (
            f"{{username: a, public_key: {KEY}}}",
            ".password: is missing: an account has a password, or public_key and login_hash",
        ),
        (
            f"{{username: a, public_key: {KEY}, password: x}}",
            ".password: is given beside public_key or login_hash: keep one or the other",
        ),
        (
            f"{{username: a, public_key: {KEY[:-1]}, login_hash: '{HASH}'}}",
            ".public_key: is no public key: 43 characters of base64url, as `bv account hash` prints them",
        ),
        (
            f"{{username: a, public_key: {KEY}, login_hash: md5}}",
            ".login_hash: is no hash of a login secret: copy it as `bv account hash` prints it, in quotes",
        ),
        ("admin", ": must be a mapping of keys to values"),
    ],
)
def test_wrong_accounts(tmp_path: Path, entry: str, report: str) -> None:
    text = f"discovery:\n  accounts:\n    - {entry}\n"
    assert faults_of(tmp_path, text) == [f"bonevalue.yaml:3: discovery.accounts[0]{report}"]


def test_all_faults_of_accounts_come_together(tmp_path: Path) -> None:
    text = """\
    discovery:
      listen: 0.0.0.0:1
      realm: a.example
      accounts:
        - {username: a, password: test}
        - {username: b}
        - {username: A, public_key: x, login_hash: y, passwd: z}
        - {username: a, password: Tr0mbone-under-glass}
    """
    assert [line.partition(": is ")[0] for line in faults_of(tmp_path, text)] == [
        "bonevalue.yaml:5: discovery.accounts[0].password",
        "bonevalue.yaml:6: discovery.accounts[1].password",
        "bonevalue.yaml:7: discovery.accounts[2].public_key",
        "bonevalue.yaml:7: discovery.accounts[2].login_hash",
        "bonevalue.yaml:7: discovery.accounts[2].passwd: unknown key; did you mean password?",
        "bonevalue.yaml:8: discovery.accounts[3].username",
    ]


def test_an_account_shows_no_secret() -> None:
    account = AccountEntry.model_validate({"username": "a", "public_key": KEY, "login_hash": HASH})
    assert "xxx" not in f"{account!r} {account} {account.model_dump_json()}"


# -- the other keys --------------------------------------------------------------------------------------------


def test_proxies_origins_and_stun_servers(tmp_path: Path) -> None:
    text = """\
    discovery:
      trusted_proxies: [10.0.0.7, 10.1.0.0/16, 'fd00::/8']
      origins: ['https://App.example.org', 'http://localhost:5173', 'http://[::1]:80']
      ice_servers: [{urls: 'stun:stun.example.org:3478'}, {urls: [stun:a, stun:b]}]
    """
    found = discovery_of(tmp_path, text)
    assert found.trusted_proxies == tuple(map(ip_network, ("10.0.0.7", "10.1.0.0/16", "fd00::/8")))
    assert found.origins == ("https://app.example.org", "http://localhost:5173", "http://[::1]:80")
    assert [server.urls for server in found.ice_servers] == [("stun:stun.example.org:3478",), ("stun:a", "stun:b")]


@pytest.mark.parametrize(
    ("lines", "endpoints"),
    [
        ([], ["192.0.2.1:8008"]),
        (["stun: null"], ["192.0.2.1:8008"]),
        (["stun: []"], []),
        (["stun: 192.0.2.1:3478"], ["192.0.2.1:3478"]),
        (["stun: ['192.0.2.1:3478', '[::]:3479']"], ["192.0.2.1:3478", "[::]:3479"]),
    ],
)
def test_where_stun_is_answered(tmp_path: Path, lines: list[str], endpoints: list[str]) -> None:
    text = "\n  ".join(["discovery:", "listen: 192.0.2.1:8008", "realm: example.org", *lines])
    assert [str(endpoint) for endpoint in discovery_of(tmp_path, text + "\n").stun] == endpoints


def test_turn(tmp_path: Path) -> None:
    assert discovery_of(tmp_path, "discovery:\n  turn: {}\n").turn.urls == ()
    (tmp_path / "turn-secret").write_text("north wind and sun\n", encoding="utf-8")
    text = "discovery:\n  turn: {urls: ['turn:a', 'turns:b:443'], secret_file: turn-secret, lifetime: 10m}\n"
    turn = discovery_of(tmp_path, text).turn
    assert turn.secret is not None and turn.secret.get_secret_value() == "north wind and sun"
    assert (turn.urls, turn.lifetime) == (("turn:a", "turns:b:443"), 600.0)
    assert "north wind" not in f"{turn!r} {turn.model_dump_json()}"


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ("trusted_proxies: [10.0.0.1/8]", "discovery.trusted_proxies[0]: is no address or network"),
        ("trusted_proxies: [5]", "discovery.trusted_proxies[0]: is no address or network"),
        ("origins: ['*']", "discovery.origins[0]: is no origin"),
        ("origins: ['https://a/b']", "discovery.origins[0]: is no origin"),
        ("ice_servers: [{urls: 'turn:a', username: u, credential: c}]", "discovery.ice_servers[0].urls: holds a TURN"),
        ("database: postgresql://a/b", "discovery.database: is no database that this version knows"),
        ("database: 'sqlite://'", "discovery.database: is no database that this version knows"),
        ("database: 'sqlite:///:memory:'", "discovery.database: is no database that this version knows"),
        ("registration: maybe", "discovery.registration: must be 'open' or 'closed'"),
        ("realm: a/b", "discovery.realm: is no host name"),
        ("token_lifetime: 8d", "discovery.limits.token_lifetime_max: is shorter than discovery.token_lifetime"),
        ("tls: {cert_file: a}", "discovery.tls.cert_file: names a file that does not exist"),
        ("stun: 3478", "discovery.stun: must be a list"),
        ("stun: example.org", "discovery.stun[0]: is no host:port"),
        ("stun: ['127.0.0.1:1', '127.0.0.1:2', '127.0.0.1:3']", "discovery.stun: must have at most 2"),
        ("stun: ['127.0.0.1:3478', '127.0.0.1:3478']", "discovery.stun: names the same endpoint twice"),
        ("turn: {urls: 'turn:a'}", "discovery.turn.secret: is missing"),
        ("turn: {secret: s}", "discovery.turn.secret: is of no use without urls"),
        ("turn: {urls: ['stun:a'], secret: s}", "discovery.turn.urls[0]: is no TURN URL"),
        ("turn: {urls: ['turn:a:b'], secret: s}", "discovery.turn.urls[0]: is no ICE URL"),
        ("turn: {urls: ['turn:a'], secret: '                '}", "discovery.turn.secret: has fewer than 16 characters"),
        ("turn: {urls: ['turn:a'], secret: fifteen-letters}", "discovery.turn.secret: has fewer than 16 characters"),
        ("turn: {urls: ['turn:a'], secret: s, lifetime: 2d}", "discovery.turn.lifetime: "),
        ("turn: {urls: ['turn:a'], secret: s, lifetime: 0s}", "discovery.turn.lifetime: "),
        ("bus: local", "discovery.bus: unknown key"),
    ],
)
def test_wrong_values(tmp_path: Path, line: str, report: str) -> None:
    assert any(report in fault for fault in faults_of(tmp_path, f"discovery:\n  {line}\n"))


def test_databases(tmp_path: Path) -> None:
    for written, url in [
        ("sqlite:///x.db", f"sqlite:///{tmp_path}/x.db"),
        ("sqlite:////var/x.db", "sqlite:////var/x.db"),
    ]:
        assert discovery_of(tmp_path, f"discovery: {{database: '{written}'}}").database.get_secret_value() == url


# -- limits ----------------------------------------------------------------------------------------------------


def test_limits_are_checked_and_keep_their_units() -> None:
    limits = Limits.model_validate({"messages": "5/s burst 9", "lock_time": "2m", "outbound_bytes": "2MiB"})
    assert (limits.messages, limits.lock_time, limits.outbound_bytes) == (Rate(5, 1, 9), 120.0, 2**21)
    for wrong in ({"trusted": 10_001}, {"tokens": 0}, {"login_timeout": 0}, {"messages": "0/s"}, {"mesages": "1/s"}):
        with pytest.raises(ValidationError):
            Limits.model_validate(wrong)


def test_every_limit_is_applied_somewhere() -> None:
    sources = [path for path in SERVER.rglob("*.py") if path.name != "limits.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    assert [name for name in Limits.model_fields if not re.search(rf"\.{name}\b", text)] == []
