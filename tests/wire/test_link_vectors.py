"""The transcripts of tests/vectors/links.json are what the tables do today; other languages are held to them."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from bonevalue.wire.frames import FrameType
from scripts import make_link_vectors as maker
from scripts.link_transcript import short

TRANSCRIPTS = json.loads(maker.TARGET.read_text())
PLAYED = maker.transcripts()


@pytest.mark.parametrize(
    ("written", "played"),
    list(zip(TRANSCRIPTS, PLAYED, strict=True)),
    ids=[transcript["name"] for transcript in TRANSCRIPTS],
)
def test_the_transcript_is_what_happens(written: dict[str, object], played: dict[str, object]) -> None:
    assert written == json.loads(json.dumps(played)), (
        "run python -m scripts.make_link_vectors and look at what has changed"
    )


def test_everything_happens_in_some_transcript() -> None:
    steps = [step for transcript in TRANSCRIPTS for step in transcript["steps"]]
    events = Counter(event[0] for step in steps for event in step.get("events", ()))
    assert set(events) == {
        "opened", "received", "cancelled", "answered", "begun", "items", "failed", "returned", "hold", "pong",
        "drained",
    }  # fmt: skip
    sent = {int(message[:2], 16) for step in steps for message in step.get("messages", ())}
    assert sent == set(FrameType)
    assert {step["fails"] for step in steps if "fails" in step} == {
        "protocol_error", "identity_mismatch", "link_lost", "too_large",
    }  # fmt: skip


def test_what_is_written_short_can_be_read() -> None:
    assert short(b"a" * 15 + b"b" * 16 + b"c") == "61" * 15 + "[62*16]63"
