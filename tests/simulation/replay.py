"""Runs a seed, and when it fails looks for fewer steps that fail too."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import make_url

from gpudev_client import ids
from gpudev_service.loops import driving
from tests.fixtures.store import Templates

from .doubles import Kills
from .world import Life

#: Runs that the search for a shorter failure may take.
SEARCH = 40


class _Dice:
    """Stands for the module `secrets` where ids are made: ids follow from the seed."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def choice(self, letters: str) -> str:
        return self._life.rng.choice(letters)


@dataclass(frozen=True)
class Failure:
    """What went wrong, in how many steps, and what happened on the way."""

    steps: Sequence[int]
    error: Exception
    log: Sequence[str]
    kill: tuple[int, bool] | None = None

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
        self, seed: int, steps: Sequence[int], kill: tuple[int, bool] | None = None
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
        self, seed: int, steps: Sequence[int], kill: tuple[int, bool] | None
    ) -> tuple[Failure | None, int]:
        self.runs += 1
        place = self.folder / f"run-{self.runs}"
        place.mkdir()
        url = f"sqlite:///{place / 'gpudev.sqlite'}"
        self.templates.fill(make_url(url))
        kills = Kills(*kill) if kill else Kills()
        life = Life(seed, place, url, kills)
        done: list[int] = []
        try:
            with _determined(life):
                for number in steps:
                    done.append(number)
                    await life.step(number)
                await life.end_well()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            return Failure(done, error, life.log, kill), kills.commits
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

    async def shorten(self, seed: int, failure: Failure) -> Failure:
        """Leaves out ever smaller parts as long as the same kind of failure remains."""
        best, size, tries = failure, max(1, len(failure.steps) // 2), 0
        while tries < SEARCH:
            improved = False
            for start in range(0, len(best.steps), size):
                fewer = [*best.steps[:start], *best.steps[start + size :]]
                tries += 1
                found = await self.run(seed, fewer, best.kill)
                if found is not None and type(found.error) is type(failure.error):
                    best, improved = found, True
                    break
                if tries >= SEARCH:
                    break
            if not improved:
                if size == 1:
                    break
                size = max(1, size // 2)
        return best


@contextmanager
def _determined(life: Life) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids, "secrets", _Dice(life))
        patch.setattr(driving, "PAUSE", 0.0)
        yield


def seeds(size: int, start: int = 1) -> list[int]:
    """`size` seeds that say nothing of each other."""
    return [random.Random(f"seed {start + n}").randrange(10**12) for n in range(size)]


def parse(again: str) -> tuple[int, list[int], tuple[int, bool] | None]:
    """What `Failure.again` said."""
    life, _, kill = again.partition("@")
    seed, _, steps = life.partition(":")
    killed = (int(kill[:-1]), kill[-1] == "+") if kill else None
    return int(seed), [int(number) for number in steps.split(",")], killed
