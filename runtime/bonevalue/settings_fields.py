"""
What the fields of the settings are made of: the frozen base model, and durations, sizes, rates, addresses, secrets.

No validator here ever puts the value it refuses into its message: the report of :mod:`bonevalue.settings_file`
names file, line and key instead, so that no message can carry a secret that was written at the wrong place.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bonevalue.errors import BoneValueError
from bonevalue.ice_url import parse_ice_url
from bonevalue.settings_units import (
    DURATION,
    NUMBER,
    RATE,
    Rate,
    duration_text,
    parse_duration,
    parse_size,
    size_text,
)

__all__ = [
    "NAME_RULE",
    "PRIVATE",
    "Duration",
    "Endpoint",
    "ExistingFile",
    "ExistingFolder",
    "IceServerEntry",
    "IceUrlText",
    "Listen",
    "LocalPath",
    "LogSettings",
    "Problem",
    "Rate",
    "RateText",
    "RoleSettings",
    "Secret",
    "Section",
    "Size",
    "checked",
    "duration_text",
    "from_folder",
    "is_loopback",
    "is_private",
    "is_secret",
    "keys_of",
    "one_or_more",
    "parse_duration",
    "parts_of",
    "sections_of",
    "sound_items",
    "starting_from",
    "text_with_unit",
    "wrong",
]

#: A path below a field, and what is wrong there.
Problem = tuple[tuple[str | int, ...], str]

#: What usernames and aliases are, for people.
NAME_RULE = "1 to 32 of a-z 0-9 _ . -, not all digits, not us"


# pydantic-settings offers no way to hand a validation context to its models.
_start: ContextVar[Path | None] = ContextVar("folder", default=None)


class Section(BaseModel):
    """
    A mapping of the settings: frozen, no unknown keys, every field described.

    A null says the same as leaving the key out, so that ``pool:`` with everything below it commented out is no fault.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            return {key: value for key, value in data.items() if value is not None}
        return data

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler.resolve_ref_schema(handler(core))
        properties, required, defaults = made["properties"], made.get("required", []), cls.written_defaults()
        for key, info in cls.key_fields().items():
            properties[key] = _as_written(properties[key], needed=key in required)
            properties[key]["description"] = info.description
            if key in defaults:
                properties[key]["default"] = defaults[key]
            if is_secret(info):
                twin = f"{key}_file"
                properties[twin] = {"type": ["string", "null"], "description": f"A file that holds `{key}`."}
                if key in required:
                    required.remove(key)
                    made.setdefault("allOf", []).append({"oneOf": [{"required": [key]}, {"required": [twin]}]})
        return made

    @classmethod
    def key_fields(cls) -> dict[str, FieldInfo]:
        """Its fields by the names that they have in a file."""
        return {info.alias or name: info for name, info in cls.model_fields.items()}

    @classmethod
    def written_defaults(cls) -> dict[str, Any]:
        """The defaults of its keys, as they would be written in a file; secrets and sections left out."""
        names = {
            name
            for name, info in cls.model_fields.items()
            if not (info.is_required() or info.default_factory or info.default == "" or is_secret(info))
        }
        return cls.model_construct().model_dump(mode="json", include=names, by_alias=True)


class RoleSettings(Section, BaseSettings):
    """
    All settings of one role (peer or discovery server), from one file and the environment.

    The names of environment variables are pydantic-settings' own, prefix and delimiter as configured here. The
    environment itself is read by :mod:`bonevalue.settings_environment` and not here, for two reasons: settings made in
    code are what their arguments say, and a fault in a variable is reported with its name, beside those of the file.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        env_prefix="BV_",
        env_nested_delimiter="__",
    )

    #: The top-level key whose presence makes a file declare the role.
    declared_by: ClassVar[str]
    #: Whether the fields stand inside that key; otherwise they are top-level keys themselves.
    inside: ClassVar[bool] = False

    metrics: Listen | None = Field(
        default=None,
        description="Where `bv-run` serves `/metrics`, `/healthz` and `/readyz` of this process; nowhere if left out.",
    )
    log: LogSettings = Field(default_factory=lambda: LogSettings(), description="What is logged, and how.")

    #: Fields that are top-level keys in any case and belong to every role.
    shared: ClassVar[frozenset[str]] = frozenset({"log", "metrics"})

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given is all there is; see above."""
        return (init_settings,)


def _as_written(schema: JsonSchemaValue, *, needed: bool) -> JsonSchemaValue:
    """What may stand in the file for a value: also ``${VAR}``, and null for what may be left out."""
    about = {word: schema[word] for word in ("description", "default") if word in schema}
    rest = {word: content for word, content in schema.items() if word not in ("description", "default", "title")}
    options = rest.get("anyOf", [rest])
    if any(option.get("type") in ("integer", "number", "boolean") or "enum" in option for option in options):
        options = [*options, {"type": "string", "pattern": r"\$\{.*\}"}]
    if not needed and {"type": "null"} not in options:
        options = [*options, {"type": "null"}]
    return (about | {"anyOf": options}) if len(options) > 1 else about | rest


def wrong(*problems: Problem, besides: ValidationError | None = None) -> ValidationError:
    """
    The error to raise in a validator that found faults below its own field.

    Args:
        problems: path from the field, and what is wrong there.
        besides: what pydantic found itself, to be reported with them.
    """
    lines = [
        InitErrorDetails(type=PydanticCustomError("rule", "{text}", {"text": message}), loc=path, input=None)
        for path, message in problems
    ]
    for entry in besides.errors(include_url=False, include_input=False) if besides else ():
        # Pydantic's own kinds have messages of their own; as custom ones of the same name they keep them.
        context = dict(entry.get("ctx", {})) | {"text": entry["msg"]}
        kind: Any = entry["type"]
        lines.append(InitErrorDetails(type=PydanticCustomError(kind, "{text}", context), loc=entry["loc"], input=None))
    return ValidationError.from_exception_data("settings", lines, hide_input=True)


def sound_items(items: Any, annotation: Any) -> list[tuple[int, Any]]:
    """The items of a list that are valid by themselves, with their indexes; ``annotation`` is that of one item."""
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    found: list[tuple[int, Any]] = []
    for index, item in enumerate(items if isinstance(items, (list, tuple)) else ()):
        try:
            found.append((index, adapter.validate_python(item)))
        except ValidationError:
            continue
    return found


# -- what an annotation holds -----------------------------------------------------------------------------------


def parts_of(annotation: Any) -> Iterator[Any]:
    """An annotation and everything inside it: the members of unions, the items of lists."""
    yield annotation
    for part in get_args(annotation):
        yield from parts_of(part)


def sections_of(annotation: Any) -> list[type[Section]]:
    """The sections that a value of this annotation is, or is a list of."""
    return [part for part in parts_of(annotation) if isinstance(part, type) and issubclass(part, Section)]


def keys_of(sections: Iterable[type[Section]]) -> dict[str, FieldInfo]:
    """The keys that a mapping may have which is one of these sections."""
    return {key: info for section in sections for key, info in section.key_fields().items()}


def is_secret(info: FieldInfo) -> bool:
    """Whether a field is a secret, so that it has a ``_file`` twin."""
    return SecretStr in parts_of(info.annotation)


def is_private(info: FieldInfo) -> bool:
    """Whether a field names a file that only its owner should be able to read."""
    return PRIVATE in info.metadata


# -- durations, sizes, rates -----------------------------------------------------------------------------------

Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(duration_text, when_used="json"),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^{DURATION.pattern}$"}]}
    ),
]
"""Seconds as a float; in the file also ``250ms``, ``20s``, ``5m``, ``1h``, ``7d``."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(size_text, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": rf"^{NUMBER} ?([kKmMgG]?[iI]?[bB])?$"},
            ]
        }
    ),
]
"""Bytes as an int; in the file also ``64KiB``, ``8MiB``, ``1MB``."""

RateText = Annotated[
    Rate,
    BeforeValidator(Rate.parse),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": f"^{RATE.pattern}$"}),
]
"""A :class:`Rate`; in the file ``20/s burst 256``."""


def text_with_unit(info: FieldInfo) -> Callable[[Any], str]:
    """What writes a value of a field as people read it: ``10m`` for a duration, ``16MiB`` for a size."""
    readers = {getattr(entry, "func", None) for entry in info.metadata}
    return duration_text if parse_duration in readers else size_text if parse_size in readers else str


# -- addresses -------------------------------------------------------------------------------------------------


def is_loopback(host: str) -> bool:
    """Whether a literal host name or address is this machine's loopback; nothing is resolved."""
    host = host.removeprefix("[").removesuffix("]").rstrip(".").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port to listen on."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach it."""
        return is_loopback(self.host)

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every address of this machine."""
        return self.host in ("0.0.0.0", "::")

    @classmethod
    def parse(cls, value: object) -> Endpoint:
        """
        The endpoint of ``127.0.0.1:8008``, ``[::1]:8008`` or ``example.org:8008``; port 0 lets the system choose.

        Raises:
            ValueError: it is none.
        """
        if isinstance(value, Endpoint):
            return value
        found = (
            re.fullmatch(r"(?:\[([0-9a-fA-F:.%]{2,64})\]|([A-Za-z0-9_.-]{1,253})):([0-9]{1,5})", value.strip())
            if isinstance(value, str)
            else None
        )
        if found is None or int(found[3]) > 65535:
            raise ValueError("is no host:port: write 127.0.0.1:8008, 0.0.0.0:8008 or [::1]:8008")
        if found[1]:
            try:
                ipaddress.IPv6Address(found[1])
            except ValueError:
                raise ValueError("holds no IPv6 address between its brackets") from None
        return cls(found[1] or found[2], int(found[3]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Listen = Annotated[
    Endpoint,
    BeforeValidator(Endpoint.parse),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^.+:[0-9]{1,5}$"}),
]
"""An :class:`Endpoint`; in the file ``host:port``."""


# -- paths and secrets -----------------------------------------------------------------------------------------


@contextmanager
def starting_from(folder: Path) -> Iterator[None]:
    """Within it, relative paths in settings start from this folder; otherwise they are left as they are."""
    token = _start.set(folder)
    try:
        yield
    finally:
        _start.reset(token)


def from_folder(path: Path) -> Path:
    """The path, from the folder of :func:`starting_from`; ``~`` is the home folder."""
    folder = _start.get()
    try:
        return path if folder is None else Path(folder, path.expanduser())
    except RuntimeError:
        raise ValueError("names the home folder of nobody") from None


LocalPath = Annotated[
    Path,
    AfterValidator(from_folder),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
"""A path; a relative one starts from the folder of the settings file."""


def _file(path: Path) -> Path:
    if not os.path.isfile(path):  # Path.is_file() lets some OSErrors through
        raise ValueError("names a file that does not exist")
    return path


def _folder(path: Path) -> Path:
    if not os.path.isdir(path):
        raise ValueError("names a folder that does not exist")
    return path


ExistingFile = Annotated[LocalPath, AfterValidator(_file)]
"""A :data:`LocalPath` at which a file stands now."""

PRIVATE = "private"
"""Marks a field as the path of a file that nobody else should be able to read."""

ExistingFolder = Annotated[LocalPath, AfterValidator(_folder)]
"""A :data:`LocalPath` at which a folder stands now."""

Secret = Annotated[SecretStr, Field(min_length=1, max_length=4096)]
"""Text that no log, repr or dump shows. In a file, ``KEY_file`` may name a file that holds it instead."""


# -- sections that both roles have -----------------------------------------------------------------------------


def one_or_more(value: object) -> object:
    """Text that stands for a list of one."""
    return [value] if isinstance(value, str) else value


def _ice_url(text: str) -> str:
    return parse_ice_url(text).text


IceUrlText = Annotated[str, AfterValidator(_ice_url)]
"""The URL of a STUN or TURN server."""


class IceServerEntry(Section):
    """One STUN or TURN server."""

    urls: Annotated[
        tuple[IceUrlText, ...],
        BeforeValidator(one_or_more),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
        Field(min_length=1, max_length=8),
    ] = Field(
        description=(
            "`stun:HOST:PORT`, `turn:HOST:PORT?transport=udp` or `turns:HOST:PORT`; one, or a list: UDP is tried "
            "first, then TCP, then TLS."
        )
    )
    username: str | None = Field(
        default=None, min_length=1, max_length=512, validate_default=True, description="For TURN, which needs one."
    )
    credential: Secret | None = Field(default=None, validate_default=True, description="For TURN, which needs one.")

    @field_validator("username", "credential")
    @classmethod
    def _turn_has_both(cls, value: str | SecretStr | None, info: ValidationInfo) -> str | SecretStr | None:
        urls = info.data.get("urls")
        if urls is not None and value is None and any(url.startswith("turn") for url in urls):
            raise ValueError("is missing: a TURN server needs username and credential")
        return value


class LogSettings(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is shown."
    )
    format: Literal["console", "json"] = Field(
        default="console", description="`console` for people, `json` for one object a line."
    )


RoleSettings.model_rebuild()


def checked(check: Callable[[str], str], message: str) -> AfterValidator:
    """A validator that applies a rule of the wire, with a message that does not repeat the value as the rule's does."""

    def validate(value: str) -> str:
        try:
            return check(value)
        except (BoneValueError, ValueError):
            raise ValueError(message) from None

    return AfterValidator(validate)
