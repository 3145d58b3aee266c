"""One run of benchmarks: who takes part, how long, and where its lines go."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.children import Child, ChildFailed
from benchmarks.contenders.contender import Contender
from benchmarks.figures import GOALS, Round
from benchmarks.profiles import KINDS

__all__ = ["OURS", "Rounds", "Session"]

OURS = "bonevalue"


@dataclass
class Session:
    """
    A run.

    Args:
        wanted: ids of what is to be measured.
        rounds: how often everything is measured; medians count.
        seconds: that a measurement takes which has no end of its own.
        isolated: whether this is in a network namespace of its own.
        output: where lines go besides standard output.
        profile: a folder for profiles, or None.
    """

    wanted: frozenset[str]
    rounds: int
    seconds: float
    isolated: bool
    output: IO[str] | None = None
    profile: Path | None = None
    #: The goals that are being measured.
    goals: tuple[str, ...] = ()
    #: Ours could not be measured to the end.
    failed: bool = False
    _left_out: set[str] = field(default_factory=set)

    def begin(self, goals: Collection[str]) -> None:
        """Another benchmark begins: whoever failed in the last one has another chance."""
        self.goals = tuple(sorted(self.wanted & set(goals)))
        self._left_out.clear()

    def line(self, **values: Any) -> None:
        """Put out a line of the results."""
        text = json.dumps(values) + "\n"
        for file in (sys.stdout, self.output):
            if file is not None:
                file.write(text)
                file.flush()

    def say(self, text: str) -> None:
        """Tell whoever waits what goes on."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    def present(self, contenders: Sequence[Contender]) -> list[Contender]:
        """Those that can take part; of the others there is a line."""
        for contender in contenders:
            why = contender.absent(self.isolated)
            if why is not None and contender.name not in self._left_out:
                self._leave_out(contender.name, why)
        return [contender for contender in contenders if contender.name not in self._left_out]

    @asynccontextmanager
    async def turn(self, contender: Contender) -> AsyncIterator[None]:
        """A contender's turn; one that fails takes no further part in this benchmark, and the others go on."""
        try:
            yield
        except ChildFailed as error:
            self._leave_out(contender.name, str(error))

    async def write_profiles(
        self, benchmark: str, contender: Contender, work: Callable[[Child], Awaitable[object]]
    ) -> None:
        """If profiles are wanted: where the time of this work goes, in both processes. None of it counts."""
        if self.profile is None:
            return
        self.profile.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            async with self.turn(contender), contender.meet() as pair:
                both = {"caller": pair.caller, "callee": pair.callee}
                await work(pair.caller)
                for child in both.values():
                    await child.ask("begin_profile", kind=kind)
                outcome = await work(pair.caller)
                for name, child in both.items():
                    file = self.profile / f"{benchmark}-{name}-{kind}.txt"
                    file.write_text(f"{outcome}\n\n{await child.ask('end_profile')}")
                    self.say(f"wrote {file}")

    def _leave_out(self, name: str, why: str) -> None:
        self._left_out.add(name)
        self.failed = self.failed or name == OURS
        self.say(f"{name} is left out: {why}")
        self.line(line="absent", contender=name, goals=self.goals, why=why)


class Rounds:
    """The rounds of one benchmark, by contender; each is a line as soon as it is there."""

    def __init__(self, session: Session, benchmark: str) -> None:
        self._session = session
        self._benchmark = benchmark
        self._rounds: dict[str, list[Round]] = defaultdict(list)

    def add(self, name: str, values: Round) -> None:
        """One more round of somebody."""
        self._rounds[name].append(values)
        number = len(self._rounds[name])
        self._session.line(line="round", benchmark=self._benchmark, contender=name, round=number, **values)
        figures = ", ".join(f"{key} {value:g}" for key, value in values.items())
        self._session.say(f"{self._benchmark} {number}/{self._session.rounds} {name}: {figures}")

    def judge(self, goal: str, against: str) -> None:
        """Put out whether a goal is met."""
        if goal in self._session.wanted:
            result = GOALS[goal].result(against, self._rounds[OURS], self._rounds[against])
            self._session.line(**result)
