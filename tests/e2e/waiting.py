"""Waiting with a deadline; the only place in these tests where time passes by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds that anything may take on a busy machine; a test that fails waits for so long.
PATIENCE = 90.0


def until(
    look: Callable[[], T | None],
    what: str,
    *,
    patience: float = PATIENCE,
    pause: float = 0.1,
    seen: Callable[[], Any] | None = None,
) -> T:
    """The first answer of `look` that is true.

    Args:
        what: what is waited for, for the message when it does not come.
        pause: seconds between two looks; 0 where a moment must not be missed.
        seen: what to show beside the message.
    """
    deadline = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            shown = f"; it is {seen()!r}" if seen else ""
            raise AssertionError(f"not within {patience:g} seconds: {what}{shown}")
        time.sleep(pause)
