"""What is said while a server is waited for, by `ssh`'s ProxyCommand and by the rest; pure."""

from __future__ import annotations

#: Seconds between two sentences where nothing has changed.
EVERY = 15.0
_MINUTE = 60


class Progress:
    """Says each new reason at once, and otherwise from time to time that it still waits."""

    def __init__(self) -> None:
        self._told = ""
        self._at = 0.0

    def next(self, why: str, waited: float) -> str | None:
        """What is to be said now; None for nothing.

        Args:
            why: the service's sentence.
            waited: seconds since the first question.
        """
        if why == self._told and waited - self._at < EVERY:
            return None
        first = not self._told
        self._told, self._at = why, waited
        return (
            f"{why} Waiting; Ctrl-C ends it." if first else f"{why} Waited {_long(waited)} so far."
        )


def _long(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), _MINUTE)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
