"""Which tasks a process of the soak has, told by itself after it has given back the memory that it
can; imported by its configuration files only.

A thread answers on a socket of the process's own, since a configuration is read before there is a
loop, and a signal handler would come between the program and its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import socket
import sys
import threading
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path

from jupyterhub.httpclient import JupyterHubHTTPClient

#: Debian's; its malloc keeps what was freed until it is asked.
_LIBC = ctypes.CDLL("libc.so.6")
#: How often a loop is looked for.
_LOOKS = 100
#: Lines for a configuration file; the folder goes into the braces.
FOR_HUB = "from benchmarks import soak_tasks\nsoak_tasks.tell({!r})"
#: Counted beside the tasks: connections to the Hub that JupyterHub's client keeps for the next
#: question, as many as there once were questions at once.
POOLED = "pooled"
#: The service reads its configuration before it forks its keeper off.
FOR_SERVICE = """
import os
from benchmarks import soak_tasks
soak_tasks.tell({0!r})
os.register_at_fork(after_in_child=lambda: soak_tasks.tell({0!r}))
"""


def tell(folder: str) -> None:
    """Answers whoever asks `count` for this process."""
    path = Path(folder) / f"tasks-{os.getpid()}"
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    threading.Thread(target=_answer, args=(listening,), daemon=True).start()


def _answer(listening: socket.socket) -> None:
    while True:
        sock, _ = listening.accept()
        gc.collect()
        _LIBC.malloc_trim(0)
        tasks = [task for loop in _loops() for task in asyncio.all_tasks(loop)]
        counted = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
        counted[POOLED] = _pooled()
        with sock, suppress(BrokenPipeError):
            sock.sendall(json.dumps(counted).encode())


def _pooled() -> int:
    if not JupyterHubHTTPClient.initialized():
        return 0
    client = JupyterHubHTTPClient.instance()
    if not client._has_session:
        return 0
    return sum(len(idle) for idle in client._session.connector._conns.values())


#: What `_running` has found.
_seen: set[asyncio.AbstractEventLoop] = set()


def _loops() -> set[asyncio.AbstractEventLoop]:
    """The loops of this process. A thread that is looked at goes on meanwhile, and the way from
    where it was to where it began may break off: so it is looked at again, and a loop that was
    found is remembered."""
    for _ in range(_LOOKS):
        _seen.update(_running())
        if _seen:
            break
    return {loop for loop in _seen if loop.is_running()}


def _running() -> list[asyncio.AbstractEventLoop]:
    """The loops that run in any thread: each is in a call of its own, wherever that has got to.

    The garbage collector is no list of what there is: the service has it leave alone what stays.
    """
    found: list[asyncio.AbstractEventLoop] = []
    for innermost in sys._current_frames().values():
        for frame, _ in traceback.walk_stack(innermost):
            if frame.f_code is asyncio.BaseEventLoop.run_forever.__code__:
                found.append(frame.f_locals["self"])
    return found


def count(folder: Path, pid: int) -> dict[str, int]:
    """How many tasks of a process run which coroutine."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(folder / f"tasks-{pid}"))
        found: dict[str, int] = json.loads(sock.makefile().read())
    if not found.keys() - {POOLED}:
        raise RuntimeError(f"process {pid} has no task, which cannot be")
    return found
