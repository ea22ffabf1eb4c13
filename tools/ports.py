"""Ports for servers that are started, killed and started again at the same port.

The kernel gives a connection that goes out a port of its own range, and whoever asks for port 0 as
well: a server that is away for a moment may find its port taken when it comes back, even by a
client that tries to reach it. So these are from below that range.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from pathlib import Path

_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
#: Where others have what the kernel's own file says; and Kubernetes' node ports end here.
_USUAL = 30_000
_FIRST = 10_240
#: How many are tried for each that is wanted.
_TRIES = 1_000


def free_ports(count: int) -> list[int]:
    """Different ports of this machine at which nobody listens, and to which no connection belongs.

    Raises:
        OSError: nearly all are taken.
    """
    end = _end()
    with contextlib.ExitStack() as held:
        found: list[int] = []
        for _ in range(_TRIES * count):
            probe = held.enter_context(socket.socket())
            # Where the outgoing ones leave no room below, the kernel chooses among its own.
            port = _FIRST + secrets.randbelow(end - _FIRST) if end > 2 * _FIRST else 0
            try:
                probe.bind(("", port))
            except OSError:
                probe.close()
                continue
            found.append(probe.getsockname()[1])
            if len(found) == count:
                return found
    raise OSError(f"no {count} free ports between {_FIRST} and {end}")


def free_port() -> int:
    """One of them."""
    [port] = free_ports(1)
    return port


def _end() -> int:
    """The first port that is not ours to take."""
    try:
        first, _ = _OUTGOING.read_text().split()
    except OSError:
        return _USUAL
    return min(int(first), _USUAL)
