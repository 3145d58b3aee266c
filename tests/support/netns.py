"""
A network namespace of its own for the test process, so that no test can reach, or be reached from, anything else.

The process leaves the machine's network with ``unshare(2)`` and brings up ``lo`` in the empty one it gets. Children
are born into it. Root needs nothing more; anybody else makes a user namespace along with it, which keeps the user's
own ids. No program is run and nothing is left behind: the kernel drops the namespace with its last process.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

__all__ = ["enter"]

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
#: struct ifreq, as far as the flags go: the name, the flags, and padding up to the size of the whole.
_IFREQ = "16sH22x"


def enter() -> str:
    """
    Move this process into a network namespace with only loopback; gives a line that says how it went.

    Must be called while the process has a single thread: other threads would stay where they are.
    """
    try:
        how = _unshare()
        _bring_up("lo")
    except (OSError, AttributeError) as error:
        return f"network: NOT isolated, the tests use this machine's interfaces ({error})"
    return f"network: isolated, {how} with loopback only"


def _unshare() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if _call_unshare(libc, _CLONE_NEWNET) == 0:
        return "a namespace of its own"
    user, group = os.getuid(), os.getgid()
    if (code := _call_unshare(libc, _CLONE_NEWUSER | _CLONE_NEWNET)) != 0:
        raise OSError(code, f"unshare: {os.strerror(code)}")
    # Without a map every file would seem to belong to nobody. A group map may be written only after this "deny".
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return "a user and network namespace of its own"


def _call_unshare(libc: ctypes.CDLL, flags: int) -> int:
    return 0 if libc.unshare(flags) == 0 else ctypes.get_errno()


def _bring_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack(_IFREQ, interface.encode(), 0)
        _, flags = struct.unpack(_IFREQ, fcntl.ioctl(sock, _SIOCGIFFLAGS, request))
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack(_IFREQ, interface.encode(), flags | _IFF_UP))
