"""The tests' own network: what :mod:`tests.support.netns` says in the header of the run is so."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable

from tests import conftest

INTERFACES = "import socket; print([name for _, name in socket.if_nameindex()])"


def test_the_header_tells_the_truth() -> None:
    header = conftest.pytest_report_header()
    alone = [name for _, name in socket.if_nameindex()] == ["lo"]
    assert header.startswith("network: ")
    assert alone or "NOT isolated" in header


def test_threads_and_children_are_on_the_same_network() -> None:
    ours = [name for _, name in socket.if_nameindex()]
    theirs: list[list[str]] = []
    thread = threading.Thread(target=lambda: theirs.append([name for _, name in socket.if_nameindex()]))
    thread.start()
    thread.join()
    child = subprocess.run([sys.executable, "-c", INTERFACES], capture_output=True, text=True, check=True, timeout=60)
    assert theirs == [ours]
    assert child.stdout.strip() == str(ours)


def test_loopback_works_and_ports_are_free(free_port: Callable[[], int]) -> None:
    first, second = free_port(), free_port()
    assert first != second
    with (
        socket.create_server(("127.0.0.1", first)) as server,
        socket.create_connection(("127.0.0.1", first), timeout=5) as client,
        server.accept()[0] as accepted,
    ):
        client.sendall(b"hello")
        assert accepted.recv(5) == b"hello"
