"""The spans of free time beside a plain list of them: whichever is asked, the same is found."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from gpudev_service.planner.holes import NODE_BITS, Holes, Window
from gpudev_service.planner.profiles import FOREVER

#: More than several chunks hold.
NODES, LATEST, LONGEST = 12, 400, 70
STEPS = 1_500


class Naive:
    """A list that is read from its beginning."""

    def __init__(self) -> None:
        self.spans: set[Window] = set()

    def all(self, duration: int, earliest: int) -> list[Window]:
        """By start and node."""
        found = (
            span
            for span in self.spans
            if span[1] - span[0] >= duration and span[1] >= earliest + duration
        )
        return sorted(found, key=lambda span: (span[0], span[2]))

    def first(self, duration: int, earliest: int, before: int) -> tuple[int, int] | None:
        found = [w for w in self.all(duration, earliest) if w[0] < before]
        return (found[0][0], found[0][2]) if found else None

    def soonest(self, duration: int) -> int:
        """As `Holes.soonest` says: by the number of bits."""
        bits = duration.bit_length()
        starts = [start for start, end, _ in self.spans if (end - start).bit_length() >= bits]
        return min(starts, default=FOREVER)


def span(rng: random.Random) -> Window:
    start = rng.randrange(LATEST)
    return start, start + rng.randrange(1, LONGEST), rng.randrange(NODES)


def filled(rng: random.Random, count: int) -> tuple[Holes, Naive]:
    """Some spans, no two with the same start and node."""
    naive = Naive()
    by_key = {(start, node): end for start, end, node in (span(rng) for _ in range(count))}
    naive.spans = {(start, end, node) for (start, node), end in by_key.items()}
    keys = sorted((s << NODE_BITS | node, end - s) for s, end, node in naive.spans)
    return Holes(keys), naive


def change(rng: random.Random, holes: Holes, naive: Naive, *, adds: float) -> None:
    """One span comes, with the chance `adds`, or goes."""
    start, end, node = span(rng)
    there = {(s, n) for s, _, n in naive.spans}
    if (rng.random() < adds or not naive.spans) and (start, node) not in there:
        holes.add(start, end, node)
        naive.spans.add((start, end, node))
    elif naive.spans:
        start, end, node = rng.choice(sorted(naive.spans))
        holes.discard(start, node)
        naive.spans.remove((start, end, node))


@pytest.mark.parametrize("seed", range(6))
def test_a_search_finds_what_reading_them_all_finds(seed: int) -> None:
    rng = random.Random(seed)
    holes, naive = filled(rng, rng.choice((0, 1, 64, 65, 300)))
    for step in range(STEPS):
        # It grows to some hundreds, shrinks to none, and grows again.
        change(rng, holes, naive, adds=0.9 if step // 400 % 2 == 0 else 0.05)
        duration, earliest = rng.randrange(1, LONGEST + 5), rng.randrange(LATEST)
        before = rng.choice((earliest + 1, earliest + rng.randrange(1, 90), FOREVER))
        assert holes.first(duration, earliest, before) == naive.first(duration, earliest, before)
        assert holes.soonest(duration) == naive.soonest(duration)
        if step % 5 == 0:
            found = list(holes.all(duration, earliest))
            assert found == naive.all(duration, earliest)
            assert all(a[0] <= b[0] for a, b in pairwise(found))


def test_the_soonest_is_told_by_the_bits_of_what_is_asked() -> None:
    """Four to seven are one kind: a span of four may hold seven, and a search says that it does
    not; one of three cannot."""
    holes = Holes([(10 << NODE_BITS, 3), (20 << NODE_BITS, 4), (30 << NODE_BITS, 8)])
    assert [holes.soonest(n) for n in (1, 2, 3, 4, 7, 8, 15, 16)] == [
        *(10, 10, 10),
        *(20, 20),
        *(30, 30),
        FOREVER,
    ]


def test_the_soonest_is_still_right_when_spans_come_and_go() -> None:
    holes = Holes([(20 << NODE_BITS, 4)])
    assert holes.soonest(4) == 20
    holes.add(5, 8, 0)  # too short
    assert holes.soonest(4) == 20
    holes.add(7, 11, 0)
    assert holes.soonest(4) == 7
    holes.add(7, 10, 1)
    holes.discard(7, 1)
    assert holes.soonest(4) == 7
    holes.discard(7, 0)
    assert holes.soonest(4) == 20
    holes.discard(20, 0)
    assert holes.soonest(4) == FOREVER
