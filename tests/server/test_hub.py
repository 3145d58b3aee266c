"""The hub without sockets: who gets in, who comes back, and what each is told in which order."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import replace

from bonevalue.errors import LocalProtocolError, Unavailable
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.keys import to_base64url
from bonevalue.wire.signals import Binary, Login, PeerConnect, PeerList, PeerResponse, Ping
from bonevalue_server.hub import Hub
from bonevalue_server.sessions import TRANSITIONS, Session, State
from bonevalue_server.store import Store
from tests.support import identity
from tests.support.accounts import Person, befriend
from tests.support.hub_world import World, login_of, open_world, request, token_request


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as opened:
        yield opened


@pytest.fixture
async def alice(world: World) -> Person:
    return await world.person("alice")


@pytest.fixture
async def friends(world: World, alice: Person) -> tuple[Person, Person]:
    """Alice and Bob, who trust each other."""
    bob = await world.person("bob")
    await befriend(world.store, alice, bob)
    return alice, bob


# -- login -----------------------------------------------------------------------------------------------------------


async def test_the_greeting_comes_first_and_says_what_a_client_needs(world: World) -> None:
    client = world.client()
    assert client.received == [
        {
            "type": "hello",
            "data": {
                "version": 1,
                "realm": "example.org",
                "challenge": to_base64url(client.challenge),
                "time": identity.NOW,
                "registration": "open",
                "tokenLifetime": 86400,
            },
        }
    ]
    assert world.client().challenge != client.challenge


async def test_the_order_after_a_login(world: World, friends: tuple[Person, Person]) -> None:
    alice, bob = friends
    first = await world.enter(bob)
    client = await world.enter(alice)
    assert client.types() == ["hello", "setPeerId", "iceServers", "userList", "contacts", "peerList"]
    assert client.of("userList") == [["Us", "bob"]]
    assert client.of("peerList") == [{"peers": [{"name": "bob", "id": first.peer_id}]}]
    assert client.peer_id.isdigit() and len(client.peer_id) <= 15
    assert client.is_logged_in


async def test_ice_servers_are_handed_out(tmp_path: Path) -> None:
    servers = [{"urls": ["stun:stun.example.org:3478"]}]
    async with open_world(tmp_path, ice_servers=servers) as world:
        client = await world.enter(await world.person("alice"))
        assert client.of("iceServers") == [servers]


async def test_contacts_prove_themselves_to_the_client(world: World, friends: tuple[Person, Person]) -> None:
    for person, other in (friends, friends[::-1]):
        client = await world.enter(person)
        (verdict,) = ContactBook(person.keys).replace(client.contacts(), identity.NOW)
        assert verdict.problem is None and verdict.contact is not None
        assert verdict.contact.key == other.keys.public


@pytest.mark.parametrize("wrong", ["keys", "realm", "challenge", "username", "signature", "both", "neither"])
async def test_a_wrong_login_is_refused_and_the_socket_closed(world: World, alice: Person, wrong: str) -> None:
    client = world.client()
    right = login_of(alice, client.challenge)
    message = {
        "keys": login_of(alice, client.challenge, keys=identity.account("mallory")),
        "realm": login_of(alice, client.challenge, realm="example.net"),
        "challenge": login_of(alice, bytes(32)),
        "username": replace(right, username="bob"),
        "signature": replace(right, signature=Binary(bytes(64))),
        "both": replace(right, login=alice.keys.login),
        "neither": Login("alice"),
    }[wrong]
    assert await client.code_of(message) == ("bad_message" if wrong in ("both", "neither") else "login_refused")
    assert client.closed_with is not None and client.closed_with[0] >= 4500
    assert not client.is_logged_in
    assert await client.ask(right) is None  # nothing that comes later is read


async def test_one_login_a_socket(world: World, alice: Person) -> None:
    client = world.client()
    for _ in range(2):
        client.tell(login_of(alice, client.challenge))
    await world.hub.idle(10)
    assert client.of("error") == [{"code": "denied", "message": "this socket is logged in, or about to be"}]
    assert client.types().count("setPeerId") == 1


async def test_who_does_not_log_in_in_time_is_closed(world: World, alice: Person) -> None:
    late, in_time = world.client(), world.client()
    world.wait(9.9)
    await in_time.log_in(alice)
    world.wait(0.2)
    assert late.closed_with == (4004, "login_timeout")
    assert in_time.closed_with is None


async def test_a_login_by_password_sees_presence_and_nothing_else(world: World, friends: tuple[Person, Person]) -> None:
    alice, bob = friends
    other = await world.enter(bob)
    client = await world.enter(alice, password=True)
    assert client.peers() == {("bob", other.peer_id)}
    assert client.of("contacts") == [{"contacts": []}]
    assert other.news() == []  # it is in nobody's list
    assert await client.code_of(request(other.peer_id)) == "key_required"
    assert await other.code_of(request(client.peer_id)) == "peer_offline"
    other.leave()
    assert client.news()[-1] == ("peerDisconnect", other.peer_id)


async def test_a_wrong_password_and_an_unknown_account_are_one_answer(world: World, alice: Person) -> None:
    wrong = Login("alice", login=identity.account("mallory").login)
    unknown = Login("nobody", login=alice.keys.login)
    answers = [await world.client().ask(message) for message in (wrong, unknown)]
    assert answers[0] == answers[1]
    assert answers[0]["data"]["code"] == "login_refused"


async def test_an_account_has_so_many_peers_and_no_more(tmp_path: Path) -> None:
    async with open_world(tmp_path, limits={"peers": 2}) as world:
        alice = await world.person("alice")
        first, _ = [await world.enter(alice) for _ in range(2)]
        third = await world.client().log_in(alice)
        assert third.of("error")[0]["code"] == "too_many_peers"
        assert third.closed_with == (4002, "too_many_peers")
        again = await world.enter(alice, resume=(first.peer_id, first.ticket))
        assert again.peer_id == first.peer_id  # who takes over is no third


def test_a_session_never_goes_back() -> None:
    assert not any(State.GREETED in reached for reached in TRANSITIONS.values())
    assert not TRANSITIONS[State.CLOSED]


async def test_a_wrong_step_of_a_session_is_a_fault_of_ours(world: World) -> None:
    session = world.client().session
    with pytest.raises(LocalProtocolError, match="from greeted to online"):
        session.state = State.ONLINE


# -- coming back -----------------------------------------------------------------------------------------------------


async def test_a_lost_peer_that_is_back_in_time_was_never_gone(world: World, friends: tuple[Person, Person]) -> None:
    alice, bob = friends
    watcher, client = await world.enter(bob), await world.enter(alice)
    watcher.news()
    client.leave(may_return=True)
    world.wait(4.9)
    newcomer = await world.enter(bob)  # who comes meanwhile is told of it, too
    assert ("alice", client.peer_id) in newcomer.peers()
    assert await watcher.code_of(request(client.peer_id)) == "peer_offline"
    watcher.news()
    back = await world.enter(alice, resume=(client.peer_id, client.ticket))
    world.wait(60)
    assert back.peer_id == client.peer_id
    assert watcher.news() == []
    assert await watcher.code_of(request(back.peer_id)) == "done"


async def test_a_lost_peer_is_gone_after_the_grace_time(world: World, friends: tuple[Person, Person]) -> None:
    alice, bob = friends
    watcher, client = await world.enter(bob), await world.enter(alice)
    watcher.news()
    client.leave(may_return=True)
    world.wait(4.9)
    assert watcher.news() == []
    world.wait(0.2)
    assert watcher.news() == [("peerDisconnect", client.peer_id)]
    back = await world.enter(alice, resume=(client.peer_id, client.ticket))
    assert watcher.news() == [("peerConnect", {"name": "alice", "id": back.peer_id})]
    assert back.peer_id == client.peer_id


async def test_who_says_goodbye_is_gone_at_once(world: World, friends: tuple[Person, Person]) -> None:
    alice, bob = friends
    watcher, client = await world.enter(bob), await world.enter(alice)
    watcher.news()
    client.leave()
    client.leave()  # sockets may tell twice
    assert watcher.news() == [("peerDisconnect", client.peer_id)]


async def test_the_newest_socket_wins(world: World, friends: tuple[Person, Person]) -> None:
    alice, bob = friends
    watcher, old = await world.enter(bob), await world.enter(alice)
    watcher.news()
    new = await world.enter(alice, resume=(old.peer_id, old.ticket))
    assert old.closed_with == (4503, "replaced")
    old.leave()
    world.wait(60)
    assert watcher.news() == []
    watcher.tell(request(new.peer_id))
    assert new.types()[-1] == "peerRequest" and "peerRequest" not in old.types()


async def test_who_waits_for_an_answer_hears_that_the_peer_has_another_socket(
    world: World, friends: tuple[Person, Person]
) -> None:
    alice, bob = friends
    caller, answered, old = await world.enter(bob), await world.enter(bob), await world.enter(alice)
    for each in (caller, answered):
        each.tell(request(old.peer_id))
    old.tell(PeerResponse(answered.peer_id, None, Binary(b"an answer"), Binary(bytes(64))))
    for each in (caller, answered):
        each.news()
    old.leave(may_return=True)
    await world.enter(alice, resume=(old.peer_id, old.ticket))
    assert caller.news() == [("peerConnect", {"name": "alice", "id": old.peer_id})]
    assert answered.news() == []
    world.wait(60)  # it would have been told that its request is over
    caller.news()
    await world.enter(alice, resume=(old.peer_id, old.ticket))
    assert caller.news() == []


@pytest.mark.parametrize("forged", ["ticket", "id", "account"])
async def test_a_ticket_is_good_for_one_id_of_one_account(
    world: World, friends: tuple[Person, Person], forged: str
) -> None:
    alice, bob = friends
    client = await world.enter(alice)
    peer_id = "123" if forged == "id" else client.peer_id
    ticket = "A" * len(client.ticket) if forged == "ticket" else client.ticket
    other = await world.enter(bob if forged == "account" else alice, resume=(peer_id, ticket))
    assert other.peer_id not in (client.peer_id, "123")
    assert client.closed_with is None


async def test_ids_outlive_the_server(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        alice = await world.person("alice")
        client = await world.enter(alice)
    assert client.closed_with == (1012, "going_away")
    async with open_world(tmp_path) as world:
        back = await world.enter(alice, resume=(client.peer_id, client.ticket))
        assert (back.peer_id, back.ticket) == (client.peer_id, client.ticket)


async def test_coming_back_works_while_the_database_is_away(
    world: World, friends: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = friends
    client, watcher = await world.enter(alice), await world.enter(bob)

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("the database is away")

    for name in ("account", "edges", "missed", "account_by_id", "add_invite", "changes"):
        monkeypatch.setattr(Store, name, away)
    back = await world.enter(alice, resume=(client.peer_id, client.ticket))
    assert back.peer_id == client.peer_id
    assert [contact.name for contact in back.contacts()] == ["bob"]
    assert await watcher.code_of(request(back.peer_id)) == "done"
    assert await back.code_of(token_request(alice, "carol", "token")) == "unavailable"
    await world.hub.poll()
    assert not world.hub.is_database_well
    monkeypatch.undo()
    await world.hub.poll()
    assert world.hub.is_database_well


async def test_a_stop_tells_everyone_when_to_come_back(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        alice = await world.person("alice")
        clients = [await world.enter(alice) for _ in range(20)] + [world.client()]
    moments = [client.of("goodbye")[0]["reconnectAfter"] for client in clients]
    assert all(0 <= moment < 15 for moment in moments) and len(set(moments)) > 10
    assert {client.closed_with for client in clients} == {(1012, "going_away")}


# -- presence --------------------------------------------------------------------------------------------------------


async def test_ones_own_peers_are_us_to_each_other(world: World, alice: Person) -> None:
    first, second = await world.enter(alice), await world.enter(alice)
    assert first.news() == [("peerConnect", {"name": "Us", "id": second.peer_id})]
    assert second.peers() == {("Us", first.peer_id)}


async def test_strangers_hear_nothing_of_each_other(world: World, alice: Person) -> None:
    stranger = await world.enter(await world.person("stranger"))
    client = await world.enter(alice)
    client.leave()
    assert stranger.news() == []
    assert client.peers() == set()


async def test_an_invisible_peer_sees_all_and_is_seen_by_none(world: World, friends: tuple[Person, Person]) -> None:
    alice, bob = friends
    watchers = [await world.enter(bob), await world.enter(alice)]
    for watcher in watchers:
        watcher.news()
    hidden = await world.enter(alice, visible=False)
    assert hidden.peers() == {("bob", watchers[0].peer_id), ("Us", watchers[1].peer_id)}
    assert (await world.enter(bob)).peers() == {("alice", watchers[1].peer_id), ("Us", watchers[0].peer_id)}
    hidden.leave()
    assert all("peerDisconnect" not in watcher.types() for watcher in watchers)


async def test_a_peer_that_comes_back_invisible_is_gone_for_others(
    world: World, friends: tuple[Person, Person]
) -> None:
    alice, bob = friends
    watcher, client = await world.enter(bob), await world.enter(alice)
    watcher.news()
    hidden = await world.enter(alice, resume=(client.peer_id, client.ticket), visible=False)
    assert watcher.news() == [("peerDisconnect", client.peer_id)]
    await world.enter(alice, resume=(hidden.peer_id, hidden.ticket))
    assert watcher.news() == [("peerConnect", {"name": "alice", "id": client.peer_id})]


# -- bad messages ----------------------------------------------------------------------------------------------------

BAD = {
    "no JSON": "{",
    "no object": "[]",
    "no type": "{}",
    "a key twice": '{"type":"login","type":"login"}',
    "NaN": '{"type":"login","data":{"username":NaN}}',
    "a huge integer": '{"type":"login","data":' + "9" * 5000 + "}",
    "too deep": '{"type":"login","data":' + "[" * 2000 + "]" * 2000 + "}",
    "too many keys": '{"type":"login","data":{' + ",".join(f'"k{n}":1' for n in range(65)) + "}}",
    "no base64url": '{"type":"peerRequest","data":{"to":"1","offer":"%%"}}',
    "a peer id that is none": '{"type":"peerRequest","data":{"to":"one"}}',
    "a lone surrogate": '{"type":"login","data":{"username":"\\ud800","login":"x"}}',
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
async def test_a_bad_message_is_an_error_and_the_third_the_end(world: World, alice: Person, text: str) -> None:
    client = await world.enter(alice)
    for _ in range(2):
        client.tell(text)
    assert [error["code"] for error in client.of("error")] == ["bad_message"] * 2
    assert client.closed_with is None
    client.tell(text)
    assert client.closed_with == (4502, "bad_message")


async def test_unknown_types_are_errors_and_no_more(world: World, alice: Person) -> None:
    client = await world.enter(alice)
    for kind in ("tomorrow", "hello", "setPeerId", "done"):
        client.tell(json.dumps({"type": kind}))
    assert [error["code"] for error in client.of("error")] == ["unknown_type"] * 4
    assert client.closed_with is None


async def test_too_many_messages_are_refused_and_then_the_end(world: World, alice: Person) -> None:
    client = await world.enter(alice)
    for _ in range(255):  # the login was the first
        client.tell('{"type":"tomorrow"}')
    client.tell(request("1"), "the 257th")
    refusal = client.received[-1]
    assert refusal["ref"] == "the 257th" and refusal["data"]["code"] == "rate_limited"
    assert 0 < refusal["data"]["retryAfter"] <= 0.05
    world.wait(11)  # strikes are forgotten, and the bucket fills
    for _ in range(220):
        client.tell('{"type":"tomorrow"}')
    assert client.closed_with is None
    for _ in range(3):
        client.tell('{"type":"tomorrow"}')
    assert client.closed_with == (4029, "rate_limited")


async def test_control_frames_count_like_messages(world: World, alice: Person) -> None:
    client = await world.enter(alice)
    for _ in range(258):
        world.hub.count(client.session)
    assert client.closed_with == (4029, "rate_limited")


async def test_only_so_many_requests_of_a_socket_wait(world: World, alice: Person) -> None:
    client = await world.enter(alice)
    for number in range(18):
        client.tell(token_request(alice, f"contact-{number}", f"token-{number}"), str(number))
    refused = [message["ref"] for message in client.received if message["type"] == "error"]
    assert refused == ["16", "17"]
    assert client.of("error")[0]["code"] == "busy"
    await world.hub.idle(10)


async def test_a_ping_is_answered_at_once_and_counts_like_a_message(world: World, alice: Person) -> None:
    client = await world.enter(alice)
    client.news()
    for number in range(18):
        client.tell(token_request(alice, f"contact-{number}", f"token-{number}"))
    client.tell(Ping(), "alive")
    client.tell(Ping())
    assert client.received[-2:] == [{"type": "done", "data": {}, "ref": "alive"}, {"type": "done", "data": {}}]
    await world.hub.idle(10)
    for _ in range(258):
        client.tell(Ping())
    assert client.closed_with == (4029, "rate_limited")


async def test_a_fault_of_ours_is_unavailable_and_in_the_log(
    world: World, alice: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client, login = await world.enter(alice), world.client()

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Store, "add_invite", broken)
    monkeypatch.setattr(Store, "missed", broken)
    assert await client.code_of(token_request(alice, "bob", "token")) == "unavailable"
    await login.log_in(alice)
    assert login.closed_with == (4003, "unavailable")
    assert [record.getMessage() for record in caplog.records] == [
        "a request of type requestToken failed",
        "a request of type login failed",
    ]


# -- what tests of clients build on ----------------------------------------------------------------------------------


async def test_a_dishonest_hub_changes_whatever_goes_out(tmp_path: Path) -> None:
    class Liar(Hub):
        def outgoing(self, session: Session, message: Struct) -> Iterable[Struct]:
            return [PeerConnect("bob", "1"), message] if isinstance(message, PeerList) else [message]

    async with open_world(tmp_path, hub_type=Liar) as world:
        client = await world.enter(await world.person("alice"))
        assert client.types()[-2:] == ["peerConnect", "peerList"]
