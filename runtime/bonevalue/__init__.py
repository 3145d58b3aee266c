"""
BoneValue: programs on different machines, and browser tabs, call each other directly.

This package exports what an author of modules needs, and is light to import. Whoever wants a peer in code writes
``from bonevalue.peer import Peer``.
"""

from bonevalue.errors import (
    BadRequest,
    BoneValueError,
    Busy,
    CallError,
    ConfigError,
    Denied,
    DiscoveryError,
    LinkError,
    TooLarge,
    Unavailable,
)
from bonevalue.module import Caller, Context, Module

__all__ = [
    "BadRequest",
    "BoneValueError",
    "Busy",
    "CallError",
    "Caller",
    "ConfigError",
    "Context",
    "Denied",
    "DiscoveryError",
    "LinkError",
    "Module",
    "TooLarge",
    "Unavailable",
]
