"""What went wrong in a life, what makes it the same as another failure, and how to see it again."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.tiers import ROOT

from .invariants import Violation
from .world import EXPECTED

#: At which commit of a life the service is killed, and whether after it.
Kill = tuple[int, bool]


@dataclass(frozen=True)
class Failure:
    """What went wrong, in how many steps, and what happened on the way."""

    steps: Sequence[int]
    error: Exception
    log: Sequence[str]
    kill: Kill | None = None
    #: How many commits there were in each of the steps.
    commits: Sequence[int] = ()

    @property
    def kind(self) -> str:
        """Two failures of one kind have the same cause, as far as can be told."""
        return _kind(self.error)

    def again(self, seed: int) -> str:
        """What `SIMULATION` must be to see it again."""
        steps = ",".join(map(str, self.steps))
        kill = "" if self.kill is None else f"@{self.kill[0]}{'+' if self.kill[1] else '-'}"
        return f"{seed}:{steps}{kill}"

    def report(self, seed: int) -> str:
        return "\n".join(
            [
                f"{type(self.error).__name__}: {self.error}",
                f"seed {seed}, {len(self.steps)} steps; again with",
                f"SIMULATION={self.again(seed)} .venv/bin/pytest -n 0 tests/simulation -k again",
                *self.log[-60:],
            ]
        )

    def without(self, begin: int, end: int) -> tuple[Sequence[int], Kill | None] | None:
        """Its steps but those between two places, and the number that the commit of its kill has
        then, if nothing else changes; None where that commit is in what is left out."""
        steps = [*self.steps[:begin], *self.steps[end:]]
        if self.kill is None:
            return steps, None
        at, after = self.kill
        before, fewer = sum(self.commits[:begin]), sum(self.commits[begin:end])
        if at <= before:
            return steps, self.kill
        return (steps, (at - fewer, after)) if at > before + fewer else None


def parse(again: str) -> tuple[int, list[int], Kill | None]:
    """What `Failure.again` said."""
    life, _, kill = again.partition("@")
    seed, _, steps = life.partition(":")
    killed = (int(kill[:-1]), kill[-1] == "+") if kill else None
    return int(seed), [int(number) for number in steps.split(",") if number], killed


def _kind(error: Exception) -> str:
    """The invariant that is broken, or the type of an error and where it was raised."""
    if isinstance(error, Violation):
        return error.which.name
    if isinstance(error, ExceptionGroup):
        return " and ".join(sorted({_kind(each) for each in _unexpected(error)}))
    return f"{type(error).__name__} at {_site(error)}"


def _unexpected(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for each in group.exceptions:
        if isinstance(each, ExceptionGroup):
            yield from _unexpected(each)
        elif not isinstance(each, EXPECTED):
            yield each


def _site(error: Exception) -> str:
    """The innermost line of this project, since libraries raise the same for many."""
    frames = [
        (Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
    ]
    ours = [
        f"{path.relative_to(ROOT)}:{line}"
        for path, line in frames
        if path.is_relative_to(ROOT) and not path.relative_to(ROOT).parts[0].startswith(".")
    ]
    return ours[-1] if ours else "nowhere"
