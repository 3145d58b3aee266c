"""Online peers: only differences are reported, and who is missing after a reconnect is held for a while."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bonevalue.wire.presence import HOLD, Presence
from bonevalue.wire.session_events import PeerConnected, PeerDisconnected, PeerReturned


def test_a_first_list_reports_everybody() -> None:
    presence = Presence()
    assert presence.replace({"1": "bob", "2": "Us"}, 0) == [PeerConnected("bob", "1"), PeerConnected("Us", "2")]
    assert presence.timer() is None


def test_only_differences_are_reported() -> None:
    presence = Presence()
    presence.replace({"1": "bob"}, 0)
    assert presence.replace({"1": "bob"}, 0) == []
    assert presence.appear("bob", "2") == [PeerConnected("bob", "2")]
    assert presence.vanish("3") == []
    assert presence.vanish("2") == [PeerDisconnected("2", "bob")]
    assert presence.peers == {"1": "bob"}


def test_one_that_is_known_and_said_to_appear_has_another_socket() -> None:
    presence = Presence()
    presence.replace({"1": "bob"}, 0)
    assert presence.appear("bob", "1") == [PeerReturned("1")]
    assert presence.peers == {"1": "bob"}


def test_who_is_missing_is_held_and_then_gone() -> None:
    presence = Presence()
    presence.replace({"1": "bob", "2": "bob", "3": "Us"}, 0)
    presence.freeze()
    assert presence.replace({"1": "bob"}, 100) == []
    assert presence.peers == {"1": "bob", "2": "bob", "3": "Us"}
    assert presence.timer() == 100 + HOLD
    assert presence.handle_timer(100 + HOLD - 0.01) == []
    assert presence.appear("bob", "2") == [PeerReturned("2")]  # back in time
    assert presence.handle_timer(100 + HOLD) == [PeerDisconnected("3", "Us")]
    assert presence.timer() is None


def test_who_is_held_and_said_to_be_gone_is_gone() -> None:
    presence = Presence()
    presence.replace({"1": "bob"}, 0)
    presence.replace({}, 0)
    assert presence.vanish("1") == [PeerDisconnected("1", "bob")]
    assert presence.timer() is None


def test_another_loss_starts_the_time_anew() -> None:
    presence = Presence()
    presence.replace({"1": "bob"}, 0)
    presence.replace({}, 10)
    presence.freeze()
    assert presence.timer() is None and presence.peers == {"1": "bob"}
    presence.replace({}, 20)
    assert presence.timer() == 20 + HOLD


def test_an_id_under_another_alias_is_another_peer() -> None:
    presence = Presence()
    presence.appear("bob", "1")
    assert presence.appear("carol", "1") == [PeerDisconnected("1", "bob"), PeerConnected("carol", "1")]


def test_an_alias_goes_with_all_its_peers() -> None:
    presence = Presence()
    presence.replace({"1": "bob", "2": "carol", "3": "bob"}, 0)
    assert presence.vanish_all("bob") == [PeerDisconnected("1", "bob"), PeerDisconnected("3", "bob")]
    assert presence.peers == {"2": "carol"}


ids = st.sampled_from(["1", "2", "3", "4"])
names = st.sampled_from(["bob", "carol"])
steps = st.one_of(
    st.tuples(st.just("replace"), st.dictionaries(ids, names)),
    st.tuples(st.just("appear"), names, ids),
    st.tuples(st.just("vanish"), ids),
    st.tuples(st.just("vanish_all"), names),
    st.tuples(st.just("freeze")),
    st.tuples(st.just("wait"), st.floats(0, 20)),
)


@given(st.lists(steps, max_size=30))
def test_the_reports_always_add_up_to_what_is_known(actions: list[tuple[str, ...]]) -> None:
    """Whoever starts with nothing and follows the reports knows the same peers, and never hears a thing twice."""
    presence, seen, now = Presence(), dict[str, str](), 0.0
    for action, *arguments in actions:
        if action == "wait":
            now += float(arguments[0])
            changes = presence.handle_timer(now)
        elif action == "replace":
            changes = presence.replace(arguments[0], now)  # type: ignore[arg-type]
            assert set(arguments[0]) <= presence.peers.keys()
        else:
            changes = getattr(presence, action)(*arguments) or []
        for change in changes:
            if isinstance(change, PeerConnected):
                assert change.id not in seen
                seen[change.id] = change.name
            elif isinstance(change, PeerReturned):
                assert action == "appear" and change.id in seen
            else:
                assert seen.pop(change.id) == change.name
        assert seen == presence.peers
    last = {"1": "bob"}
    presence.replace(last, now)
    presence.handle_timer(now + HOLD)
    assert presence.peers == last
