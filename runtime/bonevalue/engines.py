"""
The engine that makes links: WebRTC, loaded when it is needed and not before.

It takes longer to load than everything else together, and commands such as ``bv peers`` need no link at all.
"""

from __future__ import annotations

from bonevalue.link import Connection, IceConfig, LinkEngine

__all__ = ["LateEngine", "load"]


def load() -> LinkEngine:
    """
    Load WebRTC, which takes a third of a second; may be called in a thread.

    Raises:
        ConfigError: the installed aiortc is not one that this was written for.
    """
    from bonevalue.rtc import RtcEngine

    return RtcEngine()


class LateEngine:
    """An engine that is loaded for the first connection that it makes; its errors are those of :func:`load`."""

    def __init__(self) -> None:
        self._engine: LinkEngine | None = None

    def connection(self, ice: IceConfig) -> Connection:
        """A new connection. Must be called in a running event loop, which stands still while the engine is loaded."""
        if self._engine is None:
            self._engine = load()
        return self._engine.connection(ice)
