"""
The discovery server introduces peers, and that is all: whoever has met goes on without it.

``python -m benchmarks.absence --minutes 60`` runs the same for as long as one likes.
"""

from __future__ import annotations

from pathlib import Path

from bonevalue.errors import Unavailable
from tests.support.absence import BACK_WITHIN, TIMEOUT, Platform

#: Seconds for which the server is away: longer than every time of grace, of five, fifteen and twenty seconds.
AWAY = 25.0
#: Seconds in which whoever wants a new link learns that there is none, once the loss of the server is no news.
AT_ONCE = 1.0


async def test_links_and_calls_go_on_while_the_server_is_away(tmp_path: Path) -> None:
    async with Platform(tmp_path) as platform:
        absence = await platform.lose_server(AWAY)

        assert not absence.failures and absence.calls > AWAY and absence.slowest < TIMEOUT
        assert absence.new_links == 0
        assert len(absence.refusals) >= 3
        for number, (error, seconds) in enumerate(absence.refusals):
            assert type(error) is Unavailable and "discovery server at ws://127.0.0.1" in error.message
            assert seconds < (AT_ONCE if number else TIMEOUT)
        assert absence.back_after < BACK_WITHIN
        assert await platform.far("Echo", "and now") == "and now"
