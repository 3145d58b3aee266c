"""coturn in the lab."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from tests.support.certificates import Authority
from tests.support.lab.spaces import Space, find_program
from tests.support.processes import Daemon

__all__ = ["TURN_ADDRESS", "TURN_ADDRESS6", "TURN_NAME", "Coturn"]

TURN_NAME = "turn.test"
TURN_ADDRESS, TURN_ADDRESS6 = "203.0.113.3", "2001:db8::3"
TURN_PORT, TURN_TLS_PORT = 3478, 5349

RECIPE = Path(__file__).parents[3] / "deploy" / "coturn" / "turnserver.conf"

Transport = Literal["udp", "tcp", "tls"]


class Coturn:
    """
    A TURN server with the settings that we recommend, on UDP, TCP and TLS, over both versions of IP; answers STUN, too.

    Args:
        space: to run in; it has the addresses.
        folder: for its files.
        authority: that signs its certificate.
        secret: with which credentials are made.
        ahead: seconds that its clock is ahead of everybody else's.
    """

    def __init__(
        self,
        space: Space,
        folder: Path,
        authority: Authority,
        *,
        secret: str = "a secret of the lab that only two servers know",
        ahead: float = 0.0,
    ) -> None:
        self.secret = secret
        self.space = space
        self.folder = folder
        self._certificate, self._key = authority.issue(TURN_NAME)
        self._ahead = ahead
        self._daemon: Daemon | None = None
        self.start()

    def start(self) -> None:
        """Start it, again if need be."""
        self._daemon = Daemon(
            self._configure(),
            *("-c", "turnserver.conf"),
            script=find_program("turnserver") or "turnserver",
            env=self._clock(),
            prefix=self.space.prefix,
        )
        self._daemon.wait_for("Total General servers")

    def _clock(self) -> dict[str, str]:
        """The environment of a process whose clock is ahead: that of faketime, which stays a parent if it runs it."""
        if not self._ahead:
            return {}
        library = self.space.run("faketime", "-f", "+0", "printenv", "LD_PRELOAD").strip()
        return {"LD_PRELOAD": library, "FAKETIME": f"{self._ahead:+}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def _configure(self) -> Path:
        addresses = (TURN_ADDRESS, TURN_ADDRESS6)
        lines = [
            RECIPE.read_text(),
            *(f"{key}={address}" for key in ("listening-ip", "relay-ip") for address in addresses),
            f"listening-port={TURN_PORT}",
            f"tls-listening-port={TURN_TLS_PORT}",
            f"cert={self._certificate}",
            f"pkey={self._key}",
            f"realm={TURN_NAME}",
            f"static-auth-secret={self.secret}",
            f"userdb={self.folder / 'turn.sqlite'}",
            f"pidfile={self.folder / 'pid'}",
            "verbose",
        ]
        file = self.folder / "turnserver.conf"
        file.write_text("\n".join(lines) + "\n")
        return file

    def stop(self) -> None:
        """Stop it: its ports refuse from now on."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon = None

    close = stop

    @property
    def output(self) -> str:
        """What it has logged."""
        return "" if self._daemon is None else self._daemon.output

    def allocations(self) -> int:
        """How many it has made since it started."""
        return len(re.findall(r"ALLOCATE processed, success", self.output))

    # -- what clients need -----------------------------------------------------------------------------------------

    @staticmethod
    def url(transport: Transport = "udp") -> str:
        """Its URL for TURN."""
        if transport == "tls":
            return f"turns:{TURN_NAME}:{TURN_TLS_PORT}?transport=tcp"
        return f"turn:{TURN_NAME}:{TURN_PORT}?transport={transport}"

    def role(self, *transports: Transport, **keys: Any) -> dict[str, Any]:
        """The section ``turn:`` of a discovery server that hands out credentials for it, best first, by default all."""
        urls = [self.url(each) for each in transports or ("udp", "tcp", "tls")]
        return {"urls": urls, "secret": self.secret, **keys}
