"""What a server's refusals and farewells mean, and that their texts are fit to be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.errors import (
    ERRORS,
    BoneValueError,
    CallError,
    DiscoveryError,
    GoingAway,
    LoginRefused,
    PeerOffline,
    ServerUnreachable,
    Slow,
)
from bonevalue.wire.refusals import MAX_TEXT, failure_error, parting_of, plain
from bonevalue.wire.signals import Failure, Goodbye


@given(st.text())
def test_plain_text_acts_upon_nothing(text: str) -> None:
    shown = plain(text)
    assert shown.isprintable() and len(shown) == min(len(text), MAX_TEXT)
    assert plain(shown) == shown


@given(st.sampled_from(sorted(ERRORS)))
def test_every_code_of_ours_gives_its_class(code: str) -> None:
    error = failure_error(Failure(code, "because", 3.0))
    assert type(error) is ERRORS[code]
    assert (error.message, error.retry_after) == ("because", 3.0)


def test_a_code_of_a_newer_server_is_kept() -> None:
    error = failure_error(Failure("too_sunny\x1b[2J" + "!" * 100, "go\noutside"))
    assert type(error) is CallError
    assert error.code == "too_sunny?[2J" + "!" * 51
    assert error.message.endswith(": go?outside")


_FAILURE = PeerOffline("first", retry_after=5.0)


@pytest.mark.parametrize(
    ("code", "reason", "goodbye", "failure", "kind", "final", "retry_after"),
    [
        (None, "the connection broke", None, None, ServerUnreachable, False, None),
        (1012, "", None, None, ServerUnreachable, False, None),
        (4005, "slow", None, None, Slow, False, None),
        (4501, "", None, None, LoginRefused, True, None),
        (4999, "", None, None, DiscoveryError, True, None),
        (1012, "", Goodbye("going_away", 7.0), None, GoingAway, False, 7.0),
        (None, "", Goodbye("going_away", 7.0), None, GoingAway, False, 7.0),
        (1012, "", Goodbye("whatever"), None, GoingAway, True, None),
        (4501, "", Goodbye("going_away", 7.0), None, GoingAway, True, 7.0),
        (1000, "", None, _FAILURE, PeerOffline, False, 5.0),
        (4510, "", None, _FAILURE, PeerOffline, True, 5.0),
    ],
)
def test_partings(
    code: int | None,
    reason: str,
    goodbye: Goodbye | None,
    failure: BoneValueError | None,
    kind: type[BoneValueError],
    final: bool,
    retry_after: float | None,
) -> None:
    parting = parting_of(code, reason, goodbye, failure)
    assert type(parting.error) is kind
    assert (parting.final, parting.retry_after) == (final, retry_after)
    assert parting.error.message.isprintable()
