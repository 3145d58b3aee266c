"""
``bv-run FILE``: runs the roles that a settings file declares until it is told to stop.

Start: settings, then the pages of ``metrics:``, the discovery server, the peer; each says one line when it stands. The
peer does not wait for its server: it retries, and says when it is online.

Stop: the first SIGINT or SIGTERM drains (calls under way may finish, for :data:`DRAIN` seconds at most), says goodbye
to the discovery server and its clients, and exits 0. A second one finds the signals back in the system's hands and
ends the process at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop

from bonevalue import logs
from bonevalue.cli import server_role
from bonevalue.cli.options import Version
from bonevalue.cli.settings import DISCOVERY, PEER, read_all
from bonevalue.config import PeerSettings
from bonevalue.loader import modules_of
from bonevalue.serving import ServedModule
from bonevalue.settings_fields import Endpoint, RoleSettings
from bonevalue.settings_file import Loaded

if TYPE_CHECKING:
    from bonevalue.metrics import Pages

__all__ = ["DRAIN", "app"]

#: Seconds that running calls have to finish.
DRAIN = 10.0
#: Seconds on top of them to close what is open.
GRACE = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger(__name__)
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


class Role(StrEnum):
    """What a process can be."""

    peer = PEER
    discovery = DISCOVERY


@app.command(
    epilog="Example: bv-run bonevalue.yaml\n\n"
    "Exit codes: 0 stopped by SIGINT or SIGTERM, 1 refused or port taken, 2 wrong usage or settings."
)
def run_daemon(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The settings: see bv init, bv check and bv config.")],
    only: Annotated[
        Role | None, typer.Option("--only", help="Run this role only, whatever else the file declares.")
    ] = None,
    version: Version = False,
) -> None:
    """
    Run what the file declares: a discovery server (section discovery), a peer (section server), or both.

    SIGINT (Ctrl-C) and SIGTERM let running calls finish, for 10 seconds at most; a second one ends it at once.
    """
    loaded = read_all(file, only=None if only is None else [only.value])
    modules = modules_of(loaded)
    loaded.faults.check()
    common: RoleSettings = next(settings for settings in loaded.settings.values() if settings is not None)
    logs.configure(common.log.level, common.log.format)
    for warning in loaded.warnings:
        logger.warning(warning)
    uvloop.run(_serve(loaded, modules, common.metrics))


async def _serve(loaded: Loaded, modules: Sequence[ServedModule], metrics: Endpoint | None) -> None:
    told = _told_to_stop()
    async with AsyncExitStack() as roles:
        ready: dict[str, Callable[[], bool]] = {
            name: lambda: False for name, settings in loaded.settings.items() if settings is not None
        }
        pages = None if metrics is None else await _show(metrics, ready)
        if pages is not None:
            roles.push_async_callback(pages.stop)
        discovery = loaded.settings[DISCOVERY]
        if discovery is not None:
            server = server_role.discovery_server(discovery)
            roles.push_async_callback(server.stop)
            ready[DISCOVERY] = lambda: server.is_listening
            if pages is not None:
                pages.show_discovery(server, server.counters)
            if not await _unless(told, server.start()):
                return
        settings = loaded.get(PeerSettings)
        if settings is None:
            _keep_what_is_there()
            await told
            return
        from bonevalue.peer import Peer  # late: only a peer needs WebRTC, and a server or faulty settings do not

        peer = Peer.from_settings(settings, modules=modules)
        roles.push_async_callback(peer.stop, drain=DRAIN)
        ready[PEER] = lambda: peer.is_online
        if pages is not None:
            pages.show_peer(peer, peer.counters)
        if await _unless(told, peer.start(wait=False)):
            _keep_what_is_there()
            await _unless(told, peer.closed())


def _keep_what_is_there() -> None:
    """Spare the garbage collector all that stays anyway: going through it holds up everything for tens of ms."""
    gc.collect()
    gc.freeze()


async def _show(endpoint: Endpoint, ready: Mapping[str, Callable[[], bool]]) -> Pages:
    """Serve the pages of ``metrics:``, on which each role that is ready says so."""
    from bonevalue.metrics import Pages  # late: they need an HTTP server, and most processes have no such pages

    pages = Pages(endpoint, lambda: {name: is_ready() for name, is_ready in ready.items()})
    await pages.start()
    logger.info("metrics on http://%s/metrics", Endpoint(endpoint.host, pages.port))
    if not endpoint.is_loopback:
        logger.warning("metrics: whoever reaches %s may read them", endpoint)
    return pages


def _told_to_stop() -> asyncio.Future[None]:
    """A future that the first SIGINT or SIGTERM completes."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()

    def stop(number: signal.Signals) -> None:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        logger.info("%s: stopping, running calls have %.0f s", number.name, DRAIN)
        _leave_anyway()
        told.set_result(None)

    for each in _SIGNALS:
        loop.add_signal_handler(each, stop, each)
    return told


def _leave_anyway() -> None:
    """See to it that the process ends when its time is over, whatever hangs: a module's ``stop``, or its thread."""
    last = threading.Timer(DRAIN + GRACE, os._exit, (0,))
    last.daemon = True
    last.start()


async def _unless(told: asyncio.Future[None], work: Awaitable[None]) -> bool:
    """Do the work to its end and give True; or, when told to stop, cancel it and give False."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((told, task), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
