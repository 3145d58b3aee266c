"""
Casts for the tests of dishonest servers.

``stage``, ``strangers`` and ``cast`` are made anew for each test. ``standing_cast`` serves all tests of a file that
only change messages and leave everybody where they are; such a test has the mark :data:`STANDING`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.evil import Cast, Stage, open_stage


def _write_down(stage: Stage, request: pytest.FixtureRequest) -> None:
    """For a report of the run (``--junitxml``): who reported what, and how soon."""
    for username, code, seconds in stage.reported:
        request.node.user_properties.append(("reported", f"{username} {code} {seconds:.3f} s"))
    stage.reported.clear()


async def _come_on(stage: Stage) -> Cast:
    return Cast(stage, *await asyncio.gather(*map(stage.join, ("alice", "bob", "carol"))))


async def _befriend_all(cast: Cast) -> None:
    for one, other in ((cast.alice, cast.bob), (cast.alice, cast.carol), (cast.bob, cast.carol)):
        await cast.stage.befriend(one, other)


@pytest.fixture
async def stage(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """A server with three accounts, nobody online yet."""
    async with open_stage(tmp_path, "alice", "bob", "carol") as stage:
        yield stage
    _write_down(stage, request)


@pytest.fixture
async def strangers(stage: Stage) -> Cast:
    """A peer of each of three accounts that do not trust each other."""
    return await _come_on(stage)


@pytest.fixture
async def cast(strangers: Cast) -> Cast:
    """A peer of each of three accounts that all trust each other, under their usernames."""
    await _befriend_all(strangers)
    return strangers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _repertory(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cast]:
    async with open_stage(tmp_path_factory.mktemp("stage"), "alice", "bob", "carol") as stage:
        cast = await _come_on(stage)
        await _befriend_all(cast)
        yield cast


@pytest_asyncio.fixture(loop_scope="module")
async def standing_cast(_repertory: Cast, request: pytest.FixtureRequest) -> AsyncIterator[Cast]:
    """The same as ``cast``, but for all tests of a file; without links at the beginning."""
    cast = _repertory
    cast.stage.relent()
    for actor in (cast.alice, cast.bob, cast.carol):
        await actor.unlinked()
    yield cast
    _write_down(cast.stage, request)
    breaches, cast.stage.breaches = cast.stage.breaches, []
    assert not breaches, breaches
