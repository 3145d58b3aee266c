"""What a peer serves: runs the handler of each call, and turns what comes out of it into an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Protocol

from bonevalue.counters import Counters
from bonevalue.errors import (
    BadRequest,
    BoneValueError,
    Busy,
    Cancelled,
    Denied,
    HandlerFailed,
    NoModule,
    RateLimited,
    TooLarge,
    Unavailable,
)
from bonevalue.log_limit import LogLimit
from bonevalue.module import Caller, Context
from bonevalue.serving import Answer, ModuleSet
from bonevalue.wire.calls import LinkSettings
from bonevalue.wire.events import CallReceived
from bonevalue.wire.memory import MemoryBudget
from bonevalue.workers import Job, Workers

__all__ = ["Answering", "Host"]

logger = logging.getLogger(__name__)

#: Errors that a handler may raise for its caller to see. Any other, and one that came from a call of the handler's
#: own, is ``handler_failed``: the caller cannot do anything about it.
_SPOKEN = (BadRequest, Busy, Denied, RateLimited, TooLarge, Unavailable)


class Answering(Answer, Protocol):
    """Where the answer to one call goes, on the link that the call came over."""

    #: What the caller sends after its request; None if it sends nothing.
    items: AsyncIterator[Any] | None

    def fail(self, error: BoneValueError) -> None:
        """The call ends with an error; without effect if it has ended."""


class Host:
    """
    The modules that a peer serves, and what its links have in common.

    Args:
        settings: what this side takes on each link.
        memory: bytes that all links together may hold of what has come in and is not complete, or not taken.
        send_buffer: bytes on a link that were sent and not acknowledged, beyond which it waits.
        stall_timeout: seconds without any acknowledgement after which a link is closed.
        queue: calls that wait for one module.
        counters: where to count.
    """

    def __init__(
        self,
        settings: LinkSettings,
        *,
        memory: int = 64 * 2**20,
        send_buffer: int = 4 * 2**20,
        stall_timeout: float = 30.0,
        queue: int = 1024,
        counters: Counters | None = None,
    ) -> None:
        self.settings = settings
        self.memory = MemoryBudget(memory)
        self.send_buffer = send_buffer
        self.stall_timeout = stall_timeout
        self.counters = counters or Counters()
        self.modules = ModuleSet(self.counters, queue=queue)
        self._workers = Workers()
        self._log_limit = LogLimit(self.counters)

    @property
    def running(self) -> set[asyncio.Task[None]]:
        """The tasks in which handlers are run just now."""
        return self._workers.tasks

    def start(self, call: CallReceived, caller: Caller, answer: Answering) -> Job:
        """Run the handler of a call and answer it, from the next turn of the event loop on."""
        return self._workers.start(self._serve(call, caller, answer))

    async def _serve(self, call: CallReceived, caller: Caller, answer: Answering) -> None:
        module = self.modules.get(call.module)
        if module is None:
            answer.fail(NoModule(f"no module {call.module!r} here"))
            return
        if answer.items is None:
            context = Context(caller, call.deadline, call.module)
        else:
            context = Context(caller, call.deadline, call.module, answer.items)
        try:
            blocked = answer.blocked()
            if blocked is not None:
                await blocked
            await module.run(call.body, call.raw, context, answer)
        except asyncio.CancelledError:
            # Without effect if the remote peer, or the deadline, cancelled it: then the call is no longer there.
            answer.fail(Cancelled("this peer cancelled the call"))
            raise
        except _SPOKEN as error:
            if error.peer is None:
                error.call_id = context.call_id
                answer.fail(error)
            else:
                answer.fail(self._handler_failed(context, error))
        except (Exception, SystemExit) as error:  # a module must not end the process
            answer.fail(self._handler_failed(context, error))
        else:
            self.counters.calls_served += 1

    def _handler_failed(self, context: Context, error: BaseException) -> HandlerFailed:
        caller = context.caller
        passes, left_out = self._log_limit.passes((caller.id, context.module))
        if passes:
            logger.error(
                "module %s failed, call %s from %s/%s%s",
                context.module,
                context.call_id,
                caller.name,
                caller.id,
                f" ({left_out} such lines left out)" if left_out else "",
                exc_info=error,
            )
        text = f"{context.module} failed; its log has it under {context.call_id}"
        return HandlerFailed(text, call_id=context.call_id)
