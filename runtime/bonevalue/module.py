"""What an author of modules writes: :class:`Module`, and what a call brings along: :class:`Context`."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

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


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler may want to know about the call that it answers."""

    caller: Caller
    #: When the call ends, in seconds of ``time.monotonic()``.
    deadline: float
    #: Id of the call; log lines about it carry it, and the caller gets it with an error.
    call_id: str
    #: A logger whose lines name module, caller and call.
    log: logging.LoggerAdapter[logging.Logger]

    @property
    def time_left(self) -> float:
        """Seconds until the call ends; after that its caller has given up, and the handler is cancelled."""
        return self.deadline - time.monotonic()


class Module:
    """
    A named function of a peer, as a class.

    A subclass has a method ``handle(self, request, context)``, of which ``context`` may be left out. ``async def
    handle`` runs on the event loop; a plain ``def handle`` runs in a thread of its own. A ``request`` annotated
    with a type that pydantic knows is validated before ``handle`` is run.

    A subclass may have the methods ``on_peerconnect(self, peer)``, ``on_peerdisconnect(self, id)`` and
    ``on_newuser(self, alias)``, plain or async.

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
