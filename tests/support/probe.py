"""
Modules by which tests look at what happens between peers; tests/support/probe.js is the same for a tab.

A copy of this file goes into the folder of a daemon's modules. ``Probe.Ask`` makes the daemon call somebody; all others
are there to be called. What handlers see goes to a list, which ``Probe.Seen`` gives.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from bonevalue import Context, Module
from bonevalue.errors import BadRequest, BoneValueError, Busy, Denied, RateLimited, TooLarge, Unavailable
from bonevalue.peer import Peer, Target

#: What handlers saw, in order: a word, and what it is about.
_seen: list[list[Any]] = []
#: Calls that :class:`Ask` may be told to cancel, by name.
_asking: dict[str, asyncio.Task[Any]] = {}

_ERRORS: dict[str, type[BoneValueError]] = {
    kind.code: kind for kind in (BadRequest, Busy, Denied, RateLimited, TooLarge, Unavailable)
}


def pattern(size: int) -> bytes:
    """Bytes that are the same wherever they are made, and unlike themselves a little further on."""
    turn = bytes(range(251))
    return (turn * (size // len(turn) + 1))[:size]


def described(value: Any) -> Any:
    """Bytes as JSON can say them: how many, and their SHA-256."""
    return {"size": len(value), "sha256": hashlib.sha256(value).hexdigest()} if isinstance(value, bytes) else value


def pieces(size: int, piece: int) -> Iterator[bytes]:
    """The same bytes as :func:`pattern`, one piece after the other."""
    data = pattern(size)
    for start in range(0, size, piece):
        yield data[start : start + piece]


# -- to be called --------------------------------------------------------------------------------------------------


class Echo(Module):
    name = "Probe.Echo"

    async def handle(self, request: Any) -> Any:
        return request


class Digest(Module):
    """What came, with its hash: the request, or else all items."""

    name = "Probe.Digest"

    async def handle(self, request: Any, context: Context) -> Any:
        if isinstance(request, bytes):
            return described(request)
        size, digest = 0, hashlib.sha256()
        async for item in context.items:
            size += len(item)
            digest.update(item)
        return {"size": size, "sha256": digest.hexdigest()}


class Make(Module):
    """So many bytes."""

    name = "Probe.Make"

    async def handle(self, request: int) -> Any:
        return pattern(request)


class Pieces(Module):
    """So many bytes, as a stream."""

    name = "Probe.Pieces"

    async def handle(self, request: dict[str, int]) -> AsyncIterator[bytes]:
        for piece in pieces(request["size"], request["piece"]):
            yield piece


class Count(Module):
    """Counts up to the request, or without end if there is none."""

    name = "Probe.Count"

    async def handle(self, request: int | None) -> AsyncIterator[int]:
        number = 0
        try:
            while request is None or number < request:
                yield number
                number += 1
                if request is None:
                    await asyncio.sleep(0.01)
        finally:
            _seen.append(["count closed", request])


class Add(Module):
    """The sum of the items."""

    name = "Probe.Add"

    async def handle(self, request: Any, context: Context) -> int:
        total = 0
        async for item in context.items:
            total += item
        return total


class Double(Module):
    """Each item, twice as much, as it comes."""

    name = "Probe.Double"

    async def handle(self, request: Any, context: Context) -> AsyncIterator[int]:
        async for item in context.items:
            yield 2 * item


class Wait(Module):
    """Never answers; says when it is asked, and when it is no longer wanted."""

    name = "Probe.Wait"

    async def handle(self, request: Any) -> None:
        _seen.append(["begun", request])
        try:
            await asyncio.Event().wait()
        finally:
            _seen.append(["cancelled", request])


class Left(Module):
    """Seconds that the call has, as the one who serves it knows."""

    name = "Probe.Left"

    async def handle(self, request: Any, context: Context) -> float:
        return context.time_left


class Who(Module):
    """Who calls."""

    name = "Probe.Who"

    async def handle(self, request: Any, context: Context) -> Any:
        caller = context.caller
        return {"name": caller.name, "id": caller.id, "fingerprint": caller.fingerprint}


class Fail(Module):
    """Fails, with the error of that code if a handler may say it, else with one of its own."""

    name = "Probe.Fail"

    async def handle(self, request: str) -> None:
        if request in _ERRORS:
            raise _ERRORS[request](f"said {request}")
        raise RuntimeError("on purpose")


class Secret(Module):
    """Listed in the settings for nobody but one's own account."""

    name = "Probe.Secret"

    async def handle(self, request: Any) -> str:
        return "the secret"


class Seen(Module):
    name = "Probe.Seen"

    async def handle(self, request: Any) -> list[list[Any]]:
        return _seen


class Events(Module):
    """What this peer is told of others."""

    name = "Probe.Events"

    async def on_peerconnect(self, peer: Any) -> None:
        _seen.append(["peerconnect", [peer.name, peer.id]])

    async def on_peerdisconnect(self, peer_id: str) -> None:
        _seen.append(["peerdisconnect", peer_id])

    async def on_newuser(self, alias: str) -> None:
        _seen.append(["newuser", alias])

    async def handle(self, request: Any) -> Any:
        return [[peer.name, peer.id] for peer in self.peer.peers()]


# -- to call others ------------------------------------------------------------------------------------------------


class Ask(Module):
    """
    Calls somebody and says how it went: ``{"response": ...}``, ``{"items": [...]}``, and ``{"error": {...}}``.

    The request has ``target``, ``module`` and ``request``, or ``bytes`` for a request of so many; ``items``, or
    ``pieces`` with ``size`` and ``piece``; ``stream`` for an answer in items, ``take`` for so many of them at most;
    ``all`` for the options of a fan-out; ``options`` for those of the call; ``name`` for ``Probe.Cancel``.
    """

    name = "Probe.Ask"

    async def handle(self, request: dict[str, Any]) -> Any:
        task = asyncio.create_task(_ask(self.peer, request))
        name = request.get("name", "")
        _asking[name] = task
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            if not task.cancelled():
                raise
            return {"error": {"code": "cancelled"}}
        finally:
            _asking.pop(name, None)


class Cancel(Module):
    """Cancels what :class:`Ask` is doing under a name."""

    name = "Probe.Cancel"

    async def handle(self, request: str) -> None:
        _asking[request].cancel()


class Token(Module):
    """Makes a token for an alias, or claims one, or ends trust."""

    name = "Probe.Token"

    async def handle(self, request: dict[str, str]) -> Any:
        try:
            if "remove" in request:
                await self.peer.remove_user(request["remove"])
                return None
            if "token" in request:
                await self.peer.claim_token(request["alias"], request["token"])
                return None
            return await self.peer.request_token(request["alias"])
        except BoneValueError as error:
            return {"error": _error(error)}


class Contacts(Module):
    """The contacts of this peer: name, fingerprint, and the code of what is wrong."""

    name = "Probe.Contacts"

    async def handle(self, request: Any) -> Any:
        return [
            [contact.name, contact.fingerprint or "", contact.problem.code if contact.problem else None]
            for contact in self.peer.contacts()
        ]


async def _ask(peer: Peer, spec: dict[str, Any]) -> dict[str, Any]:
    target = peer.get(spec["target"])
    if "all" in spec:
        return {"results": await _ask_all(target, spec)}
    options = dict(spec.get("options", {}))
    if "pieces" in spec:
        options["items"] = pieces(**spec["pieces"])
    elif "items" in spec:
        options["items"] = spec["items"]
    request = pattern(spec["bytes"]) if "bytes" in spec else spec.get("request")
    received: list[Any] = []
    try:
        if not spec.get("stream"):
            return {"response": described(await target.call(spec["module"], request, **options))}
        async with target.stream(spec["module"], request, **options) as stream:
            async for item in stream:
                received.append(item)
                if len(received) == spec.get("take"):
                    break
        return {"items": _joined(received)}
    except BoneValueError as error:
        return {"items": _joined(received), "error": _error(error)}


async def _ask_all(target: Target, spec: dict[str, Any]) -> list[Any]:
    results = []
    async for result in target.call_all(spec["module"], spec.get("request"), **spec["all"]):
        answer = {"response": result.response} if result.error is None else {"error": _error(result.error)}
        results.append({"peer": result.peer.id, **answer})
    return results


def _joined(items: list[Any]) -> Any:
    """Items as they are, or their bytes described together."""
    return described(b"".join(items)) if items and isinstance(items[0], bytes) else items


def _error(error: BoneValueError) -> dict[str, Any]:
    return {"code": error.code, "message": str(error), "peer": error.peer, "callId": error.call_id or None}
