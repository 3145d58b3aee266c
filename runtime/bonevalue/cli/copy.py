"""``bv copy``: one file to a peer that serves files, or from it."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from bonevalue.cli.copy_ends import FileReceiver, FileSender, Receiver, StandardInput, StandardOutput
from bonevalue.cli.copy_progress import copy_progress, size_for_people
from bonevalue.cli.copy_transfers import Damaged, Download, Place, Transfer, Upload
from bonevalue.cli.joining import joined, run
from bonevalue.cli.options import CALLS, DEFAULT_FILE, ConfigFile, JsonLines
from bonevalue.cli.program import Failed, fault, report
from bonevalue.cli.results import Timeout, entry, label, nobody
from bonevalue.cli.screen import OutputLost, emit, hint, plain, say
from bonevalue.cli.settings import load_peer
from bonevalue.errors import BadRequest, BoneValueError, Busy, ConnectFailed, NoModule, PeerOffline
from bonevalue.wire.signals import PeerEntry

if TYPE_CHECKING:
    from bonevalue.config import PeerSettings
    from bonevalue.target import Target

__all__ = ["app", "place_of"]

app = typer.Typer()

#: The local name of standard input, or output.
STANDARD = "-"
#: Seconds between two tries, while another copy to the same path is under way.
RETRY = 1.0
#: Faults after which there is nothing to go on with.
_IN_VAIN = (BadRequest, Damaged)
#: Faults after which another peer of the target may be the right one.
_NOT_THIS_ONE = (NoModule, PeerOffline, ConnectFailed)


def place_of(text: str) -> Place | None:
    """The path of a peer; None for a local one. As scp has it: a colon before any slash makes it remote."""
    target, colon, path = text.partition(":")
    return Place(target, path) if colon and target and "/" not in target else None


@app.command(
    rich_help_panel=CALLS,
    epilog="Examples: bv copy report.pdf bob:docs/\n\nbv copy bob:docs/report.pdf .\n\n"
    "tar c photos | bv copy - Us:photos.tar",
)
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A local file, - (standard input), or TARGET:PATH.")],
    destination: Annotated[
        str, typer.Argument(metavar="TO", help="TARGET:PATH, or a local file or folder, or - (standard output).")
    ],
    module: Annotated[
        str, typer.Option("--module", metavar="NAME", help="The name that the peer serves its files under.")
    ] = "Files",
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with what an interrupted copy left, or begin anew.")
    ] = True,
    timeout: Timeout = None,
    file: ConfigFile = DEFAULT_FILE,
    json: JsonLines = False,
) -> None:
    """
    Copy a file to a peer, or from one; the peer must serve the module Files.

    One of the two is TARGET:PATH, where TARGET is an alias, Us or a peer id;
    write ./a:b for a local file with a colon in its name. If several peers of
    TARGET are online, one is chosen and named; its id in place of TARGET
    chooses another.
    """
    remote_source, remote_destination = place_of(source), place_of(destination)
    transfer: Transfer
    if remote_source is None and remote_destination is not None:
        sender = StandardInput() if source == STANDARD else FileSender(source)
        progress = copy_progress(sender.shown, json=json)
        transfer = Upload(sender, module, remote_destination, resume=resume, shown=sender.shown, progress=progress)
    elif remote_source is not None and remote_destination is None:
        if json and destination == STANDARD:
            raise typer.BadParameter("- and --json both want standard output", param_hint="TO")
        receiver = _receiver(destination, remote_source)
        progress = copy_progress(receiver.shown, json=json)
        transfer = Download(receiver, module, remote_source, resume=resume, shown=receiver.shown, progress=progress)
    else:
        raise typer.BadParameter("one of them must be TARGET:PATH, the other a local file", param_hint="FROM, TO")
    run(_copy(load_peer(file), transfer, timeout, json=json))


def _receiver(destination: str, source: Place) -> Receiver:
    if destination == STANDARD:
        return StandardOutput()
    if destination.endswith("/") or os.path.isdir(destination):
        name = os.path.basename(source.path)
        if name in ("", ".", ".."):
            raise typer.BadParameter("only files are copied: name one", param_hint="FROM")
        destination = os.path.join(destination, name)
    return FileReceiver(destination)


async def _copy(settings: PeerSettings, transfer: Transfer, timeout: float | None, *, json: bool) -> None:
    with closing(transfer):
        with transfer.progress:
            await transfer.open()
        async with joined(settings) as peer:
            peers = peer.get(transfer.place.target).peers()
            patience = settings.rpc.timeout if timeout is None else timeout
            while peers:
                each = peers.pop(0)
                try:
                    await _when_free(transfer, peer.get(each.id), timeout, patience)
                except OutputLost:
                    raise
                except BoneValueError as error:
                    if peers and isinstance(error, _NOT_THIS_ONE):
                        continue
                    _show_failure(transfer, each, error, json=json)
                    raise Failed from error
                except asyncio.CancelledError:
                    _show_kept(transfer, "interrupted")
                    raise
                _show_copied(transfer, each, json=json)
                return
        raise nobody(transfer.place.target)


async def _when_free(transfer: Transfer, target: Target, timeout: float | None, patience: float) -> None:
    """Copy, if need be after another copy to the same path: it may be one that was cut off, and not yet noticed."""
    now = asyncio.get_running_loop().time
    give_up = now() + patience
    told = False
    while True:
        try:
            with transfer.progress:
                return await transfer.run(target, timeout)
        except Busy as error:
            if transfer.begun or now() + RETRY > give_up:
                raise
            if not told:
                hint(f"bv: waiting: {plain(error.message)}")
                told = True
        await asyncio.sleep(RETRY)


def _show_copied(transfer: Transfer, peer: PeerEntry, *, json: bool) -> None:
    if json:
        copied = {"path": transfer.path, "size": transfer.position, "sha256": transfer.sha256}
        emit({"peer": entry(peer), "copied": {**copied, "resumedAt": transfer.resumed_at}})
        return
    earlier = f", {size_for_people(transfer.resumed_at)} of it earlier" if transfer.resumed_at else ""
    size = size_for_people(transfer.position)
    # Whoever pipes a file on wants its bytes and nothing after them.
    (hint if transfer.shown == StandardOutput.shown else say)(
        label(peer), f"  {plain(transfer.path)}  {size}{earlier}, SHA-256 {transfer.sha256}"
    )


def _show_failure(transfer: Transfer, peer: PeerEntry, error: BoneValueError, *, json: bool) -> None:
    kept = transfer.kept and not isinstance(error, _IN_VAIN)
    if json:
        emit({"peer": entry(peer), "error": fault(error), "kept": kept})
        return
    report("bv", error, about=f"{peer.name} {peer.id}" if error.peer else "")
    if kept:
        _show_kept(transfer, "stopped")


def _show_kept(transfer: Transfer, how: str) -> None:
    if transfer.kept:
        again = "the same command" if transfer.resume else "the same command without --no-resume"
        hint(f"bv: {how}; what came is kept, and {again} goes on from there")
