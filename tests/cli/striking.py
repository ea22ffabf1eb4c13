"""The command, with Ctrl-C at a moment that nobody hits from outside more than once in a thousand
times: `python -m tests.cli.striking MOMENT ARGUMENT...`. It strikes once, while it waits."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import rich.live
from httpcore import _synchronization

import gpudev_client._waiting
from gpudev_client.cli import main

#: Whose parts are exchanged.
Condition: Any = threading.Condition
Display: Any = rich.live._RefreshThread
Lock: Any = _synchronization.ThreadLock
waiting: Any = gpudev_client._waiting


def strike() -> None:
    signal.raise_signal(signal.SIGINT)


class Garbage:
    def __del__(self) -> None:
        strike()


def on_taking_a_lock() -> None:
    """The second lock of the first question, which its own handling of errors takes as well."""
    taken, enter = itertools.count(1), Lock.__enter__

    def entering(lock: Any) -> Any:
        enter(lock)
        if next(taken) == 2:
            strike()
        return lock

    def begin() -> None:
        Lock.__enter__ = entering

    before_waiting(begin)


def in_the_collector() -> None:
    """Where Python says of an error no more than that it was ignored."""
    before_waiting(Garbage)


def while_the_display_starts() -> None:
    """A thread that starts is waited for with a condition, which is let go just now."""
    start, let_go = Display.start, Condition._release_save

    def letting_go(condition: Any) -> Any:
        state = let_go(condition)
        Condition._release_save = let_go
        strike()
        return state

    def starting(thread: Any) -> None:
        Display.start = start
        Condition._release_save = letting_go
        start(thread)

    Display.start = starting


def before_waiting(act: Callable[[], object]) -> None:
    wait = waiting.wait_until_active

    def acting(*arguments: Any) -> Any:
        waiting.wait_until_active = wait
        act()
        return wait(*arguments)

    waiting.wait_until_active = acting


MOMENTS = {
    "lock": on_taking_a_lock,
    "collector": in_the_collector,
    "display": while_the_display_starts,
}

if __name__ == "__main__":
    MOMENTS[sys.argv.pop(1)]()
    main()
