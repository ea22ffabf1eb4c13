"""The calendar beside one that counts each moment: what is free when, and the first start."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from gpudev_service.planner.calendar import Calendar
from gpudev_service.planner.profiles import FOREVER, Profiles
from gpudev_service.planner.windows import MAX_NODES

SINCE, END = 3, 40
UNITS = (4, 4, 2, 8)
STEPS = 60


@dataclass
class Naive:
    """Free units by node and moment; from END on everything is free."""

    free: list[list[int]] = field(default_factory=lambda: [[n] * END for n in UNITS])
    open: list[bool] = field(default_factory=lambda: [True] * len(UNITS))

    def change(self, node: int, start: int, end: int, by: int) -> None:
        for at in range(max(start, SINCE), end):
            self.free[node][at] += by

    def at(self, node: int, moment: int) -> int:
        return self.free[node][moment] if moment < END else UNITS[node]

    def has(self, node: int, units: int, start: int, end: int) -> bool:
        return all(self.at(node, moment) >= units for moment in range(start, end))

    def fitting(self, among: Iterable[int], units: int, start: int, end: int) -> list[int]:
        """Which of the nodes are open and have room."""
        return [n for n in among if self.open[n] and self.has(n, units, start, end)]

    def find(
        self, count: int, units: int, duration: int, earliest: int, before: int, among: set[int]
    ) -> int | None:
        for start in range(earliest, min(before, END + 1)):
            if len(self.fitting(among, units, start, start + duration)) >= count:
                return start
        return None


def spans(rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(END - 1)
    return start, rng.randrange(start, END)


@pytest.mark.parametrize("seed", range(8))
def test_profiles_say_what_is_free_at_each_moment(seed: int) -> None:
    rng = random.Random(seed)
    profiles, naive = Profiles(SINCE, UNITS), Naive()
    for _ in range(STEPS):
        node = rng.randrange(len(UNITS))
        start = rng.randrange(SINCE, END - 1)
        end, by = rng.randrange(start + 1, END), rng.choice((-3, -1, 1, 2))
        before = profiles.change(node, start, end, by)
        found = {naive.at(node, moment) for moment in range(start, end)}
        assert set(before) == found
        naive.change(node, start, end, by)
        # One step for each change of what is free, and none besides.
        counts = [naive.at(node, moment) for moment in range(SINCE, END + 1)]
        steps = [SINCE + at for at in range(1, len(counts)) if counts[at] != counts[at - 1]]
        assert profiles.times[node] == [SINCE, *steps]
        assert profiles.free[node] == [naive.at(node, t) for t in (SINCE, *steps)]
        units, (low, high) = rng.randrange(1, 9), sorted(rng.sample(range(SINCE, END + 5), 2))
        assert profiles.has(node, units, low, high) == naive.has(node, units, low, high)
        told = {
            moment: free
            for since, until, free in profiles.steps(node, low, high)
            for moment in range(since, until)
        }
        assert told == {moment: naive.at(node, moment) for moment in range(low, high)}
        assert profiles.free_since(node, units, low) == min(
            moment for moment in range(SINCE, low + 1) if naive.has(node, units, moment, low)
        )
        least = rng.randrange(1, 6)
        edges = profiles.spans(node, units, least, low, high)
        assert edges == _spans(naive, node, units, least, low, high)


def _spans(naive: Naive, node: int, units: int, least: int, low: int, high: int) -> list[int]:
    edges: list[int] = []
    start = low
    while start < high:
        end = start
        while end < high and naive.at(node, end) >= units:
            end += 1
        if end > start and end - start >= least:
            edges += [start, end]
        start = end + 1
    return edges


class Both:
    """A calendar and what it is compared with: the same happens to the two."""

    def __init__(self) -> None:
        self.calendar, self.naive = Calendar(SINCE, UNITS, [True] * len(UNITS)), Naive()
        self._taken: list[tuple[list[int], int, int, int]] = []

    def happens(self, rng: random.Random, *, gives: float, nodes: int, units: int) -> None:
        """Something is given back, with the chance `gives`, or taken: up to so many nodes and units
        of each; and sometimes a node is opened or closed."""
        if self._taken and rng.random() < gives:
            numbers, start, end, change = self._taken.pop(rng.randrange(len(self._taken)))
            self.calendar.give(numbers, start, end, change)
        else:
            numbers = rng.sample(range(len(UNITS)), rng.randrange(1, nodes + 1))
            (start, end), change = spans(rng), rng.randrange(1, units + 1)
            self.calendar.take(numbers, start, end, change)
            self._taken.append((numbers, start, end, change))
            change = -change
        for number in numbers:
            self.naive.change(number, start, end, change)
        if rng.random() < 0.15:
            number = rng.randrange(len(UNITS))
            self.naive.open[number] = not self.naive.open[number]
            self.calendar.set_open(number, self.naive.open[number])


@pytest.mark.parametrize("seed", range(16))
def test_a_search_finds_the_first_start_that_there_is(seed: int) -> None:
    rng = random.Random(seed)
    both = Both()
    calendar, naive = both.calendar, both.naive
    subset = frozenset({0, 2, 3})
    for _ in range(STEPS):
        both.happens(rng, gives=0.4, nodes=2, units=3)
        for _ in range(3):
            count, units = rng.choice((1, 1, 2, 3)), rng.randrange(1, 5)
            duration = rng.randrange(1, 14)
            calendar.expect(duration)
            earliest = rng.randrange(SINCE, END)
            before = rng.choice((FOREVER, rng.randrange(earliest + 1, END + 2)))
            among = rng.choice((None, subset))
            found = calendar.find(count, units, duration, earliest, before, among=among)
            places = set(range(len(UNITS)) if among is None else among)
            start_found = None if found is None else found[0]
            assert start_found == naive.find(count, units, duration, earliest, before, places)
            if found is not None:
                assert len(set(found[1])) == count
                assert set(found[1]) <= places
                assert calendar.fits(found[1], found[0], found[0] + duration, units)
                assert all(naive.open[node] for node in found[1])


@pytest.mark.parametrize("seed", range(16))
def test_of_the_nodes_with_room_each_is_told_once(seed: int) -> None:
    rng = random.Random(seed)
    both = Both()
    calendar, naive = both.calendar, both.naive
    calendar.expect(1)
    for _ in range(STEPS):
        both.happens(rng, gives=0.4, nodes=2, units=3)
        for _ in range(3):
            units, duration = rng.randrange(1, 5), rng.randrange(1, 14)
            start, count = rng.randrange(SINCE, END), rng.randrange(1, 6)
            fitting = naive.fitting(range(len(UNITS)), units, start, start + duration)
            found = calendar.room_at(start, units, duration, count)
            assert len(found) == len(set(found)) == min(count, len(fitting))
            assert set(found) <= set(fitting)


@pytest.mark.parametrize("seed", range(16))
def test_whoever_has_a_slot_may_move_up_within_it(seed: int) -> None:
    """As though it had been given back: with what is free before it, one start is the first."""
    rng = random.Random(seed)
    both = Both()
    calendar, naive = both.calendar, both.naive
    calendar.expect(1)
    earlier = 0
    for _ in range(STEPS):
        both.happens(rng, gives=0.4, nodes=2, units=3)
        count, units = rng.choice((1, 2, 2, 3)), rng.randrange(1, 4)
        start = rng.randrange(SINCE + 1, END - 1)
        end = rng.randrange(start + 1, END)
        fitting = naive.fitting(range(len(UNITS)), units, start, end)
        if len(fitting) < count:
            continue
        nodes = rng.sample(fitting, count)
        calendar.take(nodes, start, end, units)
        earliest = rng.randrange(SINCE, start)
        own = calendar.freed_by(nodes, start, end, units)
        found = calendar.find(count, units, end - start, earliest, start, own)
        places = set(range(len(UNITS)))
        first = naive.find(count, units, end - start, earliest, start, places)
        assert (None if found is None else found[0]) == first
        earlier += first is not None
        calendar.give(nodes, start, end, units)
        if found is not None:
            assert len(set(found[1])) == count
            assert calendar.fits(found[1], found[0], found[0] + end - start, units)
    assert earlier >= 3


@pytest.mark.parametrize("seed", range(16))
def test_nothing_starts_before_what_is_said_to_be_the_soonest(seed: int) -> None:
    rng = random.Random(seed)
    both = Both()
    calendar, naive = both.calendar, both.naive
    calendar.expect(1)
    exact = 0
    for _ in range(STEPS):
        both.happens(rng, gives=0.5, nodes=4, units=8)
        units, duration = rng.randrange(1, 5), rng.randrange(1, 14)
        first = naive.find(1, units, duration, SINCE, FOREVER, set(range(len(UNITS))))
        first_start = FOREVER if first is None else first
        soonest = calendar.soonest(units, duration)
        assert soonest <= first_start
        exact += soonest == first_start
        if rng.random() < 0.5:  # what a search finds out counts at once
            calendar.find(1, units, duration, SINCE)
    assert exact > STEPS / 4


def test_fits_asks_every_node_for_the_whole_span() -> None:
    calendar = Calendar(0, (2, 2, 2), (True, True, False))
    calendar.take([1], 5, 9, 1)
    assert calendar.fits([0], 0, 99, 2)
    assert not calendar.fits([2], 0, 1, 1)
    assert not calendar.fits([0, 2], 0, 1, 1)
    assert calendar.fits([0, 1], 0, 5, 2)
    assert not calendar.fits([0, 1], 0, 6, 2)
    assert calendar.fits([0, 1], 0, 6, 1)
    assert calendar.fits([1], 9, 10, 2)
    assert not calendar.fits([1], 8, 10, 2)


def test_what_is_over_takes_and_gives_nothing() -> None:
    calendar = Calendar(10, (2,), (True,))
    calendar.take([0], 4, 10, 2)
    calendar.give([0], 4, 10, 2)
    calendar.take([0], 12, 12, 2)
    assert (calendar.profiles.times, calendar.profiles.free) == ([[10]], [[2]])
    calendar.take([0], 4, 11, 2)
    assert (calendar.profiles.times, calendar.profiles.free) == ([[10, 11]], [[0, 2]])
    calendar.give([0], 4, 11, 2)
    assert (calendar.profiles.times, calendar.profiles.free) == ([[10]], [[2]])


def test_a_slot_may_begin_in_the_room_that_its_own_end_would_give() -> None:
    calendar = Calendar(0, (1, 1), (True, True))
    calendar.take([0], 4, 10, 1)
    calendar.take([1], 0, 30, 1)
    assert calendar.freed_by((0, 1), 4, 10, 1) == {0: (0, 10, 0)}
    assert calendar.find(1, 1, 6, 2, 4) is None
    own = calendar.freed_by((0,), 4, 10, 1)
    assert calendar.find(1, 1, 6, 2, 4, own) == (2, (0,))
    assert calendar.find(1, 1, 9, 2, 4, own) is None
    assert calendar.find(1, 1, 7, 3, 4, own) == (3, (0,))
    assert calendar.find(1, 1, 8, 3, 4, own) is None
    assert calendar.find(1, 1, 9, 2, own=own) == (10, (0,))


def test_a_pool_has_no_more_nodes_than_a_key_can_name() -> None:
    assert MAX_NODES == 65_536
    Calendar(0, [1] * MAX_NODES, [True] * MAX_NODES)
    with pytest.raises(ValueError, match=f"at most {MAX_NODES} nodes"):
        Calendar(0, [1] * (MAX_NODES + 1), [True] * (MAX_NODES + 1))
