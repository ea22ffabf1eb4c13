"""Runs a seed, and when it fails looks for fewer steps that fail too."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import make_url

from gpudev_client import ids
from gpudev_service.loops import driving
from tests.fixtures.store import Templates

from .doubles import Kills
from .failures import Failure, Kill
from .shorter import shorter
from .world import Life

#: Lives that the search for a shorter failure may take, and operations in all of them: a minute or
#: two of a core.
RUNS, OPERATIONS = 300, 40_000


class _Dice:
    """Stands for the module `secrets` where ids are made: ids follow from the seed."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def choice(self, letters: str) -> str:
        return self._life.rng.choice(letters)


@dataclass
class Ground:
    """Where worlds are made: each in a directory of its own. Adds up what was done in them."""

    folder: Path
    templates: Templates
    runs: int = 0
    crashes: int = 0
    operations: int = 0
    #: Comparisons of a plan in memory with the rows.
    remembered: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    sites: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)

    async def run(
        self, seed: int, steps: Sequence[int], kill: Kill | None = None
    ) -> Failure | None:
        """One life; None when everything held. With `kill` the service is killed at that commit of
        it, too: before it, or after it where the second value is true."""
        found, _ = await self._live(seed, steps, kill)
        return found

    async def everywhere(
        self, seed: int, steps: Sequence[int], stride: int = 1
    ) -> tuple[Failure | None, int]:
        """The same life over and over, killed at each of its commits (at each `stride`-th), on both
        sides; and how many lives that were."""
        found, commits = await self._live(seed, steps, None)
        if found is not None:
            return found, 1
        lives = 1
        for number in range(1, commits + 1, stride):
            for after in (False, True):
                lives += 1
                found, _ = await self._live(seed, steps, (number, after))
                if found is not None:
                    return found, lives
        return None, lives

    async def _live(
        self, seed: int, steps: Sequence[int], kill: Kill | None
    ) -> tuple[Failure | None, int]:
        self.runs += 1
        place = self.folder / f"run-{self.runs}"
        place.mkdir()
        url = f"sqlite:///{place / 'gpudev.sqlite'}"
        self.templates.fill(make_url(url))
        kills = Kills(*kill) if kill else Kills()
        life = Life(seed, place, url, kills)
        done: list[int] = []
        #: How many commits there were before each step.
        begun: list[int] = []
        try:
            with determined(life):
                for number in steps:
                    done.append(number)
                    begun.append(kills.commits)
                    await life.step(number)
                begun.append(kills.commits)
                await life.end_well()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            begun = [*begun, kills.commits][: len(done) + 1]
            commits = [end - begin for begin, end in pairwise(begun)]
            return Failure(done, error, life.log, kill, commits), kills.commits
        finally:
            self._add_up(life, kills)
            await life.close()
            shutil.rmtree(place, ignore_errors=True)
        return None, kills.commits

    def _add_up(self, life: Life, kills: Kills) -> None:
        self.crashes += life.crashes
        self.operations += life.operations
        self.remembered += life.remembered
        self.counts += life.checker.counts
        self.sites += kills.sites
        self.struck += kills.struck

    async def shorten(
        self, seed: int, failure: Failure, runs: int = RUNS, operations: int = OPERATIONS
    ) -> Failure:
        """The shortest failure of the same kind that is found in so many lives, and operations in
        all of them."""
        runs, operations = self.runs + runs, self.operations + operations
        return await shorter(
            failure,
            lambda steps, kill: self.run(seed, steps, kill),
            lambda: self.runs < runs and self.operations < operations,
        )


@contextmanager
def determined(life: Life) -> Iterator[None]:
    """Nothing is left to chance but what the seed decides."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids, "secrets", _Dice(life))
        patch.setattr(driving, "PAUSE", 0.0)
        yield


def seeds(size: int, start: int = 1) -> list[int]:
    """`size` seeds that say nothing of each other."""
    return [random.Random(f"seed {start + n}").randrange(10**12) for n in range(size)]
