"""
The way to the discovery server, step by step: its name, its port, TLS, its greeting, its clock.

Nothing secret is sent. A step that fails is the last one; the others are reported as not tried.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from bonevalue.config import Address, ServerSettings
from bonevalue.diagnosis.endpoints import written
from bonevalue.diagnosis.findings import Doing, Finding, fail, listed, milliseconds, not_tried, ok, span, warn
from bonevalue.discovery import greeting
from bonevalue.errors import BoneValueError, RealmMismatch
from bonevalue.sockets import tls_context, why
from bonevalue.wire.keys import realm_of
from bonevalue.wire.refusals import check_greeting, plain
from bonevalue.wire.signals import Hello

__all__ = ["CERTIFICATE_DAYS", "CLOCK_LIMIT", "CLOCK_WARNING", "ServerExamination"]

#: Seconds for each step.
STEP_TIMEOUT = 5.0
#: Days before its end at which a certificate should have been renewed, unless it was made for a shorter life: then the
#: last third of that.
CERTIFICATE_DAYS = 14
#: Seconds between two clocks at which peers refuse each other (`clock_skew`), and at which it is time to say so.
CLOCK_LIMIT, CLOCK_WARNING = 300.0, 30.0

#: Errors of a connection that say something of this machine's own network: it has no way to such an address at all.
_NO_ROUTE = {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class _Failed(Exception):
    """A step failed: the finding says how."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One try to open a connection to one address; `error` is None if it opened."""

    host: str
    seconds: float
    error: OSError | None


class ServerExamination:
    """
    Everything between here and the discovery server's greeting.

    Args:
        settings: where it is, and how its certificate is checked.
    """

    def __init__(self, settings: ServerSettings) -> None:
        #: Why the server cannot be talked to; empty if it can.
        self.broken = ""
        #: Seconds that this machine's clock is ahead of the server's, as far as is known.
        self.ahead = 0.0
        self._settings = settings
        self._address = Address.parse(settings.address)
        self._port = urlsplit(self._address.url).port or (443 if self._address.secure else 80)
        self._hosts: list[str] = []
        self._open = ""  # the address that answered first
        self._trip = 0.0
        self._tls: ssl.SSLContext | None = None
        self._hello: Hello | None = None

    async def findings(self, doing: Doing) -> AsyncIterator[Finding]:
        """Take each step, and say so to `doing`, until one fails."""
        steps: dict[str, Callable[[], Awaitable[Finding | None]]] = {
            "dns": self._resolve,
            "tcp": self._connect,
            "tls": self._encrypt,
            "realm": self._greet,
            "clock": self._compare_clocks,
        }
        for check, step in steps.items():
            if self.broken:
                if check != "tls" or self._address.secure:
                    yield not_tried(check, self.broken)
                continue
            doing(f"{check} of {self._address.url}")
            try:
                finding = await step()
            except _Failed as failed:
                finding = failed.finding
                self.broken = f"no way to the discovery server ({check})"
            if finding is not None:
                yield finding

    async def _resolve(self) -> Finding | None:
        """The addresses of the host; an address needs no look."""
        host = self._address.host
        try:
            self._hosts = [str(ipaddress.ip_address(host))]
            return None
        except ValueError:
            pass
        began = time.monotonic()
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                found = await asyncio.get_running_loop().getaddrinfo(host, self._port, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise _Failed(fail("dns", f"no name server answers what {host} is", _NO_NAME_SERVER)) from None
        except (OSError, UnicodeError) as error:
            raise _Failed(_name_not_found(host, error)) from None
        self._hosts = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        seconds = time.monotonic() - began
        text = f"{host} is {listed(self._hosts)} ({milliseconds(seconds)})"
        return ok("dns", text, host=host, addresses=self._hosts, seconds=round(seconds, 4))

    async def _connect(self) -> Finding:
        """Whether the port is open at each of them."""
        attempts = await asyncio.gather(*(_try_port(host, self._port) for host in self._hosts))
        good = [attempt for attempt in attempts if attempt.error is None]
        bad = [attempt for attempt in attempts if attempt.error is not None]
        # An address of a kind that this machine does not have costs nothing if there is another; nor does ::1.
        telling = [each for each in bad if not _is_no_route(each.error) and not self._address.is_loopback]
        facts = {"port": self._port, "open": [each.host for each in good], "closed": [each.host for each in bad]}
        if not good:
            worst = (telling or bad)[0]
            where = written((worst.host, self._port))
            raise _Failed(fail("tcp", f"{where}: {_why(worst.error)}", _port_advice(worst.error), **facts))
        first = min(good, key=lambda attempt: attempt.seconds)
        self._open, self._trip = first.host, first.seconds
        text = listed(f"{written((each.host, self._port))} answers ({milliseconds(each.seconds)})" for each in good)
        facts["seconds"] = round(first.seconds, 4)
        if telling:
            others = listed(f"{each.host}: {_why(each.error)}" for each in telling)
            advice = "take the addresses that do not answer out of the DNS, or repair the way to them"
            return warn("tcp", f"{text}; {others}", advice, **facts)
        return ok("tcp", text, **facts)

    async def _encrypt(self) -> Finding | None:
        """Whether its certificate is accepted; nothing to say about ws:// that stays on this machine."""
        if not self._address.secure:
            if self._address.is_loopback:
                return None
            advice = "use wss://: whoever is on the way can read who talks to whom, and cut it off"
            return warn("tls", "ws:// is not encrypted (server.insecure)", advice)
        ca_file = self._settings.ca_file
        try:
            self._tls = tls_context(str(ca_file) if ca_file else None)
            async with asyncio.timeout(STEP_TIMEOUT):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    asyncio.Protocol, self._open, self._port, ssl=self._tls, server_hostname=self._address.host
                )
        except BoneValueError as error:
            raise _Failed(fail("tls", error.message, "correct server.ca_file")) from None
        except ssl.SSLCertVerificationError as error:
            text = f"the certificate of {self._address.host} is not accepted: {plain(error.verify_message)}"
            raise _Failed(fail("tls", text, _certificate_advice(error.verify_code))) from None
        except (OSError, TimeoutError) as error:
            text = f"no TLS with {written((self._open, self._port))}: {why(error)}"
            raise _Failed(fail("tls", text, "check that the port of server.address is the one for wss://")) from None
        channel: ssl.SSLObject = transport.get_extra_info("ssl_object")
        certificate = channel.getpeercert() or {}
        transport.abort()
        return _judge_certificate(str(channel.version()), str(certificate["notBefore"]), str(certificate["notAfter"]))

    async def _greet(self) -> Finding:
        """Whether a discovery server of the right realm answers."""
        try:
            self._hello = await greeting(self._address, tls=self._tls, timeout=STEP_TIMEOUT)
            self.ahead = time.time() - self._trip / 2 - self._hello.time / 1000
        except BoneValueError as error:
            advice = "check that server.address names a discovery server, with the path of the proxy before it, if any"
            raise _Failed(fail("realm", error.message, advice)) from None
        realm = self._settings.realm or realm_of(self._address.host)
        try:
            check_greeting(self._hello, realm)
        except RealmMismatch:
            theirs = plain(self._hello.realm)
            text = f"the server says that its realm is {theirs}, the password is bound to {realm}"
            advice = f"set server.realm to {theirs}, if that is the right server; else correct server.address"
            raise _Failed(fail("realm", text, advice, realm=theirs, expected=realm)) from None
        except BoneValueError as error:
            raise _Failed(fail("realm", error.message, "install the same version here and on the server")) from None
        return ok("realm", f"{realm}, protocol {self._hello.version}", realm=realm, protocol=self._hello.version)

    async def _compare_clocks(self) -> Finding:
        """How far this machine's clock is from the server's: peers refuse what is five minutes off."""
        off = abs(self.ahead)
        facts = {"ahead": round(self.ahead, 3)}
        direction = "ahead of" if self.ahead > 0 else "behind"
        if off < CLOCK_WARNING:
            text = "the same as the server's" if off < 1 else f"{off:.0f} s {direction} the server's"
            return ok("clock", text, **facts)
        text = f"{span(off)} {direction} the server's"
        advice = "set the clock here or there, and keep it right by NTP (timedatectl set-ntp true)"
        if off < CLOCK_LIMIT:
            return warn("clock", text, advice, **facts)
        return fail("clock", f"{text}: peers refuse connections that are 5 minutes off", advice, **facts)


# -- names and ports -----------------------------------------------------------------------------------------------

_NO_NAME_SERVER = "check that this machine is on the network, and which name server it asks (/etc/resolv.conf)"


def _name_not_found(host: str, error: OSError | UnicodeError) -> Finding:
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return fail("dns", f"no name server answers what {host} is", _NO_NAME_SERVER)
    advice = "check the spelling of server.address, and that the name is in the DNS that this machine asks"
    return fail("dns", f"the name {host} is not known", advice)


async def _try_port(host: str, port: int) -> _Attempt:
    began = time.monotonic()
    error: OSError | None = None
    try:
        async with asyncio.timeout(STEP_TIMEOUT):
            transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, host, port)
        transport.abort()
    except OSError as fault:  # TimeoutError is one
        error = fault
    return _Attempt(host, time.monotonic() - began, error)


def _is_no_route(error: OSError | None) -> bool:
    return error is not None and error.errno in _NO_ROUTE


def _why(error: OSError | None) -> str:
    return "" if error is None else why(error)


def _port_advice(error: OSError | None) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "start the discovery server there, or correct the port in server.address"
    if isinstance(error, TimeoutError):
        return "check that the server's machine is up and that no firewall between here and there drops the port"
    return "check this machine's network: it has no way to that address"


# -- certificates --------------------------------------------------------------------------------------------------

#: What to do about a certificate, by OpenSSL's code for what is wrong with it (X509_V_ERR_...).
_CERTIFICATE_ADVICE = {
    9: "set this machine's clock: to it, the certificate is not yet valid",
    10: "renew the server's certificate, or set this machine's clock, if that is wrong",
    18: "put the server's own certificate into a file and name it in server.ca_file",
    19: "name the file of the authority that issued it in server.ca_file",
    20: "name the file of the authority that issued it in server.ca_file, or have the server send its whole chain",
    62: "correct the host in server.address, or get a certificate for that name",
    64: "write the host name in server.address and not an address, or get a certificate for the address",
}


def _certificate_advice(code: int) -> str:
    return _CERTIFICATE_ADVICE.get(code, "get a valid certificate for the server, or correct server.ca_file")


def _judge_certificate(version: str, begins: str, ends: str) -> Finding:
    beginning, end = map(ssl.cert_time_to_seconds, (begins, ends))
    left = end - time.time()
    until = time.strftime("%Y-%m-%d", time.gmtime(end))
    facts = {"version": version, "certificateEnds": end}
    if left < min(CERTIFICATE_DAYS * 86_400, (end - beginning) / 3):
        return warn("tls", f"{version}; the certificate ends on {until}, in {span(left)}", "renew it", **facts)
    return ok("tls", f"{version}, certificate good until {until}", **facts)
