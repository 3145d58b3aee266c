"""The settings of the discovery server: the section ``discovery:`` of the YAML file, and ``log:``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from bonevalue.errors import WeakPassword
from bonevalue.settings_fields import (
    NAME_RULE,
    PRIVATE,
    Duration,
    Endpoint,
    ExistingFile,
    ExistingFolder,
    IceServerEntry,
    IceUrlText,
    Listen,
    Problem,
    RoleSettings,
    Secret,
    Section,
    checked,
    from_folder,
    one_or_more,
    sound_items,
    wrong,
)
from bonevalue.wire.keys import check_password, from_base64url, realm_of, username_of
from bonevalue_server.limits import Limits

__all__ = ["AccountEntry", "DiscoverySettings", "Network", "TlsSettings", "TurnSettings"]

Handler = Callable[[Any], Any]

#: Characters that a TURN server's secret has at least: whoever guesses it has credentials of any account, for ever.
SECRET_LENGTH = 16

WEAK = "is too weak to be reached from other machines: under 10 characters, or among the common ones"


def _network(value: object) -> object:
    if isinstance(value, str):
        try:
            return ip_network(value)
        except ValueError:
            pass
    elif isinstance(value, (IPv4Network, IPv6Network)):
        return value
    raise ValueError("is no address or network: write 10.0.0.7, 10.0.0.0/8 or fd00::/8")


Network = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(_network),
    WithJsonSchema({"type": "string"}),
]
"""An IP network; a bare address is a network of one."""


def _origin(text: str) -> str:
    if not re.fullmatch(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?", text.lower()):
        raise ValueError("is no origin: write https://example.org or http://localhost:5173, without a path")
    return text.lower()


def _public_key(text: str) -> str:
    try:
        right = len(from_base64url(text)) == 32
    except ValueError:
        right = False
    if not right:
        raise ValueError("is no public key: 43 characters of base64url, as `bv account hash` prints them")
    return text


def _realm_or_nothing(text: str) -> str:
    return realm_of(text) if text else text


def _login_hash(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"\$2[aby]\$[0-3][0-9]\$[./A-Za-z0-9]{53}", secret.get_secret_value()):
        raise ValueError("is no hash of a login secret: copy it as `bv account hash` prints it, in quotes")
    return secret


class TlsSettings(Section):
    """Certificate and key with which the server itself speaks TLS."""

    cert_file: ExistingFile = Field(description="PEM file with the certificate and its chain.")
    key_file: Annotated[ExistingFile, PRIVATE] = Field(description="PEM file with the private key.")


def _turn_url(text: str) -> str:
    if not text.startswith("turn"):
        raise ValueError("is no TURN URL: write turn:HOST:PORT?transport=udp or turns:HOST:PORT")
    return text


class TurnSettings(Section):
    """
    A TURN server that knows `secret`, like coturn with `use-auth-secret`: peers are handed credentials made with it.

    A credential is good for `lifetime` and for one account, whose peers are sent another at half its life.
    """

    urls: Annotated[
        tuple[Annotated[IceUrlText, AfterValidator(_turn_url)], ...],
        BeforeValidator(one_or_more),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 8}]}),
        Field(max_length=8),
    ] = Field(
        default=(),
        description="Best first: `turn:HOST:PORT?transport=udp`, the same with `tcp`, `turns:HOST:PORT`.",
    )
    secret: Secret | None = Field(
        default=None,
        validate_default=True,
        description=f"coturn's `static-auth-secret`, {SECRET_LENGTH} characters or more; never handed out.",
    )
    lifetime: Duration = Field(default=3600.0, ge=1, le=86_400, description="How long a credential is good.")

    @field_validator("secret")
    @classmethod
    def _goes_with_urls(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        urls = info.data.get("urls")
        if urls and secret is None:
            raise ValueError("is missing: credentials are made with it")
        if secret is not None and urls == ():
            raise ValueError("is of no use without urls")
        if secret is not None and len(secret.get_secret_value().strip()) < SECRET_LENGTH:
            raise ValueError(f"has fewer than {SECRET_LENGTH} characters: make one with `openssl rand -hex 32`")
        return secret


class AccountEntry(Section):
    """An account that is created at the first start, if there is none of its name."""

    username: Annotated[str, checked(username_of, f"is no username: {NAME_RULE}")] = Field(description=f"{NAME_RULE}.")
    public_key: Annotated[str, AfterValidator(_public_key)] | None = Field(
        default=None, description="Key of the account, so that this file need not hold the password (base64url)."
    )
    login_hash: Annotated[Secret, AfterValidator(_login_hash)] | None = Field(
        default=None, description="Goes with `public_key`; hash of the login secret."
    )
    password: Secret | None = Field(
        default=None, validate_default=True, description="Instead of `public_key` and `login_hash`."
    )

    @field_validator("password")
    @classmethod
    def _one_way_or_the_other(cls, password: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if not {"public_key", "login_hash"} <= info.data.keys():
            return password
        given = [info.data["public_key"] is not None, info.data["login_hash"] is not None]
        if password is None and not all(given):
            raise ValueError("is missing: an account has a password, or public_key and login_hash")
        if password is not None and any(given):
            raise ValueError("is given beside public_key or login_hash: keep one or the other")
        return password


def _account_problems(accounts: Iterable[tuple[int, AccountEntry]], *, is_reachable: bool) -> Iterator[Problem]:
    names: set[str] = set()
    for index, account in accounts:
        if account.username in names:
            yield (index, "username"), "is the name of an earlier account, too"
        names.add(account.username)
        if account.password is not None and is_reachable:
            try:
                check_password(account.password.get_secret_value())
            except WeakPassword:
                yield (index, "password"), WEAK


class DiscoverySettings(RoleSettings):
    """The settings of a discovery server."""

    declared_by: ClassVar[str] = "discovery"
    inside: ClassVar[bool] = True

    listen: Listen = Field(
        default=Endpoint("127.0.0.1", 8008), description="`host:port` to listen on, `[::1]:8008` for IPv6."
    )
    tls: TlsSettings | None = Field(
        default=None, description="Null for none: plain WebSocket, for this machine or behind a TLS proxy."
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(), description="Addresses or networks of proxies whose X-Forwarded-For counts."
    )
    realm: Annotated[str, checked(_realm_or_nothing, "is no host name")] = Field(
        default="",
        validate_default=True,
        max_length=253,
        description=(
            "Public host name that all accounts are bound to; never changed later. "
            "May be left out only when listening on loopback, then `localhost`."
        ),
    )
    database: Secret = Field(
        default=SecretStr("sqlite:///bonevalue.db"),
        validate_default=True,
        description="`sqlite:///PATH`; a relative path starts from the folder of this file.",
        json_schema_extra={"default": "sqlite:///bonevalue.db"},
    )
    registration: Literal["open", "closed"] = Field(
        default_factory=lambda data: "open" if data["listen"].is_loopback else "closed",
        description="Whether accounts can be made over the network. Default: `open` on loopback, elsewhere `closed`.",
    )
    accounts: tuple[AccountEntry, ...] = Field(
        default=(), description="Accounts to create at start if they are missing; existing ones are left as they are."
    )
    token_lifetime: Duration = Field(
        default=86400.0, ge=1, description="How long a token to make trust is valid, unless it says less."
    )
    stun: Annotated[
        tuple[Listen, ...],
        BeforeValidator(one_or_more),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 2}]}),
        Field(max_length=2),
    ] = Field(
        default_factory=lambda data: (data["listen"],) if "listen" in data else (),
        description=(
            "UDP `host:port` on which the server itself answers STUN requests; with a list of two, peers can tell the "
            "kind of NAT that they are behind; `[]` for none. Default: host and port of `listen`."
        ),
    )
    ice_servers: tuple[IceServerEntry, ...] = Field(
        default=(), max_length=16, description="Further STUN servers that every peer is told of."
    )
    turn: TurnSettings = Field(
        default_factory=TurnSettings, validate_default=True, description="The TURN server of this realm."
    )
    origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = Field(
        default=(), description="Browser origins that may connect, besides the server's own."
    )
    pages: ExistingFolder | None = Field(
        default=None,
        description="A folder of web pages to serve at `/`, beside the library and the console: index.html and "
        "whatever else is in it, hidden files and links to elsewhere not.",
    )
    limits: Limits = Field(default_factory=Limits, validate_default=True, description="Limits against abuse.")

    @field_validator("realm")
    @classmethod
    def _realm(cls, realm: str, info: ValidationInfo) -> str:
        listen = info.data.get("listen")
        if realm:
            return realm
        if listen is not None and not listen.is_loopback:
            raise ValueError("is missing: set the public host name of this server; accounts are bound to it for ever")
        return "localhost"

    @field_validator("database")
    @classmethod
    def _database(cls, database: SecretStr) -> SecretStr:
        url = database.get_secret_value()
        path = url.removeprefix("sqlite:///")
        if path == url or not path or path == ":memory:" or set(path) & set("?#\0"):
            raise ValueError("is no database that this version knows: write sqlite:///bonevalue.db")
        return SecretStr(f"sqlite:///{from_folder(Path(path))}")

    @field_validator("accounts", mode="wrap")
    @classmethod
    def _accounts(cls, value: Any, handler: Handler, info: ValidationInfo) -> tuple[AccountEntry, ...]:
        accounts: tuple[AccountEntry, ...] = ()
        failed: ValidationError | None = None
        try:
            accounts = handler(value)
        except ValidationError as error:
            failed = error
        listen = info.data.get("listen")
        is_reachable = listen is not None and not listen.is_loopback
        problems = list(_account_problems(sound_items(value, AccountEntry), is_reachable=is_reachable))
        if failed or problems:
            raise wrong(*problems, besides=failed)
        return accounts

    @field_validator("stun")
    @classmethod
    def _each_once(cls, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        if len(set(endpoints)) < len(endpoints) and all(endpoint.port for endpoint in endpoints):
            raise ValueError("names the same endpoint twice")
        return endpoints

    @field_validator("ice_servers")
    @classmethod
    def _only_stun(cls, servers: tuple[IceServerEntry, ...]) -> tuple[IceServerEntry, ...]:
        problems = [
            ((index, "urls"), "holds a TURN URL: everybody would share its credential; only STUN is handed out")
            for index, server in enumerate(servers)
            if any(url.startswith("turn") for url in server.urls)
        ]
        if problems:
            raise wrong(*problems)
        return servers

    @field_validator("limits")
    @classmethod
    def _token_lifetime_fits(cls, limits: Limits, info: ValidationInfo) -> Limits:
        if info.data.get("token_lifetime", 0) > limits.token_lifetime_max:
            raise wrong((("token_lifetime_max",), "is shorter than discovery.token_lifetime"))
        return limits
