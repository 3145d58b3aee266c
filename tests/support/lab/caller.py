"""The tests' end of :mod:`tests.support.lab.agent`: a peer on a host of the lab that does what it is told."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

from tests.support.processes import PATIENCE, clean_environment

__all__ = ["Caller", "Outcome"]

ROOT = Path(__file__).parents[3]
#: Seconds that a peer has to take its leave.
GOODBYE = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    How something went that a peer was told to do.

    Args:
        begun: by the monotonic clock, which is the tests' own too.
        seconds: that it took.
        response: None if it failed.
        error: with ``code``, ``message``, and for a connection that failed ``report``.
        n: of a flow, which of its calls it was.
    """

    begun: float
    seconds: float
    response: Any = None
    error: dict[str, Any] | None = None
    n: int | None = None

    @property
    def ended(self) -> float:
        """By the monotonic clock."""
        return self.begun + self.seconds

    @property
    def code(self) -> str:
        """Of its error; empty if there is none."""
        return "" if self.error is None else str(self.error["code"])

    def succeeded(self) -> Any:
        """The response; an assertion if there is none."""
        assert self.error is None, self
        return self.response


class Caller:
    """
    A peer that runs in a process of its own; comes back from being made when it is online.

    Args:
        prefix: of the space to run in.
        file: of its settings. Its log goes beside it, to ``agent.log``.
        env: further variables of its environment.
    """

    def __init__(self, prefix: Sequence[str], file: Path, *, env: Mapping[str, str] | None = None) -> None:
        self.log = file.with_name("agent.log")
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Outcome]] = {}
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "tests.support.lab.agent", file],
                cwd=ROOT,
                env=clean_environment(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, name=f"answers of {file}", daemon=True)
        self._reader.start()
        try:
            #: Its peer id.
            self.id = str(self.do("ready").succeeded())
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            self._waiting.pop(answer.pop("id")).set_result(Outcome(**answer))
        for future in list(self._waiting.values()):
            future.set_exception(AssertionError(f"the peer ended; its log:\n{self.log.read_text()[-4000:]}"))

    def begin(self, do: str, **arguments: Any) -> Future[Outcome]:
        """Tell it to do something, and do not wait; the verbs are those of :class:`~tests.support.lab.agent.Agent`."""
        future: Future[Outcome] = Future()
        number = next(self._numbers)
        self._waiting[number] = future
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return future

    def do(self, do: str, *, patience: float = PATIENCE, **arguments: Any) -> Outcome:
        """Tell it to do something and wait until it has."""
        return self.begin(do, **arguments).result(patience)

    def call(self, target: str, module: str, request: Any = None, **options: Any) -> Outcome:
        """Call a module; the options are those of :meth:`~bonevalue.target.Target.call`."""
        return self.do("call", target=target, module=module, request=request, **options)

    def ping(self, target: str) -> Outcome:
        """Measure the way to a target's peer."""
        return self.do("ping", target=target)

    def peers(self, target: str) -> list[str]:
        """The ids of the peers that a target means now."""
        return list(self.do("peers", target=target).succeeded())

    def until_online(self, target: str, count: int, *, within: float = PATIENCE) -> float:
        """Wait until that many peers of a target are online; gives when it was so, by the monotonic clock."""
        outcome = self.do("until_online", patience=within + PATIENCE, target=target, count=count, timeout=within)
        return float(outcome.succeeded())

    def flow(self, target: str, module: str, *, every: float, count: int, **options: Any) -> list[Outcome]:
        """
        Call so many times, one every so many seconds, without waiting for answers; gives how all of them went.

        The requests are ``{"n": 0}`` and on, beside what ``request`` says; ``first`` is another first ``n``.
        """
        arguments = {"target": target, "module": module, "every": every, "count": count, **options}
        done = self.do("flow", patience=every * count + 2 * PATIENCE, **arguments)
        return [Outcome(**each) for each in done.succeeded()]

    def start(self, name: str, target: str, module: str, *, every: float, **options: Any) -> None:
        """The same until :meth:`stop` with that name."""
        self.do("start", name=name, target=target, module=module, every=every, **options).succeeded()

    def stop(self, name: str, *, patience: float = 2 * PATIENCE) -> list[Outcome]:
        """Let it call no more; gives how all the calls went since it was started, when the last has ended."""
        return [Outcome(**each) for each in self.do("stop", name=name, patience=patience).succeeded()]

    def signal(self, number: Signals) -> None:
        """Send its process a signal."""
        self._process.send_signal(number)

    def close(self) -> None:
        """End it: it takes its leave, and is killed if that takes long."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(GOODBYE)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reader.join(PATIENCE)
        self._process.stdout.close()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait(PATIENCE)
