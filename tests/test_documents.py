"""The documents: their links lead somewhere, their examples are Python and YAML, and BoneValue takes the modules."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from bonevalue import Context, Module
from bonevalue.module import Caller
from bonevalue.serving import ServedModule
from bonevalue.wire import frames
from tests.support.answers import FakeAnswer
from tests.support.waiting import until

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """The fenced examples of one language on a page, each with its line number."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, found.start(1)) + 1, found[1]


def examples(language: str) -> list[Any]:
    """The examples of all pages, as parameters of a test."""
    return [
        pytest.param(source, id=f"{page.relative_to(ROOT)}:{line}")
        for page in PAGES
        for line, source in blocks(page, language)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the repository finds it."""
    links = re.findall(r"\]\((?![a-z]+:|#)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("source", examples("python"))
def test_python_examples_compile(source: str) -> None:
    """Every Python example is Python."""
    compile(source, "example", "exec")


@pytest.mark.parametrize("source", examples("yaml"))
def test_yaml_examples_parse(source: str) -> None:
    """Every YAML example is YAML."""
    assert yaml.safe_load(source)


def modules_of_the_guide() -> Iterator[type[Module]]:
    """The module classes of the author's guide, as they stand."""
    # Later examples leave out the imports of earlier ones.
    names: dict[str, Any] = {"__name__": "example", "Module": Module, "BaseModel": BaseModel}
    known: set[Any] = {Module}
    for _, source in blocks(ROOT / "docs" / "modules.md", "python"):
        exec(compile(source, "example", "exec", dont_inherit=True), names)
        for kind in list(names.values()):
            if isinstance(kind, type) and issubclass(kind, Module) and kind not in known:
                known.add(kind)
                yield kind


def test_modules_of_the_guide_are_accepted() -> None:
    """Every module class of the author's guide can be made and served."""
    assert [ServedModule(kind.name, kind()).name for kind in modules_of_the_guide()] == [
        "My.Echo.Module",
        "Home.Thermometer",
        "Clock.Ticks",
        "Door.Bell",
        "Files.Digest",
        "Average",
        "My.Echo.Module",
        "Counter",
        "Door.Snapshot",
        "Journal",
        "Relay",
    ]


async def run(module: Module, request: Any, *items: Any) -> list[Any]:
    """What one call of a module of the guide is answered with."""

    async def sent() -> AsyncIterator[Any]:
        for item in items:
            yield item

    answer = FakeAnswer()
    context = Context(Caller("bob", "1", bytes(32), ""), 0.0, module.name, sent())
    await ServedModule(module.name, module).run(*frames.encode_body(request), context, answer)
    return answer.came


async def test_streams_of_the_guide_do_what_it_says(tmp_path: Path) -> None:
    """The examples of streams, each in its direction."""
    kinds = {kind.name: kind for kind in modules_of_the_guide()}
    begin, moment, end = await run(kinds["Clock.Ticks"](), 1)
    assert (begin, type(moment), end) == ("begin", float, "end")
    assert await run(kinds["Files.Digest"](), None, b"ab", b"c") == [hashlib.sha256(b"abc").hexdigest()]
    assert await run(kinds["Average"](), None, 1, 2, 6) == ["begin", 1.0, 1.5, 3.0, "end"]
    journal = tmp_path / "journal.txt"
    journal.write_text("one\ntwo\n")
    assert await run(kinds["Journal"]({"path": str(journal)}), None) == ["begin", "one", "two", "end"]


async def test_the_doorbell_of_the_guide_forgets_who_has_left() -> None:
    """Cleaning up in ``finally``, and a queue that does not grow."""
    bell: Any = next(kind for kind in modules_of_the_guide() if kind.name == "Door.Bell")()
    await bell.start()
    answer = FakeAnswer()
    context = Context(Caller("bob", "1", bytes(32), ""), 0.0, bell.name)
    task = asyncio.create_task(ServedModule(bell.name, bell).run(b"null", False, context, answer))
    await until(lambda: bell.listening)
    for number in range(200):
        bell.ring(f"button {number}")
    await until(lambda: len(answer.items) == 100)
    task.cancel()
    await asyncio.wait([task])
    assert not bell.listening and answer.items[-1] == "button 99"
