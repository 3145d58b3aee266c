"""Casts for the tests of dishonest servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.support.evil import Cast, Stage, open_stage


@pytest.fixture
async def stage(tmp_path: Path, record_property: Callable[[str, object], None]) -> AsyncIterator[Stage]:
    """A server with three accounts, nobody online yet; the report of the run has who reported what, how soon."""
    async with open_stage(tmp_path, "alice", "bob", "carol") as stage:
        yield stage
    for username, code, seconds in stage.reported:
        record_property("reported", f"{username} {code} {seconds:.3f} s")


@pytest.fixture
async def strangers(stage: Stage) -> Cast:
    """A peer of each of three accounts that do not trust each other."""
    return Cast(stage, *await asyncio.gather(*map(stage.join, ("alice", "bob", "carol"))))


@pytest.fixture
async def cast(strangers: Cast) -> Cast:
    """A peer of each of three accounts that all trust each other, under their usernames."""
    alice, bob, carol = strangers.alice, strangers.bob, strangers.carol
    for one, other in ((alice, bob), (alice, carol), (bob, carol)):
        await strangers.stage.befriend(one, other)
    return strangers
