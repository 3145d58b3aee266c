"""
A wire that takes its time: what comes into one TUN device leaves by the other after a fixed delay, and back.

For the kernel here has no ``netem``. Run as a program in the space where both devices are to appear; the second is
moved from there to where it belongs. It says ``ready`` when they are there, and ends with its standard input::

    python delay.py wire wan 0.05
"""

from __future__ import annotations

import errno
import fcntl
import os
import selectors
import struct
import sys
import time
from collections import deque

_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
#: More than any packet of the devices.
_MOST = 65_536


def _open(name: str) -> int:
    """A TUN device of that name: one read is one packet of IP, and so is one write."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def _write(device: int, packet: bytes) -> None:
    # A device that is down, or whose queue is full, loses packets, as any wire does.
    try:
        os.write(device, packet)
    except OSError:
        return


def _read_all(device: int) -> list[bytes]:
    packets = []
    while True:
        try:
            packets.append(os.read(device, _MOST))
        except BlockingIOError:
            return packets


def carry(devices: tuple[int, int], delay: float) -> None:
    """Carry packets between the two, each ``delay`` seconds after it came, until standard input ends."""
    under_way: deque[tuple[float, int, bytes]] = deque()
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        for device, other in (devices, devices[::-1]):
            selector.register(device, selectors.EVENT_READ, other)
        while True:
            wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
            for key, _ in selector.select(wait):
                if key.fd == 0:
                    return
                due = time.monotonic() + delay
                under_way.extend((due, key.data, packet) for packet in _read_all(key.fd))
            while under_way and under_way[0][0] <= time.monotonic():
                _, device, packet = under_way.popleft()
                _write(device, packet)


def main() -> None:
    """Run as a program."""
    one, other, delay = sys.argv[1:]
    devices = (_open(one), _open(other))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        carry(devices, float(delay))
    except OSError as error:
        if error.errno != errno.EBADFD:  # which says that a device has gone with its space
            raise


if __name__ == "__main__":
    main()
