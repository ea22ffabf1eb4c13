"""Keeps the service running: what is killed is started again at once.

Leases end on time only while the service runs. The Hub looks for a service that it manages every
thirty seconds and no more often, so a small process of our own stands between: it does nothing but
wait for the service and start it again. If this process is the one that is killed, the service goes
on without it, until the Hub's next one takes over.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

log = logging.getLogger(__name__)

#: The exit code of a service that wants to begin anew.
AGAIN = 75
#: Signals that ask the service to end; this process passes them on.
_ORDERLY = frozenset({signal.SIGTERM, signal.SIGINT})
#: A service that lives for less than so many seconds ...
_YOUNG = 10.0
#: ... this often in a row is left to the Hub, which tries again at its own pace.
_MOST = 5
#: Seconds before a service that was killed young is started again.
_PAUSE = 0.5


def keep(work: Callable[[], None], *, young: float = _YOUNG) -> None:
    """Runs `work` in a process of its own, and again when a signal such as SIGKILL ended that one,
    or it ended with `AGAIN`.

    Returns in the child, when `work` has returned. In this process it ends with `SystemExit` and
    the child's exit code, 1 where the child was killed too often.
    """
    deaths = 0
    while deaths < _MOST:
        started = time.monotonic()
        child = _fork()
        if child is None:
            work()
            return
        code = child.wait()
        if code is not None:
            sys.exit(code)
        is_young = time.monotonic() - started < young
        deaths = deaths + 1 if is_young else 0
        if is_young:
            time.sleep(_PAUSE)
    log.error("the service was killed %d times in a row", deaths)
    sys.exit(1)


class _Child:
    """The service's process, as its keeper sees it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._asked_to_end = False
        for number in _ORDERLY:
            signal.signal(number, self._pass_on)

    def wait(self) -> int | None:
        """The exit code once it has ended; None when it should run again."""
        _, status = os.waitpid(self._pid, 0)
        # From here on the id may be another process's.
        self._pid = 0
        if not os.WIFSIGNALED(status):
            code = os.WEXITSTATUS(status)
            return None if code == AGAIN and not self._asked_to_end else code
        number = os.WTERMSIG(status)
        if self._asked_to_end or number in _ORDERLY:
            return 128 + number
        log.error("the service was killed by %s; starting it again", signal.Signals(number).name)
        return None

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._asked_to_end = True
        if self._pid:
            os.kill(self._pid, number)
        else:
            sys.exit(128 + number)


def _fork() -> _Child | None:
    """The child as seen by its parent; None in the child itself.

    The signals are held back meanwhile, so that none is lost between two processes' handlers.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ORDERLY)
    try:
        pid = os.fork()
        if pid:
            return _Child(pid)
        for number in _ORDERLY:
            signal.signal(number, signal.SIG_DFL)
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ORDERLY)
