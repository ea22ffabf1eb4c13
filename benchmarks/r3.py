"""Promises: nobody starts later than first promised, but for causes that are named.

Seeded histories of the planner with early ends, extensions, bookings, drains, cancellations, late
servers and a service that is away; every fifth asks the planner as the service does, everything
anew at each event. A ledger that shares nothing with the planner judges. The whole service, with
its database and its loops, is held to the same by `make r1`.

`RESERVATIONS`, `WORKERS`, `STATE=FILE` and `SECONDS_MAX` are those of `make r1`.
"""

from __future__ import annotations

import os
import sys
import time

from benchmarks.campaign import SMALL, Campaign, Sums, machine, size
from tests.simulation.promises import Broken, History

GOAL = 10**6
EACH = 500
STATELESS = 5
BATCH = 2 if SMALL else 20


def histories(first: int, count: int) -> Sums:
    sums, begin = Sums(count), time.process_time()
    for seed in range(first, first + count):
        try:
            ledger = History(seed, EACH, stateless=seed % STATELESS == 0).run()
        except Broken as broken:
            sums.failures.append(f"seed {seed}: {shortest(seed, broken)}")
            continue
        sums.numbers += ledger.counts
    sums.numbers["milliseconds"] += round((time.process_time() - begin) * 1000)
    return sums


def shortest(seed: int, broken: Broken) -> str:
    """The shortest history of the seed that fails, and how to see it again."""
    stateless = seed % STATELESS == 0
    low, high = 1, EACH
    while low < high:
        middle = (low + high) // 2
        try:
            History(seed, middle, stateless).run()
            low = middle + 1
        except Broken as found:
            broken, high = found, middle
    return (
        f"{broken}; again with .venv/bin/python -c 'from tests.simulation.promises import History;"
        f" History({seed}, {high}, {stateless}).run()'"
    )


def main() -> int:
    print(machine())
    wanted = size("RESERVATIONS", GOAL, 3_000)
    seconds = os.environ.get("SECONDS_MAX")
    campaign = Campaign("r3", histories, BATCH)
    sums = campaign.run(-(-wanted // EACH), float(seconds) if seconds else None)
    n = sums.numbers
    for failure in sums.failures:
        print(failure)
    causes = {k.removeprefix("cause "): v for k, v in sorted(n.items()) if k.startswith("cause ")}
    requests = n["accepted"] + n["refused"]
    print(
        f"{sums.pieces} histories, {requests} requests, {n['refused']} refused at once,"
        f" {n['cancelled']} cancelled, {n['starts']} started, {n['extended']} extended,"
        f" {n['drains']} drains; {n['later with a cause']} later than first promised, each with a"
        f" cause; causes named: {causes}"
    )
    each = n["milliseconds"] / max(requests, 1)
    print(
        f"{each:.2f} ms of a core per request: {GOAL:.0e} take {GOAL * each / 3.6e6:.1f} core"
        f" hours; commits {sums.commits}"
    )
    wrong = len(sums.failures)
    full = requests >= GOAL
    print(
        f"R3 later-without-cause={wrong} reservations={requests} goal 0 in {GOAL:.0e}"
        f" {'met' if full and not wrong else 'missed'}"
        f"{'' if full or wrong else ' (none in this size)'}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
