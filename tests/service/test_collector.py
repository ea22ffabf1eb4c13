"""What the garbage collector looks at while the service serves."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from gpudev_service.server import leave_alone_what_stays


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_what_is_there_by_then_is_looked_at_no_more() -> None:
    stays: list[object] = [[]]
    before = gc.get_threshold()
    leave_alone_what_stays()
    assert gc.get_freeze_count() > 1000
    assert not any(one is stays for one in gc.get_objects())
    assert gc.get_threshold() == (5_000, *before[1:])


def test_what_comes_later_and_refers_to_itself_is_still_taken_back() -> None:
    leave_alone_what_stays()
    there = len(gc.get_objects())
    for _ in range(20_000):
        circle: list[object] = []
        circle.append(circle)
    assert len(gc.get_objects()) < there + 10_000
