"""How long a Hub's event loop was held up; imported by the Hub's configuration.

The Hub's own metric does not tell apart what is below 50 ms.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

#: Seconds between two looks, and looks between two lines in the file.
PERIOD, LINE = 0.01, 10

_tasks: set[asyncio.Task[None]] = set()


def begin(file: str) -> None:
    """Writes one line for every ten looks: when, and by how many seconds each was late."""
    task = asyncio.get_running_loop().create_task(_sample(Path(file)))
    _tasks.add(task)


async def _sample(file: Path) -> None:
    late: list[float] = []
    with file.open("a") as out:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(PERIOD)
            late.append(time.perf_counter() - before - PERIOD)
            if len(late) == LINE:
                out.write(f"{time.time():.3f} {' '.join(f'{one:.5f}' for one in late)}\n")
                out.flush()
                late.clear()


def between(file: Path, begun: float, ended: float) -> Sequence[float]:
    """What was written in this time, by the time of day."""
    found: list[float] = []
    for line in file.read_text().splitlines():
        when, *late = map(float, line.split())
        if begun <= when <= ended + LINE * PERIOD:
            found += late
    return found
