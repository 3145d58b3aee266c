"""The settings of a peer: every section of the YAML file but ``discovery:``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from bonevalue.settings_fields import (
    NAME_RULE,
    Duration,
    ExistingFile,
    ExistingFolder,
    IceServerEntry,
    Problem,
    RoleSettings,
    Secret,
    Section,
    Size,
    checked,
    sound_items,
    wrong,
)
from bonevalue.wire.keys import AccountKeys, alias_of, fingerprint_of, realm_of, username_of

__all__ = [
    "Address",
    "CredentialsSettings",
    "FolderEntry",
    "IceSettings",
    "ModuleEntry",
    "PeerSettings",
    "PeerToBeSettings",
    "PoolSettings",
    "RpcSettings",
    "ServerSettings",
    "TrustSettings",
]

_ADDRESS = re.compile(
    r"(?:(wss?)://)?(\[[0-9a-fA-F:.]{2,45}\]|[^\s/?#@:\[\]]{1,253})(?::([0-9]{1,5}))?(/[!-~]{0,512})?"
)
_CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*[.:][^\W\d]\w*")
_MODULE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}$"

_SOUNDS_SECRET = re.compile(
    r"pass(word|phrase|wd)|secret|token|credential|private|(api|access|auth)_?key|dsn", re.IGNORECASE
)
_URL_PASSWORD = re.compile(r"(://[^/@:\s]*:)[^/@\s]+@")
#: What stands in place of a secret, as pydantic writes it.
MASK = "**********"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a discovery server is reached: ``url`` to connect to, ``host`` as typed, ``realm`` of that host."""

    url: str
    host: str
    realm: str
    secure: bool

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine."""
        return self.realm == "localhost"

    @classmethod
    def parse(cls, text: str) -> Address:
        """
        The address of ``wss://host[:port][/path]``; a bare host means ``wss://``, a bare loopback host ``ws://``.

        Raises:
            ValueError: it is none.
        """
        found = _ADDRESS.fullmatch(text)
        try:
            realm = realm_of(found[2]) if found is not None else ""
        except ValueError:
            realm = ""
        if found is None or not realm or int(found[3] or 0) > 65535:
            raise ValueError("is no server address: write wss://example.org, or ws://127.0.0.1:8008")
        scheme, host, port, path = found.groups()
        scheme = scheme or ("ws" if realm == "localhost" else "wss")
        url = f"{scheme}://{host}{f':{port}' if port else ''}{path or ''}"
        return cls(url=url, host=host.strip("[]"), realm=realm, secure=scheme == "wss")


def _address(text: str) -> str:
    return Address.parse(text).url


class ServerSettings(Section):
    """The discovery server that this peer logs in to."""

    address: Annotated[str, AfterValidator(_address)] = Field(
        description="`wss://host` or `ws://host`; a bare host means `wss://`, a bare loopback host `ws://`."
    )
    realm: Annotated[str, checked(realm_of, "is no host name")] | None = Field(
        default=None, max_length=253, description="Realm of the server. Null for the host of `address`."
    )
    ca_file: ExistingFile | None = Field(
        default=None, description="PEM file of the authorities to trust. Null for those of the system."
    )
    insecure: bool = Field(
        default=False, validate_default=True, description="Whether `ws://` may leave this machine, unencrypted."
    )

    @field_validator("insecure")
    @classmethod
    def _encrypted_beyond_loopback(cls, insecure: bool, info: ValidationInfo) -> bool:
        if not insecure and "address" in info.data:
            address = Address.parse(info.data["address"])
            if not address.secure and not address.is_loopback:
                raise ValueError("must be true to let ws:// leave this machine, unencrypted; better use wss://")
        return insecure


class CredentialsSettings(Section):
    """The account that this peer logs in with."""

    username: Annotated[str, checked(username_of, f"is no username: {NAME_RULE}")] = Field(
        description="Name of the account."
    )
    password: Secret = Field(description="Password of the account. It never leaves this process.")


def _may_call(name: str) -> str:
    if name == "*":
        return name
    return "Us" if name.lower() == "us" else alias_of(name)


def _hidden(value: Any) -> Any:
    """The value without what stands under keys that sound like secrets: what they are, only the class knows."""
    if isinstance(value, dict):
        return {
            key: MASK if _SOUNDS_SECRET.search(str(key)) and child is not None else _hidden(child)
            for key, child in value.items()
        }
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    return _URL_PASSWORD.sub(rf"\1{MASK}@", value) if isinstance(value, str) else value


class ModuleEntry(Section):
    """A module class to serve. A bare import path is short for `{class: PATH}`."""

    class_path: str = Field(
        alias="class", max_length=512, description="Import path of a Module class: `a.b.C` or `a.b:C`."
    )
    name: str | None = Field(
        default=None, pattern=_MODULE_NAME, description="Name to serve it under. Null for the name that the class has."
    )
    allow: tuple[Annotated[str, checked(_may_call, f"is no alias, Us or *: an alias is {NAME_RULE}")], ...] = Field(
        default=("*",), description="Aliases that may call it; `Us` is the own account, `*` everyone trusted."
    )
    concurrency: int = Field(
        default=64,
        ge=1,
        le=65_536,
        description="Calls that run at once; more wait, and when `rpc.queue` of them wait, further ones get `busy`. "
        "An eighth of them, at least one of four or more, is left to peers that have none.",
    )
    rate: float | None = Field(
        default=None,
        ge=0.001,
        le=1_000_000,
        description="Calls a second that one other peer may make, with bursts of as many; more get `rate_limited`.",
    )
    config: dict[str, Any] = Field(
        default_factory=dict, repr=False, description="For the class's own `Config`, which validates it."
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = super().__get_pydantic_json_schema__(core, handler)
        long_form = dict(made)
        made.clear()
        made |= {"anyOf": [{"type": "string", "pattern": f"^{_CLASS.pattern}$"}, long_form]}
        return made

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return {"class": data} if isinstance(data, str) else data

    @field_serializer("config")
    def _without_secrets(self, config: dict[str, Any]) -> Any:
        return _hidden(config)

    @field_validator("class_path")
    @classmethod
    def _is_a_path(cls, path: str) -> str:
        if not _CLASS.fullmatch(path):
            raise ValueError("is no import path of a class: write package.module.Class")
        return path

    @field_validator("name")
    @classmethod
    def _not_ours(cls, name: str | None) -> str | None:
        if name is not None and name.startswith("bv."):
            raise ValueError("begins with bv., which is kept for the platform's own modules")
        return name


class FolderEntry(Section):
    """A folder whose files are searched for Module classes that are not listed otherwise."""

    folder: ExistingFolder = Field(description="Folder of Python files, from the folder of this file.")


def _kind_of_entry(value: Any) -> str:
    is_folder = isinstance(value, FolderEntry) or (isinstance(value, dict) and "folder" in value)
    return "(folder)" if is_folder else "(class)"


AnyModule = Annotated[
    Annotated[ModuleEntry, Tag("(class)")] | Annotated[FolderEntry, Tag("(folder)")], Discriminator(_kind_of_entry)
]


class PoolSettings(Section):
    """The links to other peers."""

    max_outgoing: int = Field(default=64, ge=1, le=65_536, description="Links that this peer opened; more wait.")
    max_incoming: int = Field(
        default=256, ge=1, le=65_536, description="Links that others opened; more are refused with `link_limit`."
    )
    connect_timeout: Duration = Field(default=20.0, gt=0, le=600, description="Time in which a link must come about.")
    idle_timeout: Duration = Field(
        default=60.0, gt=0, description="How long a link that is held, but not used, stays open."
    )
    heartbeat: Duration = Field(
        default=5.0, ge=0.05, le=300, description="Time between pings; nothing heard for three of them: link lost."
    )


class IceSettings(Section):
    """How ways to other peers are found."""

    servers: tuple[IceServerEntry, ...] = Field(
        default=(), max_length=16, description="Used beside those that the discovery server hands out, and before them."
    )
    policy: Literal["all", "relay"] = Field(
        default="all", description="`relay` uses TURN only, so that no peer learns this machine's address."
    )


class RpcSettings(Section):
    """Calls. What one link may take of this peer, and all of them together."""

    timeout: Duration = Field(default=30.0, gt=0, le=600, description="Deadline of a call that sets none.")
    max_timeout: Duration = Field(
        default=600.0,
        gt=0,
        le=600,
        validate_default=True,
        description="Longest deadline of a call, ours or another peer's; a longer one is cut to it.",
    )
    max_body: Size = Field(
        default=8 * 2**20,
        ge=1024,
        le=16 * 2**20,
        description="Largest request or response, else `too_large`; more goes as a stream.",
    )
    max_calls: int = Field(
        default=1024, ge=1, le=65_536, description="Calls of one other peer that are under way at once, else `busy`."
    )
    queue: int = Field(
        default=1024,
        ge=0,
        le=65_536,
        description="Calls that wait for a module whose `concurrency` is used up, else `busy`.",
    )
    memory: Size = Field(
        default=64 * 2**20,
        ge=2**20,
        le=2**36,
        validate_default=True,
        description="What all links together may hold of long bodies and items, else `busy`; twice `max_body` or more.",
    )
    send_buffer: Size = Field(
        default=4 * 2**20,
        ge=2**18,
        le=2**30,
        description="What may wait to be sent on one link; then calls, answers and streams wait.",
    )
    stall_timeout: Duration = Field(
        default=30.0,
        ge=1,
        le=3600,
        description="How long another peer may acknowledge nothing that it is sent; then its link is closed, `slow`.",
    )

    @field_validator("max_timeout")
    @classmethod
    def _covers_the_default(cls, max_timeout: float, info: ValidationInfo) -> float:
        if max_timeout < info.data.get("timeout", 0):
            raise ValueError("is shorter than rpc.timeout")
        return max_timeout

    @field_validator("memory")
    @classmethod
    def _holds_two_bodies(cls, memory: int, info: ValidationInfo) -> int:
        # One request that is coming in and one answer that is going out: with less, a single call could be `busy`.
        if memory < 2 * info.data.get("max_body", 0):
            raise ValueError("is less than twice rpc.max_body")
        return memory


class TrustSettings(Section):
    """Whom never to talk to."""

    refuse: tuple[Annotated[str, checked(fingerprint_of, "is no key fingerprint")], ...] = Field(
        default=(), description="Key fingerprints never to talk to, whatever the server says (`bv trust list`)."
    )


class PeerSettings(RoleSettings):
    """The settings of a peer."""

    declared_by: ClassVar[str] = "server"

    server: ServerSettings = Field(description="The discovery server to log in to.")
    credentials: CredentialsSettings = Field(description="The account to log in with.")
    modules: tuple[AnyModule, ...] = Field(
        default=(), max_length=1024, description="Module classes to serve, by import path, and folders of them."
    )
    pool: PoolSettings = Field(default_factory=PoolSettings, description="Links to other peers.")
    ice: IceSettings = Field(default_factory=IceSettings, description="How ways to other peers are found.")
    rpc: RpcSettings = Field(default_factory=RpcSettings, description="Calls.")
    trust: TrustSettings = Field(default_factory=TrustSettings, description="Whom never to talk to.")

    def derive_keys(self) -> AccountKeys:
        """The account's keys, by its password and realm. On purpose this takes a while, two tenths of a second."""
        realm = self.server.realm or realm_of(Address.parse(self.server.address).host)
        password = self.credentials.password.get_secret_value()
        return AccountKeys.derive(password, realm=realm, username=self.credentials.username)

    @field_validator("modules", mode="wrap")
    @classmethod
    def _one_module_a_name(
        cls, value: Any, handler: Callable[[Any], Any], info: ValidationInfo
    ) -> tuple[AnyModule, ...]:
        modules: tuple[ModuleEntry | FolderEntry, ...] = ()
        failed: ValidationError | None = None
        try:
            modules = handler(value)
        except ValidationError as error:
            failed = error
        names: set[str] = set()
        problems: list[Problem] = []
        for index, entry in sound_items(value, AnyModule):
            if isinstance(entry, ModuleEntry) and entry.name is not None:
                if entry.name in names:
                    problems.append(((index, "name"), "is the name of an earlier module, too"))
                names.add(entry.name)
        if failed or problems:
            raise wrong(*problems, besides=failed)
        return modules


class _PlannedCredentials(CredentialsSettings):
    """Credentials that need not be there yet."""

    username: str | None = Field(default=None)  # type: ignore[assignment]
    password: Secret | None = Field(default=None)  # type: ignore[assignment]


class PeerToBeSettings(PeerSettings):
    """What a file holds before its peer has an account."""

    credentials: _PlannedCredentials | None = Field(default=None)  # type: ignore[assignment]
