"""Planted holes: each class known in this field, with the tests that notice it; and hostile names.

Each hole is planted into a copy of the tree, where the tests that are to notice it must fail by
their assertions, as they pass without it. A million names go through what makes ids, paths,
commands, configuration and markup of them; a sample through a real shell, `ssh` and Chromium.
`HOLES=xss,xsrf/cookies-believed` plants only those; `NAMES`, `SEED` and `WORKERS` change the rest.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from queue import SimpleQueue

from benchmarks.campaign import SMALL, machine, size, verdict
from benchmarks.ssh_peers import here
from tests.holes.catalogue import CLASSES, Hole, holes
from tests.holes.hostile import Names, names
from tests.holes.planting import Copy, Verdict, judge

GOAL_NAMES = 1_000_000
NAMES = size("NAMES", GOAL_NAMES, 20_000)
SEED = int(os.environ.get("SEED", "1"))
WORKERS = int(os.environ.get("WORKERS") or os.cpu_count() or 1)
PIECE = 10_000
#: Planted in the small size.
SAMPLE = 8
PROGRAMS = "tests/holes/test_hostile_programs.py"
TOKENS = (
    "tests/api/test_logs.py",
    "tests/api/test_handler.py::test_every_request_is_one_line_without_secrets",
    "tests/api/test_handler.py::test_a_token_in_the_address_is_refused",
    "tests/client/test_transport.py::test_tokens_are_in_no_representation",
    "tests/ssh/test_hub.py::test_the_door_is_shut_before_the_upgrade",
)


def chosen() -> list[Hole]:
    kinds = os.environ.get("HOLES")
    if kinds:
        wanted = set(kinds.split(","))
        return [hole for hole in holes() if {hole.kind, str(hole)} & wanted]
    if SMALL:
        quick = [hole for hole in holes() if hole.quick]
        return random.Random(SEED).sample(quick, SAMPLE)
    return list(holes())


def plant(given: list[Hole]) -> tuple[list[Verdict], list[str]]:
    """What became of each hole, and what of the tests does not pass without any."""
    copies: SimpleQueue[Copy] = SimpleQueue()
    with Copy() as first, Copy() as second:
        tests = sorted({test for hole in given for test in hole.tests} | {PROGRAMS, *TOKENS})
        before = [one for one in first.run(tests) if one.how != "passed"]
        for copy in (first, second):
            copies.put(copy)

        def one(hole: Hole) -> Verdict:
            copy = copies.get()
            try:
                verdict = judge(hole, copy)
            finally:
                copies.put(copy)
            for line in (*verdict.wrong, *verdict.skipped):
                print(f"{hole}: {line}", flush=True)
            return verdict

        with ThreadPoolExecutor(min(2, WORKERS)) as pool:
            verdicts = list(pool.map(one, given))
    return verdicts, [f"{one.test} {one.how} {one.reason}" for one in before]


def look(first: int) -> tuple[Names, list[str]]:
    """Looks at one piece of the names."""
    looking, found, before = Names(), [], "x"
    for name in names(SEED * 1_000_003 + first, PIECE):
        found += looking.look(name, before)
        before = name
    return looking, found[:20]


def look_at_all() -> tuple[Names, list[str]]:
    """All names, and what is wrong with them; collisions are sought over all."""
    whole, wrong = Names(), []
    with ProcessPoolExecutor(WORKERS) as pool:
        for looking, found in pool.map(look, range(0, NAMES, PIECE)):
            whole.merge(looking)
            wrong += found
    return whole, wrong


def main() -> int:
    here()
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    begin = time.monotonic()
    given = chosen()
    verdicts, before = plant(given)
    caught = Counter(verdict.hole.kind for verdict in verdicts if verdict.caught)
    of = Counter(hole.kind for hole in given)
    print(
        f"{len(given)} holes planted in {time.monotonic() - begin:.0f} s:"
        f" {', '.join(f'{kind} {caught[kind]}/{of[kind]}' for kind in sorted(of))};"
        f" without holes {len(before)} of the tests named there, of those about tokens and of those"
        " with real programs do not pass",
        flush=True,
    )
    begin = time.monotonic()
    whole, wrong = look_at_all()
    collisions = whole.collisions()
    for line in (*before, *wrong[:20], *collisions):
        print(line.encode("ascii", "backslashreplace").decode())
    print(f"{whole.asked} names in {time.monotonic() - begin:.0f} s")
    sound = not (before or wrong or collisions) and caught.total() == len(given)
    full = set(of) == CLASSES and len(given) == len(holes()) and whole.asked >= GOAL_NAMES
    print(
        f"R11 holes={caught.total()}/{len(given)} classes={len(of)}/{len(CLASSES)}"
        f" names={whole.asked} collisions={len(collisions)} effects={len(wrong)}"
        f" goal 100% of {len(CLASSES)} classes, 0 in {GOAL_NAMES} names, 0 tokens told"
        f" {verdict(good=sound, full=full)}"
    )
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
