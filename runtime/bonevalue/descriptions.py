"""How a peer describes the modules that it serves: the answer of ``bv.modules``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from bonevalue.errors import RemoteProtocolError

__all__ = ["MODULES", "ModuleDescription", "read_descriptions"]

#: Name of the module that gives them.
MODULES = "bv.modules"


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


def read_descriptions(answer: Any) -> list[ModuleDescription]:
    """
    What a peer answered, which may be anything.

    Raises:
        RemoteProtocolError: it is no answer of ``bv.modules``.
    """
    try:
        return msgspec.convert(answer, list[ModuleDescription])
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(f"not an answer of {MODULES}: {error}") from error
