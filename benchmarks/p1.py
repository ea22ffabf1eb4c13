"""A full plan with every rule for 10,000 and 50,000 who wait, and how its cost grows.

Twice: nobody has a promise yet, and all have one that is kept or improved, as in the full plan
after a restart and every few minutes. The goal is for both. CPU time of one core, medians; the
sizes take turns, since a machine may be faster in one minute than in the next. `SIZE=small` stops
at 10,000. With `LABELS=1` some ask for labels of nodes, which the goal does not name. The planner
is compiled as in the service's image; `COMPILED=0` measures its sources.
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
from benchmarks.campaign import verdict
from benchmarks.planner_queues import LABELS, NOW, Queue, parameters, queue
from gpudev_service.planner import plan

NODES = 1000
TURNS = 3
#: Waiting, and how often each size is measured in a turn.
FULL = {5_000: 2, 10_000: 3, 20_000: 1, 50_000: 1}
SMALL = {1_000: 3, 2_000: 3, 5_000: 1, 10_000: 1}
NEW, KEPT = "nobody promised yet", "promises kept and improved"
GOAL_10K, GOAL_50K, GOAL_EXPONENT = 0.25, 1.5, 1.1
#: Seconds for each promise of a sketch in Python of conservative backfill, without any other rule.
FLOOR = 18e-6


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
    taken: dict[tuple[str, int], list[float]] = {}
    for _ in range(TURNS):
        for waiting, rounds in sizes.items():
            given = queue(waiting, NODES)
            for who, asked in ((NEW, given), (KEPT, promised(given))):
                taken.setdefault((who, waiting), []).extend(measure(asked, rounds))
    medians: dict[str, dict[int, float]] = {NEW: {}, KEPT: {}}
    for (who, waiting), times in taken.items():
        median = medians[who][waiting] = statistics.median(times)
        print(
            f"{waiting:6} waiting, {who}: median {median:.3f} s, best {min(times):.3f} s,"
            f" {median / waiting * 1e6:.0f} us per promise"
        )
    new, kept = medians[NEW], medians[KEPT]
    full = sizes is FULL
    good = within(new) and within(kept)
    print(
        f"P1{' with labels' if LABELS else ''} new {_shown(new)} kept {_shown(kept)} floor"
        f" {FLOOR * 1e6:.0f}us-per-promise goal {GOAL_10K}s,{GOAL_50K}s,{GOAL_EXPONENT} for both"
        f" {verdict(good=good, full=full)}"
    )
    return 0


def within(medians: dict[int, float]) -> bool:
    """Whether the sizes that were measured are within the goals."""
    ten, fifty = medians.get(10_000, 0.0), medians.get(50_000, 0.0)
    return ten <= GOAL_10K and fifty <= GOAL_50K and exponent(medians) <= GOAL_EXPONENT


def _shown(medians: dict[int, float]) -> str:
    fifty = f"{medians[50_000]:.2f}s" if 50_000 in medians else "not-measured"
    each = f"{medians[10_000] / 10_000 * 1e6:.0f}us-per-promise"
    return f"10k={medians[10_000]:.3f}s {each} 50k={fifty} exponent={exponent(medians):.2f}"


if __name__ == "__main__":
    sys.exit(main())
