"""WebRTC is loaded when it is needed, and not before."""

from __future__ import annotations

import subprocess
import sys

from bonevalue.engines import LateEngine, load
from bonevalue.link import IceConfig
from bonevalue.rtc import RtcConnection, RtcEngine

WHAT_A_PEER_LOADS = "import sys, bonevalue.peer, bonevalue.cli.bv; print(sorted(sys.modules))"


def test_a_peer_without_links_has_not_loaded_what_makes_them() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", WHAT_A_PEER_LOADS], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert "'bonevalue.links'" in loaded
    for module in ("aiortc", "av", "structlog", "sqlalchemy", "uvicorn"):
        assert f"'{module}'" not in loaded, module


async def test_it_is_loaded_for_the_first_connection() -> None:
    engine = LateEngine()
    for _ in range(2):
        connection = engine.connection(IceConfig())
        assert isinstance(connection, RtcConnection)
        await connection.close()


def test_it_is_webrtc() -> None:
    assert isinstance(load(), RtcEngine)
