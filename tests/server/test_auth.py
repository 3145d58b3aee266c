"""Logins by key and by password, their limits and their timing; registration; tickets."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from bonevalue.errors import (
    BadMessage,
    BadName,
    Busy,
    IdentityMismatch,
    LoginRefused,
    NameTaken,
    RateLimited,
    RemoteProtocolError,
    Unavailable,
)
from bonevalue.settings_fields import Rate
from bonevalue.wire.blobs import LoginBlob, RegisterBlob
from bonevalue.wire.keys import AccountKeys, login_digest
from bonevalue.wire.signals import Binary, Login, Register
from bonevalue_server.auth import Auth, Tickets
from bonevalue_server.limits import Limits
from bonevalue_server.records import Account, AccountId
from bonevalue_server.store import Store
from tests.support import identity
from tests.support.accounts import CHEAPEST, Person, enrol
from tests.support.waiting import until

REALM = "example.org"
CHALLENGE = identity.seed("challenge")
HOME = "203.0.113.7"


class Clock:
    """Monotonic seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(f"sqlite:///{tmp_path}/server.db", realm=REALM)
    yield opened
    await opened.close()


Make = Callable[..., Auth]


@pytest.fixture
async def make(store: Store, clock: Clock) -> AsyncIterator[Make]:
    """Makes an Auth of certain limits."""
    made: list[Auth] = []

    def auth(*, cost: int = CHEAPEST, **limits: Any) -> Auth:
        made.append(Auth(store, realm=REALM, limits=Limits(**limits), cost=cost, clock=clock))
        return made[-1]

    yield auth
    for one in made:
        await one.close()


@pytest.fixture
def auth(make: Make) -> Auth:
    return make()


@pytest.fixture
async def alice(store: Store) -> Person:
    return await enrol(store, "alice")


def by_key(
    keys: AccountKeys, username: str = "alice", *, realm: str = REALM, challenge: bytes = CHALLENGE, named: str = ""
) -> Login:
    """A login by key; `named` is the username in the blob, if another."""
    blob = LoginBlob(realm, challenge, named or username.lower(), keys.public).encode()
    return Login(username=username, blob=Binary(blob), signature=Binary(keys.sign(blob)))


def by_password(name: str, secret: str | None = None) -> Login:
    """A login by the login secret; that of the name if none is given."""
    return Login(username=name, login=identity.account(name).login if secret is None else secret)


WRONG = identity.account("somebody with another password").login


def refused() -> AbstractContextManager[Any]:
    """Whatever the reason, it is this answer and no other."""
    return pytest.raises(LoginRefused, match=r"^wrong username or password, or locked for a while after too many")


async def fail(auth: Auth, name: str, times: int, address: str = HOME) -> None:
    """So many wrong passwords."""
    for _ in range(times):
        with refused():
            await auth.password_login(by_password(name, WRONG), address=address)


# -- by key --------------------------------------------------------------------------------------------------------


async def test_the_key_logs_in(auth: Auth, alice: Person) -> None:
    assert await auth.key_login(by_key(alice.keys), challenge=CHALLENGE) == alice.account
    assert await auth.key_login(by_key(alice.keys, "ALICE"), challenge=CHALLENGE) == alice.account


async def test_a_login_by_key_is_for_this_account_socket_and_realm(auth: Auth, store: Store, alice: Person) -> None:
    bob = await enrol(store, "bob")
    good = by_key(alice.keys)
    assert good.blob is not None and good.signature is not None
    flipped = Binary(bytes([good.signature[0] ^ 1]) + good.signature[1:])
    signed_more = Binary(good.blob + b"\0\0\0\0")
    for login in [
        by_key(bob.keys, "alice"),
        by_key(alice.keys, "bob"),
        by_key(alice.keys, named="bob"),
        by_key(alice.keys, realm="example.net"),
        by_key(alice.keys, challenge=identity.seed("another socket's")),
        by_key(alice.keys, "nobody"),
        by_key(alice.keys, "not a name!", named="alice"),
        by_key(alice.keys, "us", named="alice"),
        Login(username="alice", blob=good.blob, signature=flipped),
        Login(username="alice", blob=signed_more, signature=Binary(alice.keys.sign(signed_more))),
        Login(username="alice", blob=good.blob),
        Login(username="alice"),
    ]:
        with refused():
            await auth.key_login(login, challenge=CHALLENGE)


async def test_a_register_blob_logs_nobody_in(auth: Auth, alice: Person) -> None:
    raw = RegisterBlob(REALM, CHALLENGE, "alice", alice.keys.public, login_digest(alice.keys.login)).encode()
    with refused():
        await auth.key_login(
            Login(username="alice", blob=Binary(raw), signature=Binary(alice.keys.sign(raw))), challenge=CHALLENGE
        )


async def test_a_login_by_key_costs_no_bcrypt(auth: Auth, alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(bcrypt, "checkpw")
    monkeypatch.delattr(bcrypt, "hashpw")
    await auth.key_login(by_key(alice.keys), challenge=CHALLENGE)
    with refused():
        await auth.key_login(by_key(alice.keys, "nobody"), challenge=CHALLENGE)


# -- by password -----------------------------------------------------------------------------------------------------


async def test_the_login_secret_logs_in(auth: Auth, alice: Person) -> None:
    assert await auth.password_login(by_password("alice"), address=HOME) == alice.account
    login = Login(username="Alice", login=alice.keys.login)
    assert await auth.password_login(login, address=HOME) == alice.account


@pytest.mark.parametrize("secret", [WRONG, "", "A" * 43, "A" * 64, "é" * 43, "test", "\0" * 43])
async def test_anything_else_does_not(auth: Auth, alice: Person, secret: str) -> None:
    with refused():
        await auth.password_login(by_password("alice", secret), address=HOME)


@pytest.mark.parametrize("name", ["nobody", "us", "not a name", "x" * 64, "é", "123", "\ud800"])
async def test_nor_does_any_name_that_is_no_account(auth: Auth, alice: Person, name: str) -> None:
    with refused():
        await auth.password_login(by_password(name, alice.keys.login), address=HOME)


async def test_an_account_whose_hash_is_none_lets_nobody_in(auth: Auth, store: Store) -> None:
    keys = identity.account("bob")
    await store.add_account("bob", keys.public, "not a bcrypt hash")
    with refused():
        await auth.password_login(by_password("bob"), address=HOME)


async def test_five_failures_lock_the_account_for_that_address_only(auth: Auth, alice: Person) -> None:
    await fail(auth, "alice", 5)
    with refused():
        await auth.password_login(by_password("alice"), address=HOME)
    assert await auth.password_login(by_password("alice"), address="203.0.113.8") == alice.account
    assert await auth.key_login(by_key(alice.keys), challenge=CHALLENGE) == alice.account


async def test_locks_last_twice_as_long_each_time_up_to_a_bound(make: Make, clock: Clock, alice: Person) -> None:
    auth = make(failed_logins_per_ip=Rate(1000, 1))
    await fail(auth, "alice", 5)
    for minutes in (1, 2, 4, 8, 15, 15):
        clock.now += minutes * 60 - 1
        with refused():  # still locked: the password is right
            await auth.password_login(by_password("alice"), address=HOME)
        clock.now += 1
        await fail(auth, "alice", 1)
    clock.now += 15 * 60
    assert await auth.password_login(by_password("alice"), address=HOME) == alice.account


async def test_a_success_and_a_long_quiet_forgive(make: Make, clock: Clock, alice: Person) -> None:
    auth = make(failed_logins_per_ip=Rate(1000, 1))
    await fail(auth, "alice", 4)
    await auth.password_login(by_password("alice"), address=HOME)
    await fail(auth, "alice", 4)
    clock.now += 15 * 60 + 1
    await fail(auth, "alice", 4)
    await auth.password_login(by_password("alice"), address=HOME)


async def test_an_address_that_fails_often_is_told_to_wait_whatever_the_account(
    auth: Auth, clock: Clock, alice: Person
) -> None:
    for number in range(10):
        await fail(auth, f"guess{number}", 1, "2001:db8::1")
    for address in ("2001:db8::1", "2001:db8::ffff:1"):
        with pytest.raises(RateLimited) as caught:
            await auth.password_login(by_password("alice"), address=address)
        assert caught.value.retry_after == pytest.approx(60, abs=1)
    assert await auth.password_login(by_password("alice"), address="2001:db8:0:1::1") == alice.account
    clock.now += 61
    assert await auth.password_login(by_password("alice"), address="2001:db8::1") == alice.account


async def test_right_passwords_do_not_count_for_the_address(make: Make, alice: Person) -> None:
    auth = make(password_logins=Rate(1000, 1))
    for _ in range(30):
        await auth.password_login(by_password("alice"), address=HOME)


async def test_an_account_attacked_from_everywhere_logs_in_by_key_only(auth: Auth, clock: Clock, alice: Person) -> None:
    for number in range(50):
        await fail(auth, "alice", 1, f"198.51.100.{number}")
    with refused():
        await auth.password_login(by_password("alice"), address=HOME)
    assert await auth.key_login(by_key(alice.keys), challenge=CHALLENGE) == alice.account
    clock.now += 3600 / 50 + 1
    assert await auth.password_login(by_password("alice"), address=HOME) == alice.account


async def test_right_passwords_are_limited_too(auth: Auth, clock: Clock, alice: Person) -> None:
    for _ in range(20):
        await auth.password_login(by_password("alice"), address=HOME)
    with pytest.raises(RateLimited) as caught:
        await auth.password_login(by_password("alice"), address=HOME)
    assert caught.value.retry_after == pytest.approx(180, abs=1)
    clock.now += 181
    await auth.password_login(by_password("alice"), address=HOME)


async def test_many_attempts_at_once_pass_no_limit(auth: Auth, alice: Person) -> None:
    attempts = [auth.password_login(by_password("alice", WRONG), address=HOME) for _ in range(40)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(outcome, LoginRefused) for outcome in outcomes) == 10
    assert sum(isinstance(outcome, RateLimited) for outcome in outcomes) == 30
    assert await auth.password_login(by_password("alice"), address="203.0.113.8") == alice.account


async def test_the_secret_is_confirmed_within_the_same_limits(auth: Auth, alice: Person) -> None:
    await auth.confirm(alice.account, alice.keys.login, address=HOME)
    for _ in range(5):
        with refused():
            await auth.confirm(alice.account, WRONG, address=HOME)
    with refused():
        await auth.confirm(alice.account, alice.keys.login, address=HOME)
    with refused():
        await auth.password_login(by_password("alice"), address=HOME)


# -- under load ------------------------------------------------------------------------------------------------------


class Gate:
    """A bcrypt that waits until it is let through, and knows how many wait in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.inside = self.most = 0
        self._lock = threading.Lock()
        self._real = bcrypt.checkpw
        monkeypatch.setattr(bcrypt, "checkpw", self._check)

    def _check(self, password: bytes, hashed: bytes) -> bool:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.opened.wait(20)
        with self._lock:
            self.inside -= 1
        return self._real(password, hashed)


async def test_so_many_are_hashed_at_once_so_many_wait_and_one_more_is_busy(
    make: Make, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth, gate = make(bcrypt_threads=2, bcrypt_queue=3), Gate(monkeypatch)
    logins = [
        asyncio.create_task(auth.password_login(by_password("alice"), address=f"198.51.100.{number}"))
        for number in range(5)
    ]
    await until(lambda: gate.inside == 2 and auth._passwords._waiting == 3)
    with pytest.raises(Busy) as caught:
        await auth.password_login(by_password("alice"), address=HOME)
    assert caught.value.retry_after == 5
    gate.opened.set()
    assert await asyncio.gather(*logins) == [alice.account] * 5
    assert gate.most == 2
    await auth.password_login(by_password("alice"), address=HOME)


async def test_whoever_waits_too_long_is_told_busy_and_not_locked(
    make: Make, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = make(bcrypt_threads=1, bcrypt_wait=0.05, failed_logins=1, failed_logins_per_ip=Rate(1, 3600))
    gate = Gate(monkeypatch)
    first = asyncio.create_task(auth.password_login(by_password("alice"), address=HOME))
    await until(lambda: gate.inside == 1)
    for _ in range(3):
        with pytest.raises(Busy):
            await auth.password_login(by_password("alice"), address="203.0.113.8")
    gate.opened.set()
    await first
    assert await auth.password_login(by_password("alice"), address="203.0.113.8") == alice.account


async def test_a_client_that_leaves_frees_no_thread_that_still_works(
    make: Make, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth, gate = make(bcrypt_threads=1, bcrypt_queue=1, bcrypt_wait=20), Gate(monkeypatch)
    first = asyncio.create_task(auth.password_login(by_password("alice"), address=HOME))
    await until(lambda: gate.inside == 1)
    first.cancel()
    await asyncio.wait({first})
    second = asyncio.create_task(auth.password_login(by_password("alice"), address="203.0.113.8"))
    await until(lambda: auth._passwords._waiting == 1)
    assert gate.inside == 1
    gate.opened.set()
    assert await second == alice.account
    assert gate.most == 1
    assert auth._turns == {}


async def test_the_event_loop_goes_on_while_passwords_are_hashed(make: Make, alice: Person) -> None:
    auth = make(cost=8)
    login = asyncio.create_task(auth.password_login(by_password("nobody"), address=HOME))
    turns = 0
    while not login.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 20
    with refused():
        await login


async def test_without_its_database_only_known_accounts_log_in(clock: Clock, alice: Person) -> None:
    class Away:
        async def account(self, username: str) -> Account | None:
            if username == "alice":
                return alice.account
            raise Unavailable("away")

    auth = Auth(Away(), realm=REALM, limits=Limits(), cost=CHEAPEST, clock=clock)
    assert await auth.key_login(by_key(alice.keys), challenge=CHALLENGE) == alice.account
    for _ in range(20):
        with pytest.raises(Unavailable):
            await auth.password_login(by_password("bob"), address=HOME)
    assert await auth.password_login(by_password("alice"), address=HOME) == alice.account
    await auth.close()


# -- nobody learns which names exist ---------------------------------------------------------------------------------


async def test_wrong_unknown_and_locked_take_the_same_time(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Cost 6 and not 12, for the suite's sake. A missing hash would still be seen: it is most of the time measured.
    cost, tries = 6, 200
    plenty = Rate(10**6, 1)
    auth = make(cost=cost, failed_logins_per_ip=plenty, failed_logins_per_account=plenty, password_logins=plenty)
    keys = identity.account("alice")
    await store.add_account("alice", keys.public, bcrypt.hashpw(keys.login.encode(), bcrypt.gensalt(cost)).decode())
    await fail(auth, "alice", 5)
    hashed: list[bytes] = []
    real = bcrypt.checkpw

    def counted(password: bytes, login_hash: bytes) -> bool:
        hashed.append(login_hash[:7])
        return real(password, login_hash)

    monkeypatch.setattr(bcrypt, "checkpw", counted)

    async def measure(login: Login, address: str) -> float:
        before = time.perf_counter()
        with refused():
            await auth.password_login(login, address=address)
        return time.perf_counter() - before

    times: dict[str, list[float]] = {"wrong": [], "unknown": [], "locked": []}
    for number in range(tries):
        elsewhere = f"198.51.{number // 250}.{number % 250}"
        times["wrong"].append(await measure(by_password("alice", WRONG), elsewhere))
        times["unknown"].append(await measure(by_password("nobody", WRONG), elsewhere))
        times["locked"].append(await measure(by_password("alice"), HOME))  # the right one: it makes no difference
    medians = {kind: statistics.median(taken) for kind, taken in times.items()}
    assert max(medians.values()) - min(medians.values()) < 0.005, medians
    assert max(medians.values()) < 1.5 * min(medians.values()), medians
    assert hashed == [f"$2b${cost:02}$".encode()] * 3 * tries


async def test_key_logins_of_known_and_unknown_accounts_take_the_same_time(auth: Auth, alice: Person) -> None:
    known, unknown = by_key(identity.account("mallory"), "alice"), by_key(identity.account("mallory"), "nobody")

    async def measure(login: Login) -> float:
        before = time.perf_counter()
        with refused():
            await auth.key_login(login, challenge=CHALLENGE)
        return time.perf_counter() - before

    pairs = [(await measure(known), await measure(unknown)) for _ in range(200)]
    medians = [statistics.median(taken) for taken in zip(*pairs, strict=True)]
    assert abs(medians[0] - medians[1]) < 0.005, medians


# -- registration ------------------------------------------------------------------------------------------------------


def registration(
    name: str,
    keys: AccountKeys | None = None,
    *,
    realm: str = REALM,
    challenge: bytes = CHALLENGE,
    named: str = "",
    secret: str = "",
) -> Register:
    """A registration; `named` and `secret` are what the blob says, if something else."""
    keys = keys or identity.account(name)
    raw = RegisterBlob(
        realm, challenge, named or name.lower(), keys.public, login_digest(secret or keys.login)
    ).encode()
    return Register(name, keys.login, Binary(keys.public), Binary(raw), Binary(keys.sign(raw)))


async def test_a_registered_account_logs_in_both_ways(auth: Auth, store: Store) -> None:
    keys = identity.account("Carol")
    new = await auth.register(registration("Carol"), challenge=CHALLENGE, address=HOME)
    assert (new.username, new.public_key) == ("carol", keys.public)
    assert new.login_hash.startswith(f"$2b${CHEAPEST:02}$") and new.login_hash not in repr(new)
    account = await store.add_account(new.username, new.public_key, new.login_hash)
    assert await auth.key_login(by_key(keys, "carol"), challenge=CHALLENGE) == account
    assert await auth.password_login(by_password("carol", keys.login), address=HOME) == account


async def test_a_registration_proves_key_name_secret_realm_and_socket(auth: Auth, alice: Person) -> None:
    good, other = registration("carol"), registration("dave")
    for register in [
        registration("carol", realm="example.net"),
        registration("carol", challenge=identity.seed("another socket's")),
        registration("carol", named="dave"),
        registration("carol", secret=WRONG),
        Register("carol", good.login, good.public_key, good.blob, other.signature),
        Register("carol", good.login, other.public_key, good.blob, good.signature),
        Register("carol", good.login, Binary(alice.keys.public), good.blob, good.signature),
        Register("carol", good.login, Binary(bytes(32)), good.blob, good.signature),
        Register("carol", good.login, Binary(b"short"), good.blob, good.signature),
    ]:
        with pytest.raises(IdentityMismatch):
            await auth.register(register, challenge=CHALLENGE, address=HOME)
    with pytest.raises(BadMessage):
        await auth.register(
            Register("carol", "!" * 43, good.public_key, good.blob, good.signature), challenge=CHALLENGE, address=HOME
        )
    with pytest.raises(BadName):
        await auth.register(
            Register("us", good.login, good.public_key, good.blob, good.signature), challenge=CHALLENGE, address=HOME
        )
    more = Binary(good.blob + b"\0\0\0\0")
    signature = Binary(identity.account("carol").sign(more))
    with pytest.raises(RemoteProtocolError):
        await auth.register(
            Register("carol", good.login, good.public_key, more, signature), challenge=CHALLENGE, address=HOME
        )
    await auth.register(good, challenge=CHALLENGE, address=HOME)  # none of these counted


async def test_registrations_are_limited_by_address_also_for_taken_names(
    auth: Auth, clock: Clock, alice: Person
) -> None:
    for _ in range(3):
        with pytest.raises(NameTaken):
            await auth.register(registration("alice"), challenge=CHALLENGE, address=HOME)
    with pytest.raises(RateLimited) as caught:
        await auth.register(registration("carol"), challenge=CHALLENGE, address=HOME)
    assert caught.value.retry_after == pytest.approx(1200, abs=1)
    await auth.register(registration("carol"), challenge=CHALLENGE, address="203.0.113.8")
    clock.now += 1201
    await auth.register(registration("carol"), challenge=CHALLENGE, address=HOME)


async def test_registrations_of_a_node_are_limited(make: Make, alice: Person) -> None:
    auth = make(registrations=Rate(2, 3600))
    with pytest.raises(NameTaken):
        await auth.register(registration("alice"), challenge=CHALLENGE, address=HOME)
    for number in range(2):
        await auth.register(registration(f"p{number}"), challenge=CHALLENGE, address=f"198.51.100.{number}")
    with pytest.raises(RateLimited):
        await auth.register(registration("carol"), challenge=CHALLENGE, address=HOME)


async def test_a_registration_that_found_the_server_busy_does_not_count(
    make: Make, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = make(bcrypt_threads=1, bcrypt_wait=0.05, registrations=Rate(1, 3600), registrations_per_ip=Rate(1, 3600))
    gate = Gate(monkeypatch)
    first = asyncio.create_task(auth.password_login(by_password("alice"), address=HOME))
    await until(lambda: gate.inside == 1)
    for _ in range(2):
        with pytest.raises(Busy):
            await auth.register(registration("carol"), challenge=CHALLENGE, address=HOME)
    gate.opened.set()
    await first
    await auth.register(registration("carol"), challenge=CHALLENGE, address=HOME)


async def test_only_a_login_secret_is_hashed(auth: Auth) -> None:
    with pytest.raises(BadMessage):
        await auth.hash("a password, and no login secret")


# -- tickets -------------------------------------------------------------------------------------------------------


def test_a_ticket_is_for_one_peer_id_of_one_account_of_one_server() -> None:
    tickets = Tickets(identity.seed("secret"))
    ticket = tickets.issue(AccountId(7), "123456789")
    assert tickets.valid(AccountId(7), "123456789", ticket)
    assert Tickets(identity.seed("secret")).valid(AccountId(7), "123456789", ticket)  # after a restart
    assert not tickets.valid(AccountId(8), "123456789", ticket)
    assert not tickets.valid(AccountId(7), "123456788", ticket)
    assert not Tickets(identity.seed("another")).valid(AccountId(7), "123456789", ticket)
    for forged in ["", ticket[:-1], ticket + "A", ticket.swapcase(), "\ud800", "é" * 43]:
        assert not tickets.valid(AccountId(7), "123456789", forged)
    # Where one field ends and the next begins cannot be shifted.
    assert tickets.issue(AccountId(71), "23") != tickets.issue(AccountId(7), "123")


async def test_a_ticket_logs_nobody_in(auth: Auth, store: Store, alice: Person) -> None:
    ticket = Tickets(store.secret).issue(alice.account.id, "123456789")
    with refused():
        await auth.password_login(by_password("alice", ticket), address=HOME)
    with refused():
        await auth.key_login(Login(username="alice", blob=Binary(ticket.encode())), challenge=CHALLENGE)
