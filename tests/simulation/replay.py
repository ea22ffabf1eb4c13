"""Runs a seed, and when it fails looks for fewer steps that fail too."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import make_url

from gpudev_client import ids
from gpudev_service.loops import driving
from tests.fixtures.store import Templates

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

    def report(self, seed: int) -> str:
        said = ",".join(map(str, self.steps))
        return "\n".join(
            [
                f"{type(self.error).__name__}: {self.error}",
                f"seed {seed}, {len(self.steps)} steps; again with SIMULATION={seed}:{said}",
                *self.log[-60:],
            ]
        )


@dataclass
class Ground:
    """Where worlds are made: each in a directory of its own."""

    folder: Path
    templates: Templates
    runs: int = 0
    crashes: int = 0
    counts: dict[str, int] | None = None

    async def run(self, seed: int, steps: Sequence[int]) -> Failure | None:
        """One life; None when everything held."""
        self.runs += 1
        place = self.folder / f"run-{self.runs}"
        place.mkdir()
        url = f"sqlite:///{place / 'gpudev.sqlite'}"
        self.templates.fill(make_url(url))
        life = Life(seed, place, url)
        done: list[int] = []
        try:
            with _determined(life):
                for number in steps:
                    done.append(number)
                    await life.step(number)
                await life.end_well()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            return Failure(done, error, life.log)
        finally:
            self.crashes += life.crashes
            self.counts = dict(life.checker.counts)
            await life.close()
            shutil.rmtree(place, ignore_errors=True)
        return None

    async def shorten(self, seed: int, failure: Failure) -> Failure:
        """Leaves out ever smaller parts as long as the same kind of failure remains."""
        best, size, tries = failure, max(1, len(failure.steps) // 2), 0
        while tries < SEARCH:
            improved = False
            for start in range(0, len(best.steps), size):
                fewer = [*best.steps[:start], *best.steps[start + size :]]
                tries += 1
                found = await self.run(seed, fewer)
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
    return [random.Random(f"seed {start + n}").randrange(10**6) for n in range(size)]
