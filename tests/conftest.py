"""What all tests share: a network of their own, one unit of time, free ports."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support import netns
from tests.support.lab.spaces import why_not
from tests.support.waiting import UNIT

# At import, before anything can have started a thread: a namespace is a thread's own.
_NETWORK = netns.enter()


def pytest_report_header() -> str:
    """Two lines above the run: whether the tests are alone on their network, and whether there can be a lab of them."""
    why = why_not()
    return f"{_NETWORK}\nlab: {'works' if why is None else f'NOT possible, its tests will fail: {why}'}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    """Tests that share a lab run on one worker."""
    from tests.support.together import make_scheduler  # late: without xdist there is nothing to import

    return make_scheduler(config, log)


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """Whoever sets up logging, as each command of `bv` does, sets it up for one test only."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def unit() -> float:
    """The unit of time in seconds; see :mod:`tests.support.waiting`."""
    return UNIT


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that gives a TCP port of 127.0.0.1 on which nobody listens, a new one each time."""
    given: set[int] = set()

    def port() -> int:
        while True:
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                number = int(sock.getsockname()[1])
            if number not in given:
                given.add(number)
                return number

    return port
