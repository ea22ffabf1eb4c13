"""Work in a thread of its own, so that Ctrl-C does not tear it.

KeyboardInterrupt is raised in the main thread, wherever that is. Inside an HTTP library this may be
where it holds a lock, and then nothing that wants the lock goes on, also not the library's own
handling of the interruption (https://github.com/python/cpython/issues/74174). Here the main thread
only waits for an answer, which can be left at any time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

# Unlike queue.Queue, which has locks in Python, it has no state that could be left halfway.
from queue import Empty, SimpleQueue
from typing import TypeVar

from . import interrupts

T = TypeVar("T")


class Aside:
    """Does one thing after the other. Outside of the main thread, where no Ctrl-C comes, it does
    them right there."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._left = False

    def do(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Left with KeyboardInterrupt, it goes on by itself."""
        if threading.current_thread() is not threading.main_thread():
            return work()
        if self._thread is None:
            self._start()
        found: SimpleQueue[T | _Raised] = SimpleQueue()
        self._jobs.put(partial(_find, work, found))
        try:
            return _taken(found)
        except KeyboardInterrupt:
            self._left = True
            raise

    def end(self, last: Callable[[], None]) -> None:
        """Does `last` and nothing more. Behind work that was left nobody waits for it."""
        if self._thread is None:
            last()
            return
        try:
            if self._left:
                self._jobs.put(last)
            else:
                self.do(last)
        finally:
            self._jobs.put(None)

    def _start(self) -> None:
        # A daemon: what was left must not keep a process from ending.
        thread = threading.Thread(target=_work, args=(self._jobs,), daemon=True)
        with interrupts.held():
            thread.start()
            self._thread = thread


class _Raised:
    """Stands for an answer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _work(jobs: SimpleQueue[Callable[[], object] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # what it holds would stay open while nothing comes


def _find(work: Callable[[], T], found: SimpleQueue[T | _Raised]) -> None:
    try:
        answer: T | _Raised = work()
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        answer = _Raised(error)
    found.put(answer)


def _taken(found: SimpleQueue[T | _Raised]) -> T:
    look = partial(found.get, timeout=interrupts.LOOK)
    while True:
        try:
            answer = interrupts.let_in(look)
        except Empty:
            continue
        if not isinstance(answer, _Raised):
            return answer
        try:
            raise answer.error
        finally:
            # Its traceback leads here: connections in it would stay until the collector comes.
            del answer
