"""Looks for the fewest steps in which a life fails in the same way: delta debugging.

Steps are left out in ever smaller parts; what remains is a life of its own, in which a step does
what it can then. A shorter life counts only if it breaks the same invariant.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from .failures import Failure, Kill

#: Lives these steps, killed there; what went wrong, with no more steps than were lived.
Run = Callable[[Sequence[int], Kill | None], Awaitable[Failure | None]]


async def shorter(failure: Failure, run: Run, goes_on: Callable[[], bool]) -> Failure:
    """The shortest failure of the same kind that was found before `goes_on` said no. Where it never
    does, each single step of it is needed."""
    search = _Search(failure, run, goes_on)
    await search.cut()
    await search.thin()
    return search.best


@dataclass
class _Search:
    best: Failure
    run: Run
    goes_on: Callable[[], bool]
    tried: set[tuple[tuple[int, ...], Kill | None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._kind = self.best.kind

    async def cut(self) -> None:
        """Leaves out the end, by halves: the steps before a failure count, and only those."""
        least = 0
        while least < len(self.best.steps):
            middle = (least + len(self.best.steps)) // 2
            if not await self._fails_without(middle, len(self.best.steps)):
                least = middle + 1

    async def thin(self) -> None:
        """Leaves out parts until no single step can go."""
        size = max(1, len(self.best.steps) // 2)
        while self.goes_on():
            before, begin = len(self.best.steps), 0
            while begin < len(self.best.steps):
                if not await self._fails_without(begin, begin + size):
                    begin += size
            if size == 1 and len(self.best.steps) == before:
                return
            size = max(1, size // 2)

    async def _fails_without(self, begin: int, end: int) -> bool:
        """Whether it fails in the same way without these of its steps; then that is the best."""
        fewer = self.best.without(begin, end)
        if fewer is None or not self.goes_on():
            return False
        steps, kill = fewer
        if (tuple(steps), kill) in self.tried:
            return False
        self.tried.add((tuple(steps), kill))
        found = await self.run(steps, kill)
        if found is None or found.kind != self._kind:
            return False
        self.best = found
        return True
