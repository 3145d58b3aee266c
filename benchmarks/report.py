"""
Turns the lines of runs into a page: the parts of ``docs/benchmarks.md`` between marks, and its plot.

``python -m benchmarks.report FILE`` puts a run of all benchmarks there, lines and all, and with ``--browser`` one of
:mod:`benchmarks.browser`; with ``--check`` it writes nothing, and fails if the page is not what its lines would give
now.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.figures import GOALS, Round, median
from benchmarks.plot import Bar, Panel, draw

__all__ = ["Report", "page_with"]

DOCS = Path(__file__).parents[1] / "docs"
LINES, PAGE, PLOT = DOCS / "benchmarks.jsonl", DOCS / "benchmarks.md", DOCS / "benchmarks.svg"
BROWSER_LINES = DOCS / "benchmarks-browser.jsonl"
BEGIN = "<!-- Made by `make bench-write` from benchmarks.jsonl; from here -->\n"
BROWSER_BEGIN = "<!-- Made by `make bench-browser` from benchmarks-browser.jsonl; from here -->\n"
END = "<!-- to here -->\n"
OURS = "bonevalue"

#: What stands above the rounds of each benchmark.
TITLES = {
    "calls_64": "Calls, 64 in flight",
    "calls_1": "Calls, one at a time",
    "bulk": "A stream of 64 MiB",
    "beside_bulk": "Small calls alone, and beside that stream",
    "opening": "The first call to a cold peer",
    "idle_links": "200 idle links in one process",
    "fan_out": "A call to 50 peers",
    "tab_calls_64": "Tabs: calls, 64 in flight",
    "tab_calls_1": "Tabs: calls, one at a time",
    "tab_bulk": "Tabs: a stream of 16 MiB",
    "tab_first": "Tabs: the first call",
}
#: Headings of figures.
FIGURES = {
    "per_second": "calls/s",
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "median_ms": "median, ms",
    "worst_ms": "worst, ms",
    "mb_per_second": "MB/s",
    "mib_per_second": "MiB/s",
    "first_ms": "first call, ms",
    "seconds": "seconds",
    "cpu_us_caller": "CPU of caller, µs a call",
    "cpu_us_callee": "CPU of callee, µs a call",
    "cpu_ms_caller": "CPU of caller, ms",
    "cpu_ms_callee": "CPU of callee, ms",
    "kib_per_link": "KiB a link",
    "core_percent_of_all": "CPU of all, % of a core",
}
#: What is drawn: a figure of a benchmark, and what it says.
PANELS = (
    ("calls_64", "per_second", "Calls a second, 64 in flight (more is better)"),
    ("calls_1", "p50_ms", "One call at a time, median ms (less is better)"),
    ("bulk", "mb_per_second", "A stream of 64 MiB, MB/s (more is better)"),
    ("beside_bulk", "p99_ms", "Small calls, p99 ms (less is better)"),
    ("opening", "median_ms", "First call to a cold peer, ms (less is better)"),
    ("idle_links", "kib_per_link", "Memory of an idle link, KiB (less is better)"),
)
#: The contenders among the tabs that are ours.
TABS = ("tab to daemon", "tab to tab")
#: Figures of tabs of which there is a ratio.
RATIOS = (
    ("tab_calls_64", "per_second"),
    ("tab_calls_1", "p50_ms"),
    ("tab_calls_1", "p99_ms"),
    ("tab_bulk", "mib_per_second"),
    ("tab_first", "first_ms"),
)
#: Names where one contender is measured under two conditions.
CONDITIONS = {
    ("beside_bulk", OURS): "beside the stream",
    ("fan_out", OURS): "one `call_all`",
    ("fan_out", "single calls"): "50 × `call`",
}


@dataclass
class Report:
    """A run that has been made."""

    run: dict[str, Any] = field(default_factory=dict)
    #: By benchmark, then by contender.
    rounds: dict[str, dict[str, list[Round]]] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    #: Who was left out, of what, and why.
    absent: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, lines: Iterable[str]) -> Self:
        """Take in the lines of a run."""
        report = cls()
        for text in lines:
            line = json.loads(text)
            match line.pop("line"):
                case "run":
                    report.run = line
                case "round":
                    benchmark = report.rounds.setdefault(line.pop("benchmark"), {})
                    benchmark.setdefault(line.pop("contender"), []).append(line)
                case "result":
                    report.results.append(line)
                case "absent":
                    report.absent.append(line)
        return report

    @property
    def missing(self) -> list[str]:
        """Goals of which the run says nothing."""
        return sorted(set(GOALS) - {result["id"] for result in self.results})

    # -- the page ------------------------------------------------------------------------------------------------------

    def page(self) -> str:
        """The part of the page that is made."""
        parts = [self._made_on(), "## Goals\n", self._goals(), *self._left_out(), "![The figures](benchmarks.svg)\n"]
        parts.append("## All figures\n")
        parts.append(
            f"Medians of {self.run['rounds']} rounds, and in brackets the least and the most of them. Each round has\n"
            "processes of its own; contenders take turns.\n"
        )
        return "\n".join(parts + self._all_figures())

    def browser_page(self) -> str:
        """The part that is made of a run of :mod:`benchmarks.browser`."""
        medians = (
            f"Medians of {self.run['rounds']} rounds, and in brackets the least and the most of them. Each round has\n"
            "tabs of its own; contenders take turns.\n"
        )
        return "\n".join([self._made_on(), medians, *self._beside(), *self._all_figures()])

    def _beside(self) -> list[str]:
        """Medians of ours divided by those of the others, for each pair of them."""
        first = next(iter(self.rounds.values()))
        pairs = [(ours, theirs) for ours in first if ours in TABS for theirs in first if theirs not in TABS]
        rows = [
            (
                f"{TITLES[benchmark].removeprefix('Tabs: ')}: {FIGURES[figure]}",
                *(self._ratio(benchmark, figure, *pair) for pair in pairs),
            )
            for benchmark, figure in RATIOS
            if benchmark in self.rounds
        ]
        head = ("BoneValue's divided by the other's", *(f"{ours} / {theirs}" for ours, theirs in pairs))
        return ["### Tabs: ratios\n", table(head, rows)]

    def _ratio(self, benchmark: str, figure: str, ours: str, theirs: str) -> str:
        rounds = self.rounds[benchmark]
        return f"{median(rounds[ours], figure) / median(rounds[theirs], figure):.2f} ×"

    def _all_figures(self) -> list[str]:
        shown = [benchmark for benchmark in TITLES if benchmark in self.rounds]
        return [part for each in shown for part in (f"### {TITLES[each]}\n", self._figures(each))]

    def _made_on(self) -> str:
        machine = self.run["machine"]
        versions = ", ".join(f"{name} {number}" for name, number in self.run["versions"].items())
        commit = f"commit {self.run['commit'] or 'unknown'}{' with changes' if self.run['changed'] else ''}"
        return (
            f"Measured on {self.run['date']}, {commit}: {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB,\n{machine['system']}, load {machine['load']} before the run. "
            f"Network: {self.run['network']}.\n{versions}.\n"
        )

    def _goals(self) -> str:
        rows = []
        for result in self.results:
            sign = "×" if result["compare"] == "ratio" else result["unit"]
            bound = {"least": "at least", "most": "at most"}[result["bound"]]
            less = result["compare"] == "difference"
            if result["met"] is None:
                reached = ("not measured", "", "", "**not measured**")
            else:
                value = f"{result['value']:+.2f} {sign}" if less else f"{result['value']:.2f} {sign}"
                verdict = "met" if result["met"] else "**missed**"
                reached = (with_unit(result["ours"], result), with_unit(result["theirs"], result), value, verdict)
            ours, theirs, value, verdict = reached
            goal = f"{bound} {'+' if less else ''}{result['limit']:g} {sign}"
            rows.append(
                (result["id"], result["what"], ours, f"{result['against']} {theirs}".strip(), value, goal, verdict)
            )
        return table(("", "measured", "BoneValue", "beside", "compared", "goal", ""), rows)

    def _left_out(self) -> list[str]:
        if not self.absent:
            return []
        told = (
            f"- **{each['contender']}** was left out of {', '.join(each['goals'])}: {each['why']}\n"
            for each in self.absent
        )
        return ["".join(told)]

    def _figures(self, benchmark: str) -> str:
        contenders = self.rounds[benchmark]
        names = [name for name in FIGURES if any(name in rounds[0] for rounds in contenders.values())]
        rows = [
            (self._named(benchmark, contender), *(spread(rounds, name) for name in names))
            for contender, rounds in contenders.items()
        ]
        return table(("", *(FIGURES[name] for name in names)), rows)

    @staticmethod
    def _named(benchmark: str, contender: str) -> str:
        return CONDITIONS.get((benchmark, contender), "BoneValue" if contender == OURS else contender)

    # -- the plot ------------------------------------------------------------------------------------------------------

    def plot(self) -> str:
        """An SVG."""
        panels = []
        for benchmark, figure, title in PANELS:
            bars = [
                Bar(self._named(benchmark, contender), median(rounds, figure), contender == OURS)
                for contender, rounds in self.rounds.get(benchmark, {}).items()
            ]
            if bars:
                panels.append(Panel(title, bars))
        return draw(panels)


def shown(value: float) -> str:
    """A number with as many digits as mean anything."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def with_unit(value: float, result: dict[str, Any]) -> str:
    """A figure of a result."""
    return f"{shown(value)} {result['unit']}"


def spread(rounds: Sequence[Round], figure: str) -> str:
    """A figure of several rounds."""
    values = [each[figure] for each in rounds if figure in each]
    if not values:
        return ""
    middle = shown(median(rounds, figure))
    return middle if len(values) == 1 else f"{middle} ({shown(min(values))} to {shown(max(values))})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def page_with(page: str, made: str, begin: str = BEGIN) -> str:
    """
    The page with another part between the marks, of which the second is the same for all parts.

    Raises:
        ValueError: the page has no such marks.
    """
    before, found, rest = page.partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f"the page has no part between {begin.strip()} and {END.strip()}")
    return f"{before}{begin}\n{made}\n{end}{after}"


def documents(lines: str, browser_lines: str) -> Mapping[Path, str]:
    """
    What the documents are with the lines of these two runs.

    Raises:
        ValueError: something is not in them.
    """
    report, browser = Report.read(lines.splitlines()), Report.read(browser_lines.splitlines())
    if report.missing:
        raise ValueError(f"the run has nothing of {', '.join(report.missing)}")
    if not browser.rounds:
        raise ValueError("the run has nothing of tabs")
    page = page_with(PAGE.read_text(encoding="utf-8"), report.page())
    page = page_with(page, browser.browser_page(), BROWSER_BEGIN)
    return {LINES: lines, BROWSER_LINES: browser_lines, PAGE: page, PLOT: report.plot()}


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="Puts a run into the documents.")
    parser.add_argument("lines", nargs="?", type=Path, metavar="FILE", help="JSON lines of a run")
    parser.add_argument("--browser", action="store_true", help="it is one of benchmarks.browser")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the page is another")
    arguments = parser.parse_args()
    files = [LINES, BROWSER_LINES]
    if arguments.lines is not None:
        files[1 if arguments.browser else 0] = arguments.lines
    try:
        made = documents(*(file.read_text(encoding="utf-8") for file in files))
    except ValueError as error:
        parser.error(str(error))
    if arguments.check:
        other = [path.name for path, text in made.items() if path.read_text(encoding="utf-8") != text]
        for name in other:
            print(f"docs/{name} is not what the lines give: make bench-write, make bench-browser", file=sys.stderr)  # noqa: T201
        return 1 if other else 0
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
