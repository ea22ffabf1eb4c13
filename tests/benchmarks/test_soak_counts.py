"""What is left is what was there at every look, in the service and the Hub too."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from benchmarks import soak_counts, soak_tasks


def test_a_task_that_comes_and_goes_is_not_left() -> None:
    looks: list[soak_counts.Counts] = [
        {"service": {"task wait": 2, "task lost": 3}},
        {"service": {"task wait": 1, "task lost": 3}},
    ]
    before: soak_counts.Counts = {"service": {"task wait": 1, "task lost": 2}}
    assert soak_counts.more(before, soak_counts.extremes(min, *looks)) == {"service task lost": 1}
    assert soak_counts.more(soak_counts.extremes(max, *looks), looks[0]) == {}


async def test_a_process_tells_its_tasks(tmp_path: Path) -> None:
    async def forgotten() -> None:
        await asyncio.Event().wait()

    soak_tasks.tell(str(tmp_path))
    tasks = [asyncio.create_task(forgotten()) for _ in range(3)]
    await asyncio.sleep(0)
    told = await asyncio.to_thread(soak_tasks.count, tmp_path, os.getpid())
    assert told["test_a_process_tells_its_tasks.<locals>.forgotten"] == 3
    for task in tasks:
        task.cancel()
