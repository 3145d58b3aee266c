"""What people are told when no link came about: one sentence, from what was tried."""

from __future__ import annotations

import pytest

from bonevalue.advice import report_of
from bonevalue.errors import ConnectFailed, ConnectReport, ServerOutcome, error_of
from bonevalue.life import DOING
from bonevalue.link import Tried

UDP, TCP, TLS = "turn:t.example:3478", "turn:t.example:3478?transport=tcp", "turns:t.example:5349"
STUN = "stun:s.example:3478"


def tried(
    ours: str = "host",
    theirs: str = "host",
    *,
    relay_only: bool = False,
    families_meet: bool = True,
    **servers: str,
) -> Tried:
    """Candidates as text; servers as `stun="no answer"`, `udp=...`, `tcp=...`, `tls=...`."""
    urls = {"stun": STUN, "udp": UDP, "tcp": TCP, "tls": TLS}
    return Tried(
        tuple(ours.split()),
        tuple(theirs.split()),
        tuple(ServerOutcome(urls[name], outcome) for name, outcome in servers.items()),
        relay_only,
        families_meet,
    )


BOTH = "host srflx"
ALL = "host srflx relay"


@pytest.mark.parametrize(
    ("phase", "facts", "words"),
    [
        ("relay", tried(theirs=""), "bv doctor"),
        ("answer", tried(theirs=""), "did not answer"),
        ("dtls", tried(BOTH, BOTH), "more than 1200 bytes"),
        ("proof", tried(BOTH, BOTH), "did not prove who it is"),
        # gathering
        ("gathering", tried("", ""), "Connect this machine to a network"),
        ("gathering", tried("", "", relay_only=True), "Let this peer know a TURN server"),
        (
            "gathering",
            tried("", "", relay_only=True, udp="refused: 401 Unauthorized"),
            "Check the username and credential",
        ),
        ("gathering", tried("", "", relay_only=True, udp="no answer"), "let UDP port 3478 through"),
        # no path
        ("checking", tried(theirs=""), "run `bv doctor` there"),
        ("checking", tried(families_meet=False), "one side has only IPv4".capitalize()),
        ("checking", tried(), "needs a TURN server: set discovery.turn"),
        ("checking", tried(BOTH, BOTH, stun="ok"), "no direct way between the two networks"),
        ("checking", tried("host", BOTH, stun="no answer"), "UDP seems to be blocked here"),
        ("checking", tried("host", BOTH, stun="ok"), "no direct way between the two networks"),  # a public address
        ("checking", tried(BOTH, ALL, stun="ok"), "look into the log of the TURN server"),
        ("checking", tried(ALL, BOTH, udp="no answer", tcp="ok"), "look into the log of the TURN server"),
        # ... and why there is no relay
        ("checking", tried(BOTH, BOTH, udp="no answer"), f"check that {UDP} runs"),
        ("checking", tried(BOTH, BOTH, udp="left out for 20 s: no answer"), "let UDP port 3478 through"),
        ("checking", tried(BOTH, BOTH, tcp="left out for 9 s: nobody listens there"), "let TCP port 3478 through"),
        ("checking", tried(BOTH, BOTH, tcp="nobody listens there"), "let TCP port 3478 through"),
        ("checking", tried(BOTH, BOTH, tls="it closed the connection"), "let TCP port 5349 through"),
        ("checking", tried(BOTH, BOTH, udp="refused: 401 Unauthorized"), "the clock of that server"),
        ("checking", tried(BOTH, BOTH, udp="refused: 441 Wrong Credentials"), "check the username and credential"),
        ("checking", tried(BOTH, BOTH, udp="refused: 486 Allocation Quota Reached"), "all the relays it may have"),
        ("checking", tried(BOTH, BOTH, udp="refused: 508 Insufficient Capacity"), "has no relay left"),
        ("checking", tried(BOTH, BOTH, udp="refused: 300 Try Alternate"), "look into the log of turn:"),
        ("checking", tried(BOTH, BOTH, udp="name not known"), "check the name in turn:"),
        ("checking", tried(BOTH, BOTH, tls="its certificate is not valid: self-signed"), "get turns:t.example:5349 a"),
        ("checking", tried(BOTH, BOTH, udp="left out: its credential has expired"), "gives no newer credential"),
        ("checking", tried(BOTH, BOTH, udp="left out: it has no port"), "which has no port"),
    ],
)
def test_one_sentence_says_what_to_do(phase: str, facts: Tried | None, words: str) -> None:
    advice = report_of(phase, facts).advice
    assert words.lower() in advice.lower()
    assert advice[0].isupper() and advice.endswith(".") and "\n" not in advice
    assert advice.count(". ") == 0


def test_every_phase_has_its_advice() -> None:
    assert len({report_of(phase, tried()).advice for phase in DOING}) == len(DOING)
    assert "bv doctor" in report_of("something new", tried()).advice


def test_the_error_tells_all_of_it_in_one_line() -> None:
    report = report_of("checking", tried(BOTH, "host", stun="ok", udp="no answer"))
    error = ConnectFailed("no link to bob/1 within 20 s; it was looking for a path", report=report)
    assert (
        str(error)
        == error.message
        == (
            "no link to bob/1 within 20 s; it was looking for a path (ours: host, srflx; theirs: host; "
            "turn:t.example:3478: no answer). There is no direct way, and no relay on this side: check that "
            "turn:t.example:3478 runs, and that firewalls let UDP port 3478 through."
        )
    )
    assert error.report is report
    assert report == ConnectReport("checking", ("host", "srflx"), ("host",), report.servers, report.advice)


def test_a_report_with_nothing_tried() -> None:
    assert str(ConnectFailed("no link", report=ConnectReport("relay", advice="Look."))) == "no link. Look."
    only_servers = ConnectReport("gathering", servers=(ServerOutcome(UDP, "no answer"), ServerOutcome(STUN, "ok")))
    assert str(ConnectFailed("no link", report=only_servers)) == f"no link ({UDP}: no answer)."


def test_an_error_from_the_wire_has_no_report() -> None:
    error = error_of("connect_failed", "the other side failed", retry_after=2.0)
    assert isinstance(error, ConnectFailed)
    assert (error.report, error.message, error.retry_after) == (None, "the other side failed", 2.0)
    assert str(ConnectFailed()) == "connect_failed"
