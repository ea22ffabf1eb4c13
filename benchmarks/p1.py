"""A full plan with every rule for 10,000 and 50,000 who wait, and how its cost grows.

Twice: nobody has a promise yet, and all have one that is kept or improved, as in the full plan
after a restart and every few minutes. The goal is for both. CPU time of one core, the median of
several rounds; `SIZE=small` stops at 10,000. The planner is compiled as in the service's image;
`COMPILED=0` measures its sources.
"""

from __future__ import annotations

import gc
import math
import os
import platform
import statistics
import sys
import time
from dataclasses import replace

from benchmarks import compiled
from benchmarks.planner_queues import NOW, Queue, parameters, queue
from gpudev_service.planner import plan

NODES = 1000
#: Waiting, and how often each size is measured.
FULL = {5_000: 5, 10_000: 7, 20_000: 3, 50_000: 3}
SMALL = {1_000: 5, 2_000: 5, 5_000: 3, 10_000: 3}
GOAL_10K, GOAL_50K, GOAL_EXPONENT = 0.25, 1.5, 1.1


def promised(given: Queue) -> Queue:
    """The same queue a moment later: all have their promise, which is kept or improved, and one
    lease of a hundred has ended early."""
    made = plan(given.nodes, given.holds, given.demands, given.rules, NOW)
    demands = [replace(each, promise=made.slots.get(each.id)) for each in given.demands]
    holds = [hold for at, hold in enumerate(given.holds) if at % 100]
    return replace(given, holds=holds, demands=demands)


def measure(given: Queue, rounds: int) -> list[float]:
    """CPU seconds of one core for a whole plan, per round."""
    taken = []
    for _ in range(rounds):
        gc.collect()
        begin = time.process_time()
        result = plan(given.nodes, given.holds, given.demands, given.rules, NOW)
        taken.append(time.process_time() - begin)
        if len(result.slots) + len(result.impossible) != len(given.demands):
            raise AssertionError("somebody was neither given a start nor told why not")
    return taken


def exponent(medians: dict[int, float]) -> float:
    """The slope of a line through the sizes, both axes logarithmic."""
    xs = [math.log(size) for size in medians]
    ys = [math.log(taken) for taken in medians.values()]
    return statistics.linear_regression(xs, ys).slope


def main() -> int:
    told = compiled.again("benchmarks.p1")
    sizes = SMALL if os.environ.get("SIZE") == "small" else FULL
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one used;"
        f" Python {platform.python_version()}, {told}"
    )
    print(parameters(NODES))
    new: dict[int, float] = {}
    kept: dict[int, float] = {}
    for waiting, rounds in sizes.items():
        given = queue(waiting, NODES)
        for who, asked, medians in (
            ("nobody promised yet", given, new),
            ("promises kept and improved", promised(given), kept),
        ):
            taken = measure(asked, rounds)
            medians[waiting] = statistics.median(taken)
            print(
                f"{waiting:6} waiting, {who}: median {medians[waiting]:.3f} s, best"
                f" {min(taken):.3f} s, {medians[waiting] / waiting * 1e6:.0f} us per promise",
                flush=True,
            )
    full = sizes is FULL
    met = full and within(new) and within(kept)
    print(
        f"P1 new {_shown(new)} kept {_shown(kept)} goal {GOAL_10K}s,{GOAL_50K}s,{GOAL_EXPONENT} for"
        f" both {'met' if met else 'missed'}"
        f"{' (within, in this size)' if not full and within(new) and within(kept) else ''}"
    )
    return 0


def within(medians: dict[int, float]) -> bool:
    """Whether the sizes that were measured are within the goals."""
    ten, fifty = medians.get(10_000, 0.0), medians.get(50_000, 0.0)
    return ten <= GOAL_10K and fifty <= GOAL_50K and exponent(medians) <= GOAL_EXPONENT


def _shown(medians: dict[int, float]) -> str:
    fifty = f"{medians[50_000]:.2f}s" if 50_000 in medians else "not-measured"
    return f"10k={medians[10_000]:.3f}s 50k={fifty} exponent={exponent(medians):.2f}"


if __name__ == "__main__":
    sys.exit(main())
