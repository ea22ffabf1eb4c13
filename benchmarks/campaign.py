"""What the rows about trust have in common: sizes from the environment, workers, sums that go on.

A campaign is many independent pieces, numbered from 1. `STATE=FILE` keeps what was done, so that
the next run goes on behind it and the sum is over all of them.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SMALL = os.environ.get("SIZE") == "small"
ROOT = Path(__file__).parent.parent


def size(name: str, full: int, small: int) -> int:
    """A number from the environment, or what the row says."""
    return int(os.environ.get(name) or (small if SMALL else full))


def machine() -> str:
    return (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores,"
        f" Python {platform.python_version()}, commit {revision()}"
    )


def revision() -> str:
    """The commit, with a `+` where the tree is not as it says."""
    said = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty=+"],
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or "unknown"


def scratch() -> Path:
    """A directory in memory where there is one: what is simulated needs no real disk."""
    memory = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
    return Path(tempfile.mkdtemp(prefix="gpudev-", dir=memory if memory.is_dir() else None))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that this share of them does not exceed (the nearest rank).

    It is one that was measured: nothing is made up between two, or beyond the slowest. Of fewer
    than 100 values the 99th percentile is the slowest."""
    # Rounded: 0.07 * 100 is more than 7 to a machine.
    ordered = sorted(values)
    return ordered[max(1, math.ceil(round(share * len(ordered), 6))) - 1]


def verdict(*, good: bool, full: bool) -> str:
    """Whether a row's goal is met, which only its full size can do."""
    if not good:
        return "missed"
    return "met" if full else "missed (within, in this size)"


def quiet() -> None:
    """What the service says of troubles that are made on purpose is not wanted."""
    logging.disable(logging.CRITICAL)


@dataclass
class Sums:
    """What was done so far, over all runs that share a state file."""

    pieces: int = 0
    numbers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    commits: dict[str, int] = field(default_factory=dict)

    def add(self, found: Sums) -> None:
        self.pieces += found.pieces
        self.numbers += found.numbers
        self.failures += found.failures
        revised = revision()
        self.commits[revised] = self.commits.get(revised, 0) + found.pieces


class Campaign:
    """Runs pieces in processes until their number, or the time, is used up."""

    def __init__(self, name: str, work: Callable[[int, int], Sums], batch: int) -> None:
        self._name, self._work, self._batch = name, work, batch
        path = os.environ.get("STATE")
        self._state = Path(path) if path else None
        self.sums = self._load()

    def run(self, pieces: int, seconds: float | None) -> Sums:
        """`pieces` in all, those of earlier runs included; `seconds` bounds this run only."""
        workers = int(os.environ.get("WORKERS") or max(1, (os.cpu_count() or 2) // 2))
        end = None if seconds is None else time.monotonic() + seconds
        numbers = self._batches(pieces)
        with ProcessPoolExecutor(workers) as pool:
            under_way: set[Future[Sums]] = set()
            while True:
                while len(under_way) < workers and (end is None or time.monotonic() < end):
                    following = next(numbers, None)
                    if following is None:
                        break
                    under_way.add(pool.submit(self._work, *following))
                if not under_way:
                    return self.sums
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    self.sums.add(future.result())
                    self._save()

    def _batches(self, pieces: int) -> Iterator[tuple[int, int]]:
        for first in range(self.sums.pieces + 1, pieces + 1, self._batch):
            yield first, min(self._batch, pieces + 1 - first)

    def _load(self) -> Sums:
        if self._state is None or not self._state.exists():
            return Sums()
        kept: dict[str, Any] = json.loads(self._state.read_text())[self._name]
        return Sums(kept["pieces"], Counter(kept["numbers"]), kept["failures"], kept["commits"])

    def _save(self) -> None:
        if self._state is None:
            return
        kept = {
            "pieces": self.sums.pieces,
            "numbers": dict(self.sums.numbers),
            "failures": self.sums.failures,
            "commits": self.sums.commits,
        }
        partial = self._state.with_suffix(".partial")
        partial.write_text(json.dumps({self._name: kept}, indent=1))
        partial.replace(self._state)
