"""The transcripts of session.json and the messages of signals.json are what a session does today."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bonevalue.wire.session_states import State
from bonevalue.wire.signals import SIGNALS
from scripts import make_session_vectors, make_signal_vectors
from scripts.session_record import camel

WRITTEN = json.loads(make_session_vectors.TARGET.read_text("ascii"))
PLAYED = make_session_vectors.build()
PAIRS = list(zip(WRITTEN["transcripts"], PLAYED["transcripts"], strict=True))


@pytest.mark.parametrize(("written", "played"), PAIRS, ids=[written["name"] for written, _ in PAIRS])
def test_the_transcript_is_what_happens(written: dict[str, Any], played: dict[str, Any]) -> None:
    assert written == json.loads(json.dumps(played)), "run scripts/make_session_vectors.py, look at what has changed"


def test_the_messages_come_to_what_is_written() -> None:
    written = json.loads(make_signal_vectors.TARGET.read_text("ascii"))
    assert written == json.loads(json.dumps(make_signal_vectors.build())), "run scripts/make_signal_vectors.py"


def test_everything_happens_in_some_transcript() -> None:
    steps = [step for transcript in WRITTEN["transcripts"] for step in transcript["steps"]]
    events = {event["type"] for step in steps for event in step.get("events", ())}
    assert events == {
        "wentOnline", "wentOffline", "attemptFailed", "ended", "iceServersChanged", "noticeReceived", "peerConnected",
        "peerReturned", "peerDisconnected", "userAdded", "userRemoved", "keyChanged", "contactRefused",
        "requestReceived", "responseReceived", "candidateReceived", "replied", "refused",
    }  # fmt: skip
    assert {step["state"] for step in steps if "state" in step} == {
        camel(state.name.lower()) for state in State if state is not State.OFFLINE
    }
    said = {message["type"] for step in steps for message in step.get("sent", ())}
    assert said == {
        tag for tag, row in SIGNALS.items() if row.sender != "server" and tag not in ("register", "ping")
    }  # fmt: skip
    heard = {json.loads(step["text"])["type"] for step in steps if step.get("text", "").startswith("{")}
    assert heard >= {tag for tag, row in SIGNALS.items() if row.sender != "client"}
