"""gRPC for asyncio: unary calls of JSON on one HTTP/2 connection, over loopback TCP in clear."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import msgspec

from benchmarks.calling import REQUEST, CallerRole
from benchmarks.children import Role, run
from benchmarks.contenders.contender import Contender, Pair

__all__ = ["Grpc"]

#: Calls that the server runs at once; the same as ours.
CONCURRENCY = 1024


class Grpc(Contender):
    """grpc.aio."""

    name = "grpc.aio"
    needs = "grpc"

    @asynccontextmanager
    async def meet(self) -> AsyncIterator[Pair]:
        """A server and a client."""
        async with self.two() as pair:
            port = await pair.callee.ask("listen")
            await pair.caller.ask("connect", port=port)
            yield pair


class Callee(Role):
    """The server."""

    _server: Any = None

    async def listen(self) -> int:
        """Serve; gives the port."""
        grpc = import_module("grpc")
        aio = import_module("grpc.aio")

        async def echo(request: Any, context: Any) -> Any:
            return request

        method = grpc.unary_unary_rpc_method_handler(
            echo, request_deserializer=msgspec.json.decode, response_serializer=msgspec.json.encode
        )
        self._server = aio.server(maximum_concurrent_rpcs=CONCURRENCY)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Bench", {"Echo": method}),))
        port: int = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return port

    async def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            await self._server.stop(0)


class Caller(CallerRole):
    """The client."""

    _channel: Any = None

    async def connect(self, port: int) -> None:
        """Open the connection."""
        self._channel = import_module("grpc.aio").insecure_channel(f"127.0.0.1:{port}")
        await self._channel.channel_ready()
        self._echo = self._channel.unary_unary(
            "/Bench/Echo", request_serializer=msgspec.json.encode, response_deserializer=msgspec.json.decode
        )

    def one_call(self) -> Awaitable[Any]:
        """One call."""
        call: Awaitable[Any] = self._echo(REQUEST, timeout=30)
        return call

    async def stop(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            await self._channel.close()


if __name__ == "__main__":
    run({"callee": Callee, "caller": Caller})
