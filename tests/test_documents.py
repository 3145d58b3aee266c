"""The documents: their links lead somewhere, their examples are Python and YAML, and BoneValue takes the modules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bonevalue import Module
from bonevalue.serving import ServedModule

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


async def test_modules_of_the_guide_are_accepted() -> None:
    """Every module class of the author's guide can be made and served as it stands."""
    served = []
    for _, source in blocks(ROOT / "docs" / "modules.md", "python"):
        # Later examples leave out the imports of earlier ones.
        names: dict[str, Any] = {"__name__": "example"}
        exec("from bonevalue import Module\nfrom pydantic import BaseModel\n" + source, names)
        kinds = [kind for kind in names.values() if isinstance(kind, type) and issubclass(kind, Module)]
        served += [ServedModule(kind.name, kind()).name for kind in kinds if kind is not Module]
    assert served == ["My.Echo.Module", "Home.Thermometer", "My.Echo.Module", "Counter", "Door.Snapshot", "Relay"]
