"""What it means when a discovery server is not the right one, says no, or goes away."""

from __future__ import annotations

from typing import NamedTuple

from bonevalue.errors import (
    ERRORS,
    BoneValueError,
    DiscoveryError,
    GoingAway,
    RealmMismatch,
    RemoteProtocolError,
    ServerUnreachable,
    error_of,
)
from bonevalue.wire.signals import Failure, Goodbye, Hello

__all__ = ["MAX_TEXT", "VERSION", "Parting", "check_greeting", "failure_error", "parting_of", "plain"]

#: The version of the discovery protocol that this program speaks.
VERSION = 1
#: Longest text from outside that is shown to anybody, in characters.
MAX_TEXT = 300

_CLOSED_BECAUSE = {kind.close: kind for kind in ERRORS.values() if kind.close is not None}


def plain(text: str) -> str:
    """Text from outside, cut to :data:`MAX_TEXT`, without anything that a terminal or a log would act upon."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_TEXT])


def failure_error(failure: Failure) -> BoneValueError:
    """The error that a failure from outside stands for."""
    return error_of(plain(failure.code)[:64], plain(failure.message), retry_after=failure.retry_after)


def check_greeting(hello: Hello, realm: str) -> None:
    """
    Whether anything derived from a password that is bound to `realm` may be shown to the server that says this.

    Raises:
        RealmMismatch: the server is of another realm.
        RemoteProtocolError: it speaks another version of the protocol.
    """
    if hello.version != VERSION:
        raise RemoteProtocolError(
            f"the discovery server speaks version {hello.version} of the protocol, this program version {VERSION}"
        )
    if hello.realm != realm:
        theirs = plain(hello.realm)
        raise RealmMismatch(
            f"the discovery server says that its realm is {theirs!r}, but the password is bound to {realm!r}: if it "
            f"is the right server, set server.realm to {theirs!r}. Nothing secret was sent"
        )
    if len(hello.challenge) != 32:
        raise RemoteProtocolError(f"the discovery server's challenge has {len(hello.challenge)} bytes, not 32")


class Parting(NamedTuple):
    """Why a connection to the server is over."""

    error: BoneValueError
    final: bool
    retry_after: float | None


def parting_of(code: int | None, reason: str, goodbye: Goodbye | None, failure: BoneValueError | None) -> Parting:
    """
    What to make of a closed socket.

    Args:
        code: the server's close code, None if it sent none; 4500 to 4999 mean for good.
        reason: the text that came with it, or why the socket broke.
        goodbye: what the server said before, if it did.
        failure: why it refused the login, if only the close code tells whether to come back.
    """
    final = code is not None and 4500 <= code <= 4999
    retry_after = failure.retry_after if failure is not None else None
    kind: type[BoneValueError] = DiscoveryError if final else ServerUnreachable
    if code is not None:
        kind = _CLOSED_BECAUSE.get(code, kind)
    if goodbye is not None:
        final = final or goodbye.reconnect_after is None
        retry_after = goodbye.reconnect_after
        kind, reason = ERRORS.get(goodbye.reason, GoingAway), goodbye.reason
    why = plain(reason) or (f"code {code}" if code is not None else "without a word")
    return Parting(failure or kind(f"the discovery server closed the connection: {why}"), final, retry_after)
