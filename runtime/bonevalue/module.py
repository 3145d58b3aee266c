"""What an author of modules writes: :class:`Module`, and what a call brings along: :class:`Context`."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from msgspec import Struct
from msgspec.structs import force_setattr

from bonevalue.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from bonevalue.peer import Peer

__all__ = ["Caller", "Context", "Module"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of a link, as verified by its key; nothing here comes from what was sent."""

    #: Our alias for the account, ``Us`` for our own.
    name: str
    #: Id of the peer.
    id: str
    #: The account's public key (Ed25519, 32 bytes).
    key: bytes
    #: The key as people compare it.
    fingerprint: str


class _NoItems:
    """The request stream of a call that brings none."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        raise StopAsyncIteration


_NO_ITEMS = _NoItems()


class Context(Struct, frozen=True, eq=False):
    """What a handler may want to know about the call that it answers."""

    # One is made for every call, and most handlers look at none of it: what costs something is made when asked for.

    caller: Caller
    #: When the call ends, in seconds of ``time.monotonic()``; a stream need only begin by then.
    deadline: float
    #: Name under which the module was called.
    module: str
    #: What the caller sends along, item by item: JSON values or bytes. Ends at once if it sends none.
    items: AsyncIterator[Any] = _NO_ITEMS
    _call_id: str = ""
    _log: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def time_left(self) -> float:
        """Seconds until ``deadline``; after it the caller has given up, and the handler is cancelled."""
        return self.deadline - time.monotonic()

    @property
    def call_id(self) -> str:
        """Id of the call; log lines about it carry it, and the caller gets it with an error."""
        if not self._call_id:
            force_setattr(self, "_call_id", secrets.token_hex(6))
        return self._call_id

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines name module, caller and call."""
        log = self._log
        if log is None:
            extra = {"caller": self.caller.name, "peer": self.caller.id, "call_id": self.call_id}
            log = logging.LoggerAdapter(logging.getLogger(f"module.{self.module}"), extra)
            force_setattr(self, "_log", log)
        return log


class Module:
    """
    A named function of a peer, as a class.

    A subclass has a method ``handle(self, request, context)``, of which ``context`` may be left out. ``async def
    handle`` runs on the event loop; a plain ``def handle`` runs in a thread of its own. One that returns a value
    answers with it; one that has ``yield`` in it answers with a stream of items. A ``request`` annotated with a type
    that pydantic knows is validated before ``handle`` is run.

    A subclass may have ``start`` and ``stop`` of its own, and the methods ``on_peerconnect(self, peer)``,
    ``on_peerdisconnect(self, id)`` and ``on_newuser(self, alias)``: plain or async.

    Args:
        config: values for ``Config``, as they stand below ``config:`` in the YAML file.

    Raises:
        ConfigError: the class has no ``Config`` and yet values are given.
        pydantic.ValidationError: they do not fit it.
    """

    #: Name to serve it under; the class name if it is left out.
    name: ClassVar[str]
    #: A pydantic model of the module's own settings.
    Config: ClassVar[type[BaseModel] | None] = None
    #: Whether an entry ``folder:`` of the settings serves it; False if it must be listed by itself.
    drop_in: ClassVar[bool] = True

    #: The validated settings, an instance of ``Config``; None without one.
    config: Any = None
    #: The peer that serves this module, to call others with.
    peer: Peer
    #: A logger named after the module.
    log: logging.Logger

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        if self.Config is not None:
            self.config = self.Config.model_validate(config or {})
        elif config:
            raise ConfigError(f"{type(self).__name__} takes no config: it has no Config class")
        self.log = logging.getLogger(f"module.{self.name}")

    async def start(self) -> None:
        """Run once, before the peer goes online."""

    async def stop(self) -> None:
        """Run once, when the peer has drained; also after a ``start`` that failed half way."""
