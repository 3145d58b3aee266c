"""How a peer describes the modules that it serves and the links that it has: ``bv.modules`` and ``bv.links``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from bonevalue.errors import RemoteProtocolError
from bonevalue.link import PathInfo

__all__ = ["LINKS", "MODULES", "LinkDescription", "ModuleDescription", "PeerName", "read_descriptions", "read_links"]

_Shape = TypeVar("_Shape")

#: Names of the modules that give them.
MODULES = "bv.modules"
LINKS = "bv.links"


@dataclass(frozen=True, slots=True)
class ModuleDescription:
    """One module, as the peer that serves it describes it to its caller."""

    name: str
    #: What its author says of it; may be empty.
    doc: str
    #: Whether it is known to answer with a stream.
    stream: bool
    #: JSON Schema of the request; None if the author gave none.
    request: dict[str, Any] | None
    #: JSON Schema of the response, of one item if it is a stream; None if the author gave none.
    response: dict[str, Any] | None


class PeerName(msgspec.Struct, frozen=True):
    """A peer, as another one knows it."""

    #: Its alias there; empty as long as it is not known.
    name: str
    id: str


class LinkDescription(msgspec.Struct, frozen=True, rename="camel"):
    """One link, or one that is being set up, as the peer that has it describes it to others of its account."""

    peer: PeerName
    #: Whether the peer that describes it has dialled.
    dialled: bool
    state: str
    #: For how long it has been in that state.
    seconds: float
    #: None for what is not known yet.
    fingerprint: str | None
    path: PathInfo | None
    #: In seconds.
    round_trip: float | None
    #: Calls that are under way on it.
    calls: int
    agent: str
    doubted: bool


def read_descriptions(answer: Any) -> list[ModuleDescription]:
    """
    What a peer answered, which may be anything.

    Raises:
        RemoteProtocolError: it is no answer of ``bv.modules``.
    """
    return _read(answer, list[ModuleDescription], MODULES)


def read_links(answer: Any) -> list[LinkDescription]:
    """
    What a peer answered, which may be anything.

    Raises:
        RemoteProtocolError: it is no answer of ``bv.links``.
    """
    return _read(answer, list[LinkDescription], LINKS)


def _read(answer: Any, shape: type[_Shape], module: str) -> _Shape:
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(f"not an answer of {module}: {error}") from error
