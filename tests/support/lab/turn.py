"""coturn in the lab, with users of its own or with credentials made from a shared secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from pathlib import Path
from typing import Any, Literal

from tests.support.certificates import Authority
from tests.support.lab.spaces import Space, find_program
from tests.support.processes import Daemon

__all__ = ["TURN_ADDRESS", "TURN_ADDRESS6", "TURN_NAME", "Coturn"]

TURN_NAME = "turn.test"
TURN_ADDRESS, TURN_ADDRESS6 = "203.0.113.3", "2001:db8::3"
TURN_PORT, TURN_TLS_PORT = 3478, 5349

Transport = Literal["udp", "tcp", "tls"]


class Coturn:
    """
    A TURN server, which answers STUN too, on UDP, TCP and TLS, over both versions of IP.

    Args:
        space: to run in; it has the addresses.
        folder: for its files.
        authority: that signs its certificate.
        secret: that of ``use-auth-secret``; None for one user.
        ahead: seconds that its clock is ahead of everybody else's.
        options: further ones of coturn's command line.
    """

    USER, CREDENTIAL = "lab", "a-credential-of-the-lab"

    def __init__(
        self,
        space: Space,
        folder: Path,
        authority: Authority,
        *,
        secret: str | None = None,
        ahead: float = 0.0,
        options: tuple[str, ...] = (),
    ) -> None:
        self.secret = secret
        self.space = space
        self.folder = folder
        self._certificate, self._key = authority.issue(TURN_NAME)
        self._ahead = ahead
        self._options = options
        self._daemon: Daemon | None = None
        self.start()

    def start(self) -> None:
        """Start it, again if need be."""
        clock = ["faketime", "-f", f"{self._ahead:+}s"] if self._ahead else []
        self._daemon = Daemon(
            self._configure(),
            *("-c", "turnserver.conf"),
            script=find_program("turnserver") or "turnserver",
            env={"FAKETIME_DONT_FAKE_MONOTONIC": "1"},
            prefix=[*self.space.prefix, *clock],
        )
        self._daemon.wait_for("Total General servers|Relay servers: initialized|initialization completed")

    def _configure(self) -> Path:
        login = (
            ["lt-cred-mech", f"user={self.USER}:{self.CREDENTIAL}"]
            if self.secret is None
            else ["use-auth-secret", f"static-auth-secret={self.secret}"]
        )
        lines = [
            *(f"{key}={address}" for key in ("listening-ip", "relay-ip") for address in (TURN_ADDRESS, TURN_ADDRESS6)),
            f"listening-port={TURN_PORT}",
            f"tls-listening-port={TURN_TLS_PORT}",
            f"cert={self._certificate}",
            f"pkey={self._key}",
            f"realm={TURN_NAME}",
            f"userdb={self.folder / 'turn.sqlite'}",
            f"pidfile={self.folder / 'pid'}",
            "fingerprint",
            "no-dtls",
            "no-cli",
            "no-multicast-peers",
            "log-file=stdout",
            "simple-log",
            "verbose",
            *login,
            *self._options,
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
    def stun() -> str:
        """Its URL for STUN."""
        return f"stun:{TURN_NAME}:{TURN_PORT}"

    @staticmethod
    def url(transport: Transport = "udp") -> str:
        """Its URL for TURN."""
        if transport == "tls":
            return f"turns:{TURN_NAME}:{TURN_TLS_PORT}?transport=tcp"
        return f"turn:{TURN_NAME}:{TURN_PORT}?transport={transport}"

    def server(self, *transports: Transport, lifetime: float = 3600.0) -> dict[str, Any]:
        """
        An entry of ``ice.servers`` for TURN, by default over UDP.

        Args:
            lifetime: seconds until it expires, below zero if it has; only with a secret.
        """
        username, credential = self.USER, self.CREDENTIAL
        if self.secret is not None:
            username = f"{int(time.time() + lifetime)}:{self.USER}"
            digest = hmac.new(self.secret.encode(), username.encode(), hashlib.sha1).digest()
            credential = base64.b64encode(digest).decode()
        return {
            "urls": [self.url(each) for each in transports or ("udp",)],
            "username": username,
            "credential": credential,
        }
