"""Where Ctrl-C is let in, and where it has to wait a moment.

Python raises KeyboardInterrupt in the main thread between any two steps. Not everything survives
that: a lock that was just taken is never given back, the start of a thread ends with another error,
and an import or what the garbage collector calls swallows it. So Ctrl-C is held back where much of
that happens, until the next wait, where nothing is torn.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two looks of a long wait. A signal that comes just before a wait begins does not
#: end it, and Python may deliver it to another thread; it is noticed at the next look.
LOOK = 0.5


class _CtrlC:
    """Only the main thread has to do with it."""

    #: Whether it may be raised where the program is; `held` and `let_in` change that.
    welcome = True
    #: Whether one is held back.
    pending = False


_CTRL_C = _CtrlC()


def _arrived(number: int, frame: FrameType | None) -> None:
    if _CTRL_C.welcome or _CTRL_C.pending:
        # Also where the one before still waits to be let in: the second one ends whatever hangs.
        _CTRL_C.pending = False
        raise KeyboardInterrupt
    _CTRL_C.pending = True


@contextmanager
def held() -> Iterator[None]:
    """Holds Ctrl-C back until `let_in`, or the end of the block, unless somebody has other plans
    for it. An error of the block's own says more than that somebody wanted it to end, and goes
    first."""
    handler = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or handler not in (signal.default_int_handler, _arrived):
        yield
        return
    outer = _CTRL_C.welcome
    try:
        _CTRL_C.welcome = False
        signal.signal(signal.SIGINT, _arrived)
        yield
    finally:
        # In this order: one that comes in between is raised, and what then stays does the same.
        _CTRL_C.welcome = outer
        came = outer and _CTRL_C.pending
        if outer:
            _CTRL_C.pending = False
        signal.signal(signal.SIGINT, handler)
    if came:
        raise KeyboardInterrupt


def let_in(wait: Callable[[], T]) -> T:
    """Waits; Ctrl-C ends it with KeyboardInterrupt, also one that was held back before."""
    outer = _CTRL_C.welcome
    _CTRL_C.welcome = True
    try:
        if _CTRL_C.pending:
            _CTRL_C.pending = False
            raise KeyboardInterrupt
        return wait()
    finally:
        _CTRL_C.welcome = outer


def pause(seconds: float) -> None:
    """Waits that long."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        let_in(partial(time.sleep, min(left, LOOK)))
