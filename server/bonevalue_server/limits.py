"""The limits against abuse of the discovery server, every one with its default."""

from __future__ import annotations

from pydantic import Field

from bonevalue.settings_fields import Duration, Rate, RateText, Section, Size

__all__ = ["Limits"]

MINUTE = 60.0
HOUR = 3600.0
DAY = 86400.0


class Limits(Section):
    """
    Limits of one node of the discovery server.

    "Per IP" means per address for IPv4 and per /64 for IPv6, as a trusted proxy reports it. What runs into a limit is
    answered with the error in brackets.
    """

    # -- sockets
    sockets: int = Field(default=20_000, ge=1, description="Open sockets of this node [HTTP 503].")
    sockets_opened: RateText = Field(default=Rate(2_000, 1), description="New sockets of this node [HTTP 503].")
    sockets_opened_per_ip: RateText = Field(default=Rate(50, 1, 200), description="New sockets per IP [HTTP 429].")
    login_timeout: Duration = Field(
        default=10.0, gt=0, le=300, description="Time in which a new socket must log in [login_timeout]."
    )
    pending_sockets: int = Field(default=2_048, ge=1, description="Sockets of this node not logged in yet [HTTP 503].")
    pending_sockets_per_ip: int = Field(default=64, ge=1, description="Sockets per IP not logged in yet [HTTP 429].")
    ping_interval: Duration = Field(default=20.0, gt=0, le=300, description="Time between WebSocket pings.")
    ping_timeout: Duration = Field(
        default=20.0, gt=0, le=300, description="Time in which a ping must be answered; then the socket is lost."
    )
    outbound_messages: int = Field(
        default=256, ge=16, description="Messages waiting for one client to read them [close slow]."
    )
    outbound_bytes: Size = Field(
        default=2**20, ge=2**17, description="Bytes waiting for one client to read them [close slow]."
    )

    # -- messages
    messages: RateText = Field(
        default=Rate(20, 1, 256), description="Messages of one socket; one too many is a strike [rate_limited]."
    )
    message_strikes: int = Field(
        default=3, ge=1, description="Strikes within `message_strike_window` that close the socket."
    )
    message_strike_window: Duration = Field(default=10.0, gt=0, le=3600, description="How long a strike counts.")

    # -- passwords
    failed_logins: int = Field(
        default=5, ge=1, description="Wrong passwords for one account from one IP, then it is locked [login_refused]."
    )
    lock_time: Duration = Field(
        default=MINUTE, gt=0, description="How long the first lock lasts; each further failure doubles it."
    )
    lock_time_max: Duration = Field(default=15 * MINUTE, gt=0, description="Longest lock.")
    failed_logins_per_account: RateText = Field(
        default=Rate(50, HOUR),
        description="Wrong passwords for one account from anywhere; then by key only [login_refused].",
    )
    failed_logins_per_ip: RateText = Field(
        default=Rate(10, 10 * MINUTE), description="Wrong passwords from one IP, whatever the account [rate_limited]."
    )
    password_logins: RateText = Field(
        default=Rate(20, HOUR),
        description="Logins of one account by password; by key and resumed ones do not count [rate_limited].",
    )
    bcrypt_threads: int | None = Field(
        default=None, ge=1, le=256, description="Passwords hashed at once; null for the number of processor cores."
    )
    bcrypt_queue: int = Field(default=64, ge=1, description="Passwords waiting to be hashed [busy].")
    bcrypt_wait: Duration = Field(default=5.0, gt=0, le=60, description="Longest wait to be hashed [busy].")

    # -- accounts, trust, tokens
    registrations: RateText = Field(
        default=Rate(60, HOUR), description="New accounts over the network, this node [rate_limited]."
    )
    registrations_per_ip: RateText = Field(
        default=Rate(3, HOUR), description="New accounts over the network, one IP [rate_limited]."
    )
    trusted: int = Field(
        default=1_000,
        ge=1,
        le=10_000,
        description="Accounts that one account trusts; each has one alias [too_many_trusted].",
    )
    tokens: int = Field(default=16, ge=1, le=1_000, description="Unclaimed tokens of one account [too_many_tokens].")
    token_lifetime_max: Duration = Field(
        default=7 * DAY, gt=0, le=365 * DAY, description="Longest life of a token that a client may ask for."
    )
    tokens_created: RateText = Field(default=Rate(10, MINUTE), description="Tokens made by one account [rate_limited].")
    tokens_claimed: RateText = Field(
        default=Rate(5, MINUTE), description="Tokens claimed by one account, right or wrong ones [rate_limited]."
    )
    tokens_claimed_per_ip: RateText = Field(
        default=Rate(20, HOUR), description="Tokens claimed from one IP, right or wrong ones [rate_limited]."
    )

    # -- peers and what they ask of each other
    peers: int = Field(default=256, ge=1, description="Live peers of one account [too_many_peers].")
    grace_time: Duration = Field(
        default=5.0, le=300, description="How long after an abnormal loss nobody is told that the peer is gone."
    )
    requests: RateText = Field(default=Rate(20, 1, 256), description="Connection requests of one peer [rate_limited].")
    requests_per_pair: RateText = Field(
        default=Rate(60, MINUTE, 20), description="Connection requests of one peer to one other [rate_limited]."
    )
    pending_requests_per_pair: int = Field(
        default=4, ge=1, description="Unanswered requests of one peer to one other [rate_limited]."
    )
    pending_requests_per_target: int = Field(
        default=64, ge=1, description="Unanswered requests to one peer, from all others [busy]."
    )
    request_lifetime: Duration = Field(
        default=30.0, gt=0, le=300, description="Time in which a request must be answered [expired]."
    )
    candidates: int = Field(default=32, ge=0, description="Candidates that one side passes for one request.")

    # -- help on the way to each other
    ice_requests: RateText = Field(
        default=Rate(6, MINUTE), description="Requests of one peer for other ICE credentials [rate_limited]."
    )
    stun: RateText = Field(default=Rate(20_000, 1), description="STUN requests to this node [not answered].")
    stun_per_ip: RateText = Field(default=Rate(200, 1, 1_000), description="STUN requests per IP [not answered].")
