"""From the lines of a run to a page and a plot."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.figures import GOALS
from benchmarks.plot import Bar, Panel, draw
from benchmarks.report import BEGIN, BROWSER_BEGIN, END, Report, page_with, shown

RUN = {
    "line": "run",
    "date": "2026-01-02 03:04 UTC",
    "commit": "0123456789",
    "changed": False,
    "machine": {"cpu": "A Processor", "cores": 2, "memory_gib": 8, "system": "Linux", "load": 0.1},
    "versions": {"Python": "3.11.7"},
    "network": "isolated",
    "rounds": 3,
    "seconds": 2.0,
}


def one_round(contender: str, per_second: float) -> dict[str, Any]:
    return {"line": "round", "benchmark": "calls_64", "contender": contender, "per_second": per_second}


def lines(*more: dict[str, Any]) -> list[str]:
    rounds = [one_round("bonevalue", value) for value in (31_000, 30_000, 35_000)]
    rounds += [one_round("aiortc", value) for value in (9_000, 10_000, 12_000)]
    return [json.dumps(line) for line in (RUN, *rounds, *more)]


def result(ours: float, theirs: float) -> dict[str, Any]:
    return GOALS["S1"].result("aiortc", [{"per_second": ours}], [{"per_second": theirs}])


def test_a_page_says_what_was_met_and_what_was_missed() -> None:
    page = Report.read(lines(result(31_000, 10_000), result(20_000, 10_000))).page()
    assert "| S1 | calls a second, 64 in flight | 31,000 /s | aiortc 10,000 /s | 3.10 × | at least 3 × | met |" in page
    assert "| 20,000 /s | aiortc 10,000 /s | 2.00 × | at least 3 × | **missed** |" in page
    assert "| BoneValue | 31,000 (30,000 to 35,000) |" in page
    assert "2026-01-02 03:04 UTC, commit 0123456789: A Processor, 2 cores" in page


def test_a_page_says_who_was_left_out() -> None:
    absent = {"line": "absent", "contender": "iroh", "goals": ["S2"], "why": "it is not installed"}
    nothing = GOALS["S2"].result("iroh", [{"per_second": 1.0}], [])
    report = Report.read(lines(absent, nothing))
    assert "- **iroh** was left out of S2: it is not installed\n" in report.page()
    assert (
        "| S2 | calls a second, 64 in flight | not measured | iroh |  | at least 1 × | **not measured** |"
        in report.page()
    )
    assert report.missing == ["S1", "S3", "S4", "S5", "S6", "S7", "S8"]


def test_code_that_was_not_committed_is_told() -> None:
    changed = [json.dumps({**RUN, "changed": True}), *lines()[1:]]
    assert "commit 0123456789 with changes" in Report.read(changed).page()


def test_only_the_part_between_the_marks_changes() -> None:
    page = f"before\n{BEGIN}\nold\n{END}after\n"
    assert page_with(page, "new\n") == f"before\n{BEGIN}\nnew\n\n{END}after\n"
    assert page_with(page_with(page, "new\n"), "new\n") == page_with(page, "new\n")
    with pytest.raises(ValueError, match="no part between"):
        page_with("a page without marks", "new")


def test_tabs_have_a_part_of_their_own() -> None:
    figures = {"calls": 9, "per_second": 450.0, "p50_ms": 2.1, "p99_ms": 7.5}
    slower = {**figures, "p50_ms": 4.2}
    rounds = [
        {"line": "round", "benchmark": "tab_calls_1", "contender": contender, **(figures if ours else slower)}
        for contender, ours in (("PeerJS, raw", False), ("tab to tab", True))
    ]
    made = Report.read([json.dumps(line) for line in (RUN, *rounds)]).browser_page()
    assert "### Tabs: calls, one at a time" in made and "| PeerJS, raw | 450 | 4.20 | 7.50 |" in made
    assert "| BoneValue's divided by the other's | tab to tab / PeerJS, raw |" in made
    assert "| calls, one at a time: p50, ms | 0.50 × |" in made and "calls, 64 in flight: calls/s" not in made
    page = f"{BEGIN}\nthis\n{END}between\n{BROWSER_BEGIN}\nthat\n{END}after\n"
    assert page_with(page, "new", BROWSER_BEGIN) == f"{BEGIN}\nthis\n{END}between\n{BROWSER_BEGIN}\nnew\n{END}after\n"


def test_a_plot_has_a_bar_for_each_figure() -> None:
    root = ElementTree.fromstring(Report.read(lines()).plot())
    bars = [element for element in root.iter() if element.tag.endswith("rect")]
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert [bar.attrib["class"] for bar in bars] == ["ours", "theirs"]
    assert widths[1] / widths[0] == pytest.approx(10_000 / 31_000, abs=0.01)


def test_names_in_a_plot_are_text() -> None:
    root = ElementTree.fromstring(draw([Panel("<a & b>", [Bar("\"c\" < 'd'", 0.0, True)])]))
    assert {"<a & b>", "\"c\" < 'd'"} <= {element.text for element in root.iter()}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.456, "0.46"), (9.996, "10.00"), (12.34, "12.3"), (123.4, "123"), (-12.34, "-12.3"), (45678.9, "45,679")],
)
def test_numbers(value: float, text: str) -> None:
    assert shown(value) == text
