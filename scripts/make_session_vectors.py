"""
Write tests/vectors/session.json: transcripts of sessions with a discovery server, for readers in any language.

Each transcript is a session of Alice, with what happens to it step by step: what it is told and when, what it then
says, reports, and waits for. Random numbers are all the same in one transcript. Texts for people are not recorded.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from bonevalue.wire.blobs import Blob, Invite, Pin, Redeem, Remove, Rotate
from bonevalue.wire.keys import AccountKeys
from bonevalue.wire.session import State
from bonevalue.wire.signals import (
    Binary,
    Contact,
    Contacts,
    Done,
    Failure,
    Goodbye,
    IceServer,
    IceServers,
    PeerCandidate,
    PeerConnect,
    PeerDisconnect,
    PeerEntry,
    PeerList,
    PeerRequest,
    PeerResponse,
    Registered,
    SetPeerId,
    SignedBlob,
    TokenClaimed,
    TokenResponse,
    UserAdd,
    UserList,
    UserRemove,
)
from scripts.session_record import (
    ALICE,
    KEYS,
    NOW_MS,
    PEOPLE,
    REALM,
    Record,
    Step,
    hello,
    lists,
)

TARGET = Path(__file__).parent.parent / "tests" / "vectors" / "session.json"
TOKEN = KEYS["dave"]


# -- what can be said ------------------------------------------------------------------------------------------------


def signed(blob: Blob, *signers: AccountKeys) -> SignedBlob:
    """A blob with its signatures."""
    raw = blob.encode()
    return SignedBlob(Binary(raw), [Binary(signer.sign(raw)) for signer in signers])


def contact(name: str, person: str = "", *, issued: int = NOW_MS - 1000, owner: str = "alice") -> Contact:
    """What the server shows of a contact, which a pin proves."""
    key = KEYS[person or name].public
    return Contact(name, Binary(key), [signed(Pin(KEYS[owner].public, key, name, issued), KEYS[owner])])


def chained(name: str, person: str) -> Contact:
    """A contact that a longer chain proves: it claimed our token."""
    key = KEYS[person].public
    invite = Invite(ALICE.public, TOKEN.public, name, NOW_MS - 3000, NOW_MS + 3_600_000)
    redeem = Redeem(TOKEN.public, ALICE.public, key, person, NOW_MS - 2000)
    return Contact(name, Binary(key), [signed(invite, ALICE), signed(redeem, TOKEN, KEYS[person])])


def rotated(name: str, old: str, new: str) -> Contact:
    """A contact that made itself another key."""
    blob = Rotate(KEYS[old].public, KEYS[new].public, NOW_MS - 500)
    before = contact(name, old)
    return Contact(name, Binary(KEYS[new].public), [*before.certificates, signed(blob, KEYS[old], KEYS[new])])


def removal(remover: str, removed: str, issued: int = NOW_MS - 100) -> SignedBlob:
    """The proof that somebody ended trust."""
    return signed(Remove(KEYS[remover].public, KEYS[removed].public, issued), KEYS[remover])


SESSION_ID = Binary(bytes(16))
REQUEST = PeerRequest(to="100", from_="7", offer=Binary(b"offer"), signature=Binary(bytes(64)))
RESPONSE = PeerResponse(to="100", from_="7", session=SESSION_ID, error=Failure("busy", "later", 2.5))
CANDIDATE = PeerCandidate(to="100", from_="7", session=SESSION_ID, candidate="candidate:1 1 udp 1 192.0.2.1 9 typ host")
#: One message of each type that a server sends.
OF_EACH_TYPE: list[Struct] = [
    hello(), Registered("alice"), SetPeerId("100", "t"), IceServers([]), UserList(["Us"]), Contacts([]), PeerList([]),
    UserAdd("dave", contact("dave")), UserRemove("bob"), PeerConnect("Us", "9"), PeerDisconnect("9"), Failure("busy"),
    Goodbye("going_away", 3.0), TokenResponse(1), TokenClaimed("bob"), Done(), REQUEST, RESPONSE, CANDIDATE,
]  # fmt: skip


# -- the transcripts -------------------------------------------------------------------------------------------------

Scenario = Callable[[Record], None]


def a_life(record: Record) -> None:
    """From the first login to the farewell."""
    record.log_in(contact("bob"), peers={"7": "bob", "8": "Us", "100": "Us", "9": "nobody"})
    record.tell(PeerConnect("bob", "10"), PeerConnect("bob", "10"), PeerDisconnect("7"), PeerDisconnect("7"))
    record.tell(PeerConnect("nobody", "11"), PeerConnect("Us", "100"), PeerConnect("Us", "10"))
    record.tell(Failure("token_used", "somebody \x1b[1m tried a token again"), REQUEST, RESPONSE, CANDIDATE)
    record.stop()
    record.stop()
    record.tell(PeerConnect("bob", "12"))
    record.closed(1000)


def pages(record: Record) -> None:
    """The lists in pages, and what comes between them."""
    record.connect()
    record.tell(hello(), SetPeerId("100", "t"), UserList(["Us", "bob"]), PeerConnect("carol", "20"), REQUEST)
    record.tell(UserList(["carol"]), Contacts([contact("bob")], more=True), PeerDisconnect("7"))
    record.tell(Contacts([contact("carol")]), PeerList([PeerEntry("bob", "7")], more=True))
    record.tell(Failure("token_used", "news"), PeerList([PeerEntry("carol", "8")]))


def lists_out_of_order(record: Record) -> None:
    """What the lists may not do."""
    for wrong in (
        [PeerList([])],
        [UserList(["Us"]), Contacts([], more=True), PeerList([])],
        [UserList(["Us", "12345"])],
        [UserList(["Bob"])],
        [UserList(["*"])],
        [UserList(["us"])],
    ):
        record.connect()
        record.tell(hello(), SetPeerId("100", "t"), *wrong)


def differences(record: Record) -> None:
    """After a reconnect only differences are told, and who is missing is held for a while."""
    record.log_in(contact("bob"), contact("carol"), peers={"7": "bob", "8": "carol", "9": "Us", "30": "bob"})
    record.now += 20
    record.closed()
    record.log_in(contact("bob"), chained("dave", "carol"), peers={"7": "bob", "10": "bob", "30": "Us"})
    record.wait(5)
    record.tell(PeerConnect("Us", "9"))
    record.wait(9.5)
    record.wait()
    record.closed()
    record.log_in(contact("bob"), peer_id="200", peers={"7": "bob"})
    record.closed()
    record.log_in(contact("bob"), peer_id="200")
    record.closed()
    record.wait(60)


def trust(record: Record) -> None:
    """Users come and go, with proof and without, and change their keys."""
    record.log_in(contact("bob"), peers={"7": "bob"})
    record.tell(UserAdd("carol", contact("carol")), PeerConnect("carol", "8"), PeerConnect("carol", "9"))
    record.tell(UserAdd("carol", rotated("carol", "carol", "dave")))
    record.tell(UserRemove("carol"), UserRemove("carol", removal("dave", "alice")))
    record.tell(UserRemove("bob", removal("bob", "alice", NOW_MS - 5000)))
    record.tell(UserRemove("bob", removal("bob", "alice")), UserRemove("bob", removal("bob", "alice")))
    record.tell(UserAdd("bob", contact("bob")), UserAdd("bob", contact("bob", issued=NOW_MS - 10)))
    record.tell(
        UserAdd("bob", contact("bob", "carol")), UserAdd("robert", contact("robert", "bob", issued=NOW_MS - 10))
    )


def chains(record: Record) -> None:
    """A longer chain is replaced by a pin; what proves nothing is refused."""
    forged = contact("carol", owner="bob")
    record.log_in(chained("bob", "bob"), forged, peers={"7": "bob", "8": "carol"})
    record.tell(UserAdd("carol", forged), UserAdd("carol", contact("carol")), UserAdd("dave", forged))


def removals(record: Record) -> None:
    """Trust ends by our own doing, here and in another process."""
    record.log_in(contact("bob"), contact("carol"), peers={"7": "bob", "8": "carol"})
    record.removed("bob", removal("alice", "bob"))
    record.removed("bob", removal("alice", "bob"))
    record.removed(None, removal("alice", "carol"))
    record.removed(None, removal("alice", "carol"))
    record.removed(None, removal("bob", "carol"))
    record.tell(UserRemove("bob"), UserRemove("bob", removal("alice", "bob")))
    record.tell(UserAdd("bob", contact("bob", issued=NOW_MS - 50)))
    record.tell(UserRemove("bob", removal("alice", "bob")))
    record.closed()
    record.removed("bob", removal("alice", "bob", NOW_MS - 20))


def requests(record: Record) -> None:
    """Requests, their replies, and what becomes of them when the connection is lost."""
    blob = {"blob": "AAAA", "signatures": ["AAAA"]}
    asked: list[tuple[str, Step, Struct]] = [
        ("requestIceServers", {}, IceServers([IceServer(["stun:192.0.2.1"])])),
        ("requestToken", {"name": "bob", "invite": "AAAA", "signature": "AAAA"}, TokenResponse(NOW_MS)),
        ("claimToken", {"name": "bob", "redeem": "AAAA", "signatures": ["AA", "AA"], "pin": "AAAA", "signature": "AA"},
         TokenClaimed("bob")),
        ("updateContact", {"pin": "AAAA", "signature": "AAAA"}, Done()),
        ("removeUser", {"name": "bob", "remove": "AAAA", "signature": "AAAA"}, Done()),
        ("stagePins", {"pins": [blob]}, Done()),
        ("changePassword", {"login": "l", "newLogin": "n" * 43, "rotate": "AAAA", "signatures": ["AAAA", "AAAA"],
                            "pins": []}, Done()),
        ("peerRequest", {"to": "7", "offer": "AAAA", "signature": "AAAA"}, Done()),
        ("peerResponse", {"to": "7", "session": "AAAA", "error": {"code": "busy", "message": "x"}}, Done()),
        ("peerCandidate", {"to": "7", "session": "AAAA", "candidate": "x"}, Done()),
    ]  # fmt: skip
    record.request("requestIceServers", {})
    record.log_in()
    for kind, data, reply in asked:
        ref = record.request(kind, data)
        record.tell(reply, reply, ref=ref)
    ref = record.request("requestIceServers", {})
    record.tell(Failure("rate_limited", "slowly", 4.5), ref="99")
    record.tell(Failure("rate_limited", "slowly", 4.5), Failure("rate_limited"), ref=ref)
    record.tell(Done(), TokenResponse(1), Failure("rate_limited"))
    ref = record.request("requestIceServers", {})
    record.did("forget", lambda: record.session.forget(ref or ""), ref=ref)
    record.tell(Done(), ref=ref)
    record.request("requestIceServers", {})
    record.request("updateContact", {"pin": "AAAA", "signature": "AAAA"})
    record.tell(TokenResponse(1), ref=record.request("requestIceServers", {}))
    record.send("peerCandidate", {"to": "7", "session": "AAAA", "candidate": "x"})
    record.log_in()
    record.send("peerCandidate", {"to": "7", "session": "AAAA", "candidate": "x" * 1024})
    record.request("updateContact", {"pin": "A" * 60_000, "signature": "A" * 8000})
    record.request("requestIceServers", {})
    record.stop()
    record.request("requestIceServers", {})


def pace(record: Record) -> None:
    """We say no more than a server takes; pins go last."""
    record.log_in(chained("bob", "bob"))
    for _ in range(205):
        record.send("peerCandidate", {"to": "7", "session": "AAAA", "candidate": "x"})
    record.tell(UserAdd("carol", chained("carol", "carol")))
    for _ in range(4):
        record.now = record.session.send_timer() or record.now
        record.wait(0)
    record.wait(1)


def ice(record: Record) -> None:
    """ICE servers, with lifetimes by the server's clock."""
    servers = [
        IceServer(["stun:192.0.2.1:3478"]),
        IceServer(["turn:192.0.2.1?transport=udp"], "name", "secret", NOW_MS + 60_000),
        IceServer(["turns:192.0.2.1"], "name", "secret", NOW_MS - 60_000),
    ]
    record.connect()
    record.tell(hello(time=NOW_MS - 5000))
    record.now += 2
    record.tell(SetPeerId("100", "t"), IceServers(servers), *lists()[1:], IceServers(servers))
    record.now += 10
    record.tell(IceServers(servers[:2]), IceServers(servers))


def greetings(record: Record) -> None:
    """Greetings that are no good: the wrong server for ever, a stutterer for a while."""
    record.connect()
    record.tell('{"type":"hello","data":{"version":1}}')
    record.connect()
    record.tell(hello("elsewhere.org"))


def other_versions(record: Record) -> None:
    """A server that speaks another version."""
    record.connect()
    record.tell(hello(version=2))


def short_challenge(record: Record) -> None:
    """A challenge that is none."""
    record.connect()
    record.tell(hello(size=31))


def refused(code: str, close: int | None) -> Scenario:
    """A login that is refused."""

    def scenario(record: Record) -> None:
        record.connect()
        record.tell(hello(), Failure(code, "no", 7.0))
        record.closed(close, code)
        record.wait(8)

    return scenario


def closed(code: int | None, goodbye: Goodbye | None = None, *, while_online: bool = True) -> Scenario:
    """A socket that is closed."""

    def scenario(record: Record) -> None:
        if while_online:
            record.log_in(peers={"7": "Us"})
        else:
            record.connect()
        if goodbye is not None:
            record.tell(goodbye)
        record.closed(code, "why")
        record.hurry()
        record.wait()

    return scenario


def delays(record: Record) -> None:
    """Delays between attempts grow, and begin anew after a connection that lasted."""
    record.start()
    for _ in range(9):
        record.unreachable()
        record.wait()
    record.opened()
    record.closed()
    record.log_in()
    record.now += 9
    record.closed()
    record.log_in()
    record.now += 10
    record.closed()


def hurries(record: Record) -> None:
    """A network that changes: at once, but not for ever, and not if the server asked for patience."""
    record.start()
    record.hurry()
    record.unreachable()
    for _ in range(6):
        record.hurry()
        record.wait()
        if record.session.wants_socket:
            record.unreachable()
    record.wait(30)
    record.opened()
    record.abandoned(hurry=True)
    record.log_in()
    record.abandoned(hurry=False)
    record.abandoned(hurry=True)
    record.wait()
    record.log_in()
    record.hurry()
    record.tell(Goodbye("going_away", 20.0))
    record.closed(1012)
    record.hurry()
    record.wait(10)
    record.hurry()
    record.wait()


def establishing(record: Record) -> None:
    """Somebody who never comes to the point."""
    for said in ([], [hello()], [hello(), SetPeerId("100", "t")]):
        record.connect()
        record.tell(*said)
        record.wait(29)
        record.wait()


def misuse(record: Record) -> None:
    """What the server may not say."""
    for wrong in (
        UserAdd("bob", contact("carol")),
        UserAdd("Us", contact("bob")),
        UserAdd("12345", contact("bob")),
        UserRemove("Us"),
        PeerRequest(to="100", offer=Binary(b"offer"), signature=Binary(bytes(64))),
        '{"type":"peerConnect","data":{"name":"bob","id":"abc"}}',
        "no JSON",
    ):
        record.log_in(contact("bob"))
        record.tell(wrong)
    record.connect()
    record.tell(hello(), SetPeerId("100", "t" * 129))
    record.log_in()
    record.tell('{"type":"whatIsNotKnown","data":7}', '{"type":"login","data":{}}', PeerConnect("Us", "9"))


def out_of_turn(state: str) -> Iterator[tuple[str, Scenario]]:
    """Each type of message in one state."""
    for message in OF_EACH_TYPE:

        def scenario(record: Record, message: Struct = message) -> None:
            record.connect()
            if state != "greeting":
                record.tell(hello())
            if state in ("syncing", "online"):
                record.tell(SetPeerId("100", "ticket"))
            if state == "online":
                record.tell(*lists(contact("bob"), peers={"9": "Us"}))
            record.tell(message)

        yield f"{type(message).__name__} while {state}", scenario


def walk(seed: int) -> Scenario:
    """Anything that can happen, by chance."""

    def scenario(record: Record) -> None:
        chance = random.Random(seed)
        contacts = [contact("bob"), contact("carol"), chained("bob", "bob"), rotated("carol", "carol", "dave")]
        ids = ["7", "8", "9", "10"]
        names = ["bob", "carol", "Us", "dave"]

        def anything() -> Struct:
            entry, name, peer_id = chance.choice(contacts), chance.choice(names), chance.choice(ids)
            proof = removal(chance.choice(["bob", "carol"]), "alice", NOW_MS - chance.choice([100, 5000]))
            return chance.choices(
                [
                    UserAdd(entry.name, entry), UserRemove(entry.name), UserRemove(entry.name, proof),
                    PeerConnect(name, peer_id), PeerDisconnect(peer_id), REQUEST,
                    Goodbye("going_away", chance.choice([None, 1.0, 4.0])), chance.choice(OF_EACH_TYPE),
                ],
                [4, 2, 2, 8, 4, 1, 1, 1],
            )[0]  # fmt: skip

        def log_in() -> None:
            shown = chance.sample(contacts[:2], chance.randint(0, 2))
            peers = {peer_id: chance.choice(names) for peer_id in chance.sample(ids, chance.randint(0, 4))}
            record.opened()
            record.tell(hello(), SetPeerId("100", "t"), *lists(*shown, peers=peers))

        def step() -> None:
            anyhow: list[Callable[[], object]]
            if not record.session.wants_socket:
                anyhow = [record.wait, record.hurry, lambda: record.wait(1.0)]
            elif record.session.state is State.CONNECTING:
                anyhow = [log_in, log_in, record.unreachable, record.hurry]
            else:
                anyhow = [
                    *[lambda: record.tell(anything())] * 20,
                    *[lambda: record.wait(chance.choice([0.5, 5.0, 16.0]))] * 4,
                    *[lambda: record.closed(chance.choice([None, 1012, 4003]))] * 2,
                    lambda: record.abandoned(hurry=chance.random() < 0.5),
                    lambda: record.removed(None, removal("alice", "bob", NOW_MS - 100)),
                ]
            chance.choice(anyhow)()

        record.start()
        for _ in range(50):
            if record.session.state is not State.CLOSED:
                step()

    return scenario


PLAIN: tuple[Scenario, ...] = (
    a_life, pages, lists_out_of_order, differences, trust, chains, removals, requests, pace, ice, greetings,
    other_versions, short_challenge, delays, hurries, establishing, misuse,
)  # fmt: skip
REFUSALS = {
    "login_refused": 4501, "rate_limited": 4029, "too_many_peers": 4002, "bad_message": 4502, "session_ended": 4504,
    "busy": 4003, "unavailable": 4003, "made_up": 4599, "made_up_too": 4099, "also_made_up": None,
}  # fmt: skip
CODES = (
    None, 1000, 1001, 1006, 1012, 4001, 4002, 4003, 4004, 4005, 4029, 4499, 4500, 4501, 4503, 4504, 4999,
)  # fmt: skip
GOODBYES = (Goodbye("going_away", 3.0), Goodbye("going_away"), Goodbye("made_up", 5000.0), Goodbye("slow", -1.0))


def scenarios() -> Iterator[tuple[str, Record, Scenario]]:
    """All of them, with their names."""
    for scenario in PLAIN:
        yield scenario.__name__.replace("_", " "), Record(), scenario
    yield "an invisible peer", Record(visible=False), a_life
    for chance in (0.0, 0.999):
        yield f"delays, with chance {chance}", Record(chance=chance), delays
    for code, close in REFUSALS.items():
        yield f"a login refused for {code}, {close}", Record(), refused(code, close)
    for number in CODES:
        yield f"closed with {number}", Record(), closed(number)
        yield f"closed with {number} before the login", Record(), closed(number, while_online=False)
    for goodbye in GOODBYES:
        yield f"goodbye: {goodbye.reason}, {goodbye.reconnect_after}", Record(), closed(1012, goodbye)
    for state in ("greeting", "loggingIn", "syncing", "online"):
        for name, one in out_of_turn(state):
            yield name, Record(), one
    for seed in range(12):
        yield f"a walk, {seed}", Record(chance=0.25), walk(seed)


def transcripts() -> Iterator[Step]:
    """All of them, played."""
    for name, record, scenario in scenarios():
        scenario(record)
        yield {"name": name, "chance": record.chance, "visible": record.visible, "steps": record.steps}


def build() -> Step:
    """The whole file."""
    return {
        "about": "written by scripts/make_session_vectors.py; messages as texts, keys in hex, blobs in base64url",
        "realm": REALM,
        "nowMs": NOW_MS,
        "stretched": PEOPLE["alice"].hex(),
        "transcripts": list(transcripts()),
    }


def main() -> None:
    """Write the file."""
    text = json.dumps(build(), ensure_ascii=True, separators=(",", ":"))
    # A line a step, so that a change shows.
    for start in ('{"name":', '{"now":'):
        text = text.replace(start, "\n" + start)
    TARGET.write_text(text + "\n", "ascii")


if __name__ == "__main__":
    main()
