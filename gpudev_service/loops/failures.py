"""What fails in one part of a loop's work is in no other's way, and is raised at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Failures:
    """Those of several parts. `said` is for more than one."""

    def __init__(self, said: str) -> None:
        self._said = said
        self._found: list[Exception] = []

    @contextmanager
    def apart(self) -> Iterator[None]:
        """One part: what it raises is kept for later."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised at the end
            self._found.append(error)

    def tell(self) -> None:
        """Raises what was kept, if anything."""
        if len(self._found) > 1:
            raise ExceptionGroup(self._said, self._found)
        if self._found:
            raise self._found[0]
