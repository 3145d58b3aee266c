"""
Every error of the platform, in one tree.

::

    BoneValueError
      ConfigError               the YAML file or the environment is wrong
      ProtocolError             not raised itself
        LocalProtocolError      our own code broke the rules: a bug, never sent
        RemoteProtocolError     the other side did: its link or socket is closed
      LinkError                 there is no link to the peer, or no longer
        ConnectFailed, LinkLost, LinkLimit, IdentityMismatch, NotTrusted, ClockSkew
      DiscoveryError            the discovery server refused, or cannot be reached
        LoginRefused, RealmMismatch, ServerUnreachable, ...
      CallError                 one call failed: not raised itself
        NoTarget, NoModule, BadRequest, Denied, Busy, Deadline, ...

Each class has a stable lower-case ``code``. It is what travels on the wire, what logs show and what the
JavaScript library uses; :data:`ERRORS` maps it back to the class. Whether trying again can help is a property
of the code, never of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "ERRORS",
    "AliasTaken",
    "AlreadyTrusted",
    "BadMessage",
    "BadName",
    "BadRequest",
    "BoneValueError",
    "Busy",
    "CallError",
    "Cancelled",
    "ClockSkew",
    "ConfigError",
    "ConnectFailed",
    "ConnectReport",
    "ContactConflict",
    "Deadline",
    "Denied",
    "DiscoveryError",
    "Expired",
    "Fault",
    "GoingAway",
    "HandlerFailed",
    "IdentityConflict",
    "IdentityMismatch",
    "KeyRequired",
    "LinkError",
    "LinkLimit",
    "LinkLost",
    "LocalProtocolError",
    "LoginRefused",
    "LoginTimeout",
    "NameTaken",
    "NoModule",
    "NoTarget",
    "NotTrusted",
    "OriginRefused",
    "PeerOffline",
    "ProtocolError",
    "RateLimited",
    "RealmMismatch",
    "RegistrationClosed",
    "RemoteProtocolError",
    "Replaced",
    "ServerOutcome",
    "ServerUnreachable",
    "SessionEnded",
    "Slow",
    "TokenExpired",
    "TokenInvalid",
    "TokenUsed",
    "TooLarge",
    "TooManyPeers",
    "TooManyTokens",
    "TooManyTrusted",
    "Unavailable",
    "UnknownType",
    "WeakPassword",
    "error_of",
]


class BoneValueError(Exception):
    """
    Any foreseeable fault of the platform.

    Args:
        message: one sentence for the person who meets it, naming the thing and what to do.
        retry_after: seconds after which trying again makes sense, if the other side said so.
        call_id: the call that failed, as it stands in the callee's log.
    """

    code: ClassVar[str] = "internal"
    #: Code with which a discovery socket is closed for this reason (RFC 6455 section 7.4), None if it stays open.
    #: 4000 to 4499: come back later; 4500 to 4999: do not.
    close: ClassVar[int | None] = None
    #: Whether the same thing may succeed when it is tried again, with nothing changed by hand.
    retry: ClassVar[bool] = False

    # Of the class, too: a subclass may have an __init__ of its own.
    retry_after: float | None = None
    call_id: str | None = None
    peer: str | None = None

    def __init__(self, message: str = "", *, retry_after: float | None = None, call_id: str | None = None) -> None:
        super().__init__(message or self.code)
        self.retry_after = retry_after
        self.call_id = call_id
        #: Id of the remote peer that the error came from, None if it arose here.
        self.peer = None

    @property
    def message(self) -> str:
        """The text for people."""
        return str(self.args[0]) if self.args else self.code


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One thing that is wrong in the settings.

    Args:
        place: the file, as it was named, or the environment variable.
        line: line of the file, counted from 1.
        key: ``modules[1].class``; empty if it concerns the file as a whole.
        message: what is wrong; never the value itself.
    """

    place: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        where = self.place if self.line is None else f"{self.place}:{self.line}"
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class ConfigError(BoneValueError):
    """The YAML file or the environment is wrong; the message names file, line and key of every fault."""

    code = "config"

    def __init__(self, message: str = "", *, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message or "\n".join(map(str, faults)))
        self.faults = tuple(faults)


# -- protocol --------------------------------------------------------------------------------------------------


class ProtocolError(BoneValueError):
    """Somebody broke the rules of the wire; raised as one of its two subclasses."""

    code = "protocol_error"


class LocalProtocolError(ProtocolError):
    """Our own code asked for something that the protocol does not allow now. A bug."""


class RemoteProtocolError(ProtocolError):
    """What the other side sent is malformed or out of order. Its link or socket is closed."""

    close = 4500


# -- links -----------------------------------------------------------------------------------------------------


class LinkError(BoneValueError):
    """There is no link to the peer."""


@dataclass(frozen=True, slots=True)
class ServerOutcome:
    """
    What came of one STUN or TURN server during an attempt.

    Args:
        url: the server, as it was configured or handed out.
        outcome: ``ok``, or in words why it was of no use: ``no answer``, ``refused: 401 Unauthorized``, ...
    """

    url: str
    outcome: str

    @property
    def ok(self) -> bool:
        """Whether the server did what it was asked for."""
        return self.outcome == "ok"

    def __str__(self) -> str:
        return f"{self.url}: {self.outcome}"


@dataclass(frozen=True, slots=True)
class ConnectReport:
    """
    How far an attempt to connect came, what it tried, and what to do about it.

    Args:
        phase: ``gathering``, ``relay`` (the request is on its way to the discovery server), ``answer`` (the other
            peer's is awaited), ``checking`` (a path is looked for), ``dtls`` (handshake) or ``proof``.
        ours: the kinds of our candidates: ``host``, ``srflx``, ``prflx``, ``relay``.
        theirs: those of the other peer; empty if its description had not come.
        servers: the STUN and TURN servers and what came of them.
        advice: one sentence that says what to do.
    """

    phase: str
    ours: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()
    servers: tuple[ServerOutcome, ...] = ()
    advice: str = ""

    @property
    def tried(self) -> str:
        """What was tried to no avail, in one line; empty if nothing was."""
        kinds = f"ours: {', '.join(self.ours) or 'none'}; theirs: {', '.join(self.theirs) or 'none'}"
        failed = [str(server) for server in self.servers if not server.ok]
        return "; ".join([kinds, *failed] if self.ours or self.theirs else failed)


class ConnectFailed(LinkError):
    """
    No connection came about; the message names the phase, what was tried, and what to do.

    Args:
        message: what failed, and when.
        report: the same in parts; its text is added to the message.
    """

    code = "connect_failed"
    retry = True

    def __init__(
        self,
        message: str = "",
        *,
        report: ConnectReport | None = None,
        retry_after: float | None = None,
        call_id: str | None = None,
    ) -> None:
        if report is not None:
            tried = f" ({report.tried})" if report.tried else ""
            message = f"{message}{tried}. {report.advice}".removesuffix(" ")
        super().__init__(message, retry_after=retry_after, call_id=call_id)
        self.report = report


class LinkLost(LinkError):
    """The link ended while the call was under way; whether the call ran is unknown."""

    code = "link_lost"
    retry = True


class LinkLimit(LinkError):
    """The remote peer holds as many links as it may."""

    code = "link_limit"
    retry = True


class IdentityMismatch(LinkError):
    """A signature, key or proof is not that of the peer it claims to come from: somebody in between is lying."""

    code = "identity_mismatch"


class NotTrusted(LinkError):
    """The remote account is not a verified contact."""

    code = "not_trusted"


class ClockSkew(LinkError):
    """The clocks of the two peers differ by more than five minutes; the message names both times."""

    code = "clock_skew"


# -- calls -----------------------------------------------------------------------------------------------------


class CallError(BoneValueError):
    """A call failed on the other side, or before it was sent."""


class NoTarget(CallError):
    """Nobody is online who matches the target."""

    code = "no_target"
    retry = True


class NoModule(CallError):
    """The peer serves no module of that name."""

    code = "no_module"


class BadRequest(CallError):
    """The request does not fit the module's schema."""

    code = "bad_request"


class Denied(CallError):
    """The module may not be called by this account."""

    code = "denied"


class Busy(CallError):
    """The peer or server has as much to do as it takes on."""

    code = "busy"
    retry = True


class Deadline(CallError):
    """The call's time was over before the answer came."""

    code = "deadline"
    retry = True


class Cancelled(CallError):
    """The call was cancelled."""

    code = "cancelled"


class TooLarge(CallError):
    """A body or message is over the limit."""

    code = "too_large"


class HandlerFailed(CallError):
    """The module raised; its own log has the traceback under the call id."""

    code = "handler_failed"


class PeerOffline(CallError):
    """No such peer is online, or it does not trust this account: the server does not say which."""

    code = "peer_offline"
    retry = True


class RateLimited(CallError):
    """Too many in too short a time."""

    code = "rate_limited"
    close = 4029
    retry = True


class Unavailable(CallError):
    """The other side cannot do this now (its database is away, it is stopping, it is offline)."""

    code = "unavailable"
    close = 4003
    retry = True


# -- discovery -------------------------------------------------------------------------------------------------


class DiscoveryError(BoneValueError):
    """The discovery server refused, or cannot be reached."""


class ServerUnreachable(DiscoveryError):
    """No connection to the discovery server."""

    code = "server_unreachable"
    retry = True


class LoginRefused(DiscoveryError):
    """Wrong username or password, or the account is locked for a while: the server does not say which."""

    code = "login_refused"
    close = 4501


class RealmMismatch(DiscoveryError):
    """The server's realm is not the one that the password was bound to; nothing secret was sent."""

    code = "realm_mismatch"


class KeyRequired(DiscoveryError):
    """This needs a login by key; a password login sees presence only."""

    code = "key_required"


class RegistrationClosed(DiscoveryError):
    """This server takes no new accounts over the network."""

    code = "registration_closed"


class NameTaken(DiscoveryError):
    """An account of that name exists."""

    code = "name_taken"


class BadName(DiscoveryError):
    """A username or alias breaks the rule: 1 to 32 of a-z 0-9 _ . -, not all digits, not ``us``."""

    code = "bad_name"


class WeakPassword(DiscoveryError):
    """The password is too short or too common."""

    code = "weak_password"


class AliasTaken(DiscoveryError):
    """The alias is already used for another account."""

    code = "alias_taken"


class AlreadyTrusted(DiscoveryError):
    """The two accounts trust each other already (or are the same account)."""

    code = "already_trusted"


class TokenInvalid(DiscoveryError):
    """The token is unknown, mistyped, or was withdrawn."""

    code = "token_invalid"


class TokenExpired(DiscoveryError):
    """The token's time is over."""

    code = "token_expired"


class TokenUsed(DiscoveryError):
    """The token was redeemed before. If that was not you, somebody else read it: tell who gave it to you."""

    code = "token_used"


class TooManyTokens(DiscoveryError):
    """The account has as many unclaimed tokens as it may."""

    code = "too_many_tokens"


class TooManyTrusted(DiscoveryError):
    """The account trusts as many others as it may."""

    code = "too_many_trusted"


class TooManyPeers(DiscoveryError):
    """The account has as many live peers as it may."""

    code = "too_many_peers"
    close = 4002
    retry = True


class ContactConflict(DiscoveryError):
    """The server's certificates for a contact contradict each other or ours; the contact is not used."""

    code = "contact_conflict"


class IdentityConflict(DiscoveryError):
    """A contact's key changes fork or run in a circle; none is used."""

    code = "identity_conflict"


class BadMessage(DiscoveryError):
    """A discovery message is not of the form that its type has."""

    code = "bad_message"
    close = 4502


class UnknownType(DiscoveryError):
    """A discovery message has a type that the receiver does not know."""

    code = "unknown_type"


class Expired(DiscoveryError):
    """The connection request was answered too late."""

    code = "expired"
    retry = True


class LoginTimeout(DiscoveryError):
    """Nobody logged in on the socket in time."""

    code = "login_timeout"
    close = 4004
    retry = True


class Slow(DiscoveryError):
    """The receiver does not take what it is sent."""

    code = "slow"
    close = 4005
    retry = True


class GoingAway(DiscoveryError):
    """The server is stopping; come back."""

    code = "going_away"
    close = 4001
    retry = True


class Replaced(DiscoveryError):
    """A newer socket took over this peer id."""

    code = "replaced"
    close = 4503


class SessionEnded(DiscoveryError):
    """The account was removed or its password changed; log in anew with the current password."""

    code = "session_ended"
    close = 4504


class OriginRefused(DiscoveryError):
    """The page's origin is not among ``discovery.origins``."""

    code = "origin_refused"


def _leaves(root: type[BoneValueError]) -> list[type[BoneValueError]]:
    below = [leaf for child in root.__subclasses__() for leaf in _leaves(child)]
    return below or [root]


#: Every code that can travel, with its class.
ERRORS: dict[str, type[BoneValueError]] = {
    kind.code: kind for kind in _leaves(BoneValueError) if kind is not LocalProtocolError and kind is not ConfigError
}


def error_of(
    code: str, message: str = "", *, retry_after: float | None = None, call_id: str | None = None
) -> BoneValueError:
    """
    The error that a code from the wire stands for.

    A code that this version does not know gives a plain :class:`CallError` that carries it, so that a newer
    remote never turns into a crash here.
    """
    kind = ERRORS.get(code)
    if kind is not None:
        return kind(message, retry_after=retry_after, call_id=call_id)
    unknown = CallError(f"{code}: {message}" if message else code, retry_after=retry_after, call_id=call_id)
    unknown.code = code  # type: ignore[misc]
    return unknown
