"""No GPU and no disk is held twice: simulated lives with crashes at commits, and races of two.

Each seed is one life of the real operations and loops on a real database, among people, servers,
nodes, a Hub and a clock that misbehave; the invariants are looked at after every step. Every 25th
is short and lived again and again, killed before and after each of its commits. Then two services
on one database take the last GPU at the same moment, on SQLite and on PostgreSQL.

`SEEDS`, `STEPS`, `SECONDS_MAX`, `RACES`, `DATABASES`, `WORKERS` change the size; with `STATE=FILE`
a campaign goes on where it stopped, and its sums are over all of it.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import sys
import time
from contextlib import suppress

from benchmarks import races
from benchmarks.campaign import SMALL, Campaign, Sums, machine, quiet, scratch, size, verdict
from tests.fixtures.store import Templates
from tests.simulation.replay import Ground, seeds

GOAL_SEEDS, GOAL_OPERATIONS, GOAL_RACES = 10_000, 10**8, 20_000
STEPS = size("STEPS", 120, 60)
#: Each of so many is killed everywhere, in a life of so many steps.
EVERYWHERE, SHORT = 25, 3 if SMALL else 8
BATCH = 1 if SMALL else 5


def lives(first: int, count: int) -> Sums:
    """The lives number `first` and following, in a process of their own."""
    quiet()
    folder, begin = scratch(), time.process_time()
    try:
        ground = Ground(folder, Templates(folder))
        failures, points = asyncio.run(_live(ground, first, count))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sums = Sums(count, failures=failures)
    sums.numbers.update(
        lives=ground.runs,
        operations=ground.operations,
        crashes=ground.crashes,
        points=points,
        milliseconds=round((time.process_time() - begin) * 1000),
    )
    for kind in ("preparing", "extension", "promise", "scheduled", "expired", "cancelled", "idle"):
        sums.numbers[kind] += ground.counts[kind]
    sums.numbers.update({f"site {site}": number for site, number in ground.sites.items()})
    sums.numbers.update({f"struck {site}": number for site, number in ground.struck.items()})
    return sums


async def _live(ground: Ground, first: int, count: int) -> tuple[list[str], int]:
    failures, points = [], 0
    for number in range(first, first + count):
        [seed] = seeds(1, number)
        if number % EVERYWHERE == 0 or (SMALL and number == 2):
            found, times = await ground.everywhere(seed, range(1, SHORT + 1))
            points += times - 1
        else:
            found = await ground.run(seed, range(1, STEPS + 1))
        if found is not None:
            failures.append((await ground.shorten(seed, found)).report(seed))
    return failures, points


def main() -> int:
    quiet()
    print(machine())
    seconds = os.environ.get("SECONDS_MAX")
    campaign = Campaign("r1", lives, BATCH)
    sums = campaign.run(size("SEEDS", GOAL_SEEDS, 6), float(seconds) if seconds else None)
    tell(sums)
    raced = {}
    for name in os.environ.get("DATABASES", ",".join(races.databases())).split(","):
        raced[name] = race = races.run(name, size("RACES", GOAL_RACES, 100))
        print(
            f"races on {name}: {race.rounds}, won {race.wins[0]} to {race.wins[1]}, GPU held twice"
            f" {race.twice}; of {race.blind} that did not look the constraint refused one in"
            f" {race.refused}",
            flush=True,
        )
    wrong = len(sums.failures) + sum(r.twice + r.blind - r.refused for r in raced.values())
    fewest = min((race.rounds for race in raced.values()), default=0)
    sides, struck = struck_sides(sums)
    full = (
        struck == sides
        and sums.pieces >= GOAL_SEEDS
        and sums.numbers["operations"] >= GOAL_OPERATIONS
        and fewest >= GOAL_RACES
        and len(raced) == len(races.ALL)
    )
    shown = " ".join(f"races-{name}={race.rounds}" for name, race in raced.items())
    print(
        f"R1 violations={wrong} seeds={sums.pieces} operations={sums.numbers['operations']}"
        f" killed-at={len(struck)}/{len(sides)} sides of commits {shown} goal 0 in {GOAL_SEEDS}"
        f" seeds, {GOAL_OPERATIONS:.0e} operations, all sides, {GOAL_RACES} races each"
        f" {verdict(good=not wrong, full=full)}"
    )
    return 1 if wrong else 0


def struck_sides(sums: Sums) -> tuple[set[str], set[str]]:
    """Both sides of the commits at each place where transactions come from, and those of them at
    which the service was killed. Places of an earlier commit of this project that are gone by now
    are none."""
    sites = {
        name.removeprefix("site ")
        for name in sums.numbers
        if name.startswith("site ") and is_there(name.removeprefix("site "))
    }
    sides = {f"{side} {site}" for site in sites for side in ("before", "after")}
    return sides, {side for side in sides if sums.numbers[f"struck {side}"]}


def is_there(site: str) -> bool:
    """Whether there still is what a place is called after, as far as it can be seen: functions
    within functions cannot."""
    parts = site.split(".")
    for end in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:end])
        with suppress(ModuleNotFoundError):
            return hasattr(importlib.import_module(name), parts[end])
    return False


def tell(sums: Sums) -> None:
    """What the lives were like, and how long the full size would take."""
    n = sums.numbers
    for failure in sums.failures:
        print(failure)
    rate = n["operations"] / max(n["milliseconds"] / 1000, 0.001)
    print(
        f"{sums.pieces} seeds, {n['lives']} lives, {n['operations']} operations, {n['crashes']}"
        f" restarts after a kill, {n['points']} lives killed at a chosen commit;"
        f" {n['preparing']} leases begun, {n['extension']} extended, {n['expired']} expired,"
        f" {n['promise']} promises moved with a cause, {n['idle']} words on idleness"
    )
    sides, struck = struck_sides(sums)
    print(
        f"transactions come from {len(sides) // 2} places; killed at {len(struck)} of"
        f" {len(sides)} sides of them; not yet: {', '.join(sorted(sides - struck)[:8]) or '-'}"
    )
    print(
        f"{rate:.0f} operations per second of a core: {GOAL_OPERATIONS:.0e} take"
        f" {GOAL_OPERATIONS / rate / 3600:.0f} core hours; commits {sums.commits}"
    )


if __name__ == "__main__":
    sys.exit(main())
