"""A verdict is of the full size, or says that it is not."""

from __future__ import annotations

import pytest

from benchmarks import p3, p4, r1, r4
from benchmarks.campaign import Sums

SITE = "gpudev_service.operations.reservations._submit.work"


def test_a_commit_at_which_nobody_was_killed_is_told() -> None:
    sums = Sums()
    sums.numbers.update({f"site {SITE}": 3, f"struck before {SITE}": 1})
    assert r1.struck_sides(sums) == ({f"before {SITE}", f"after {SITE}"}, {f"before {SITE}"})
    sums.numbers.update({f"struck after {SITE}": 1})
    sides, struck = r1.struck_sides(sums)
    assert sides == struck


def test_a_commit_of_code_that_is_gone_is_not_missed() -> None:
    for name in ("reservations._before_it_was_renamed.work", "gone.run.work"):
        assert not r1.is_there(f"gpudev_service.operations.{name}")
    sums = Sums()
    sums.numbers.update({f"site {SITE}_": 1, "site gpudev_service.gone.run": 1})
    assert r1.struck_sides(sums)[0] == {f"before {SITE}_", f"after {SITE}_"}


@pytest.mark.parametrize(
    ("worst", "size", "says"),
    [
        (r4.GOAL, r4.FULL, "met"),
        (r4.GOAL, (r4.FULL[0] - 1, r4.FULL[1]), "missed (within, in this size)"),
        (r4.GOAL, (r4.FULL[0], r4.FULL[1] - 1), "missed (within, in this size)"),
        (r4.GOAL + 0.1, r4.FULL, "missed"),
    ],
)
def test_leases_that_ended_in_time_must_be_enough(
    worst: float, size: tuple[int, int], says: str
) -> None:
    assert r4.judged(worst, *size) == says


def test_events_and_watchers_are_of_the_full_size() -> None:
    full = [*p3.FULL, p3.FULL[0], p3.STREAMS]
    assert p3.is_full(*full)
    for at in range(len(full)):
        smaller = [*full]
        smaller[at] -= 1
        assert not p3.is_full(*smaller)


def test_no_database_and_no_peer_is_left_out() -> None:
    within = {name: (rate, p4.GOAL_P99) for name, rate in p4.GOALS.items()}
    assert p4.is_good(within, peer=min(p4.GOALS.values()))
    assert not p4.is_good(within, peer=None)
    assert not p4.is_good(within, peer=max(p4.GOALS.values()))
    assert not p4.is_good(within | {"sqlite": (1e6, p4.GOAL_P99 + 0.001)}, peer=1.0)
