"""Streams that say nothing have not said it quickly."""

from benchmarks.p3 import GOAL_WATCHERS
from benchmarks.watchers import Kind, told


def test_no_message_is_not_within_the_goal() -> None:
    assert not told({}).within(GOAL_WATCHERS)
    assert not told({"arrival": Kind([0.01], [0])}).within(GOAL_WATCHERS)


def test_one_missing_message_is_too_few() -> None:
    kind = Kind([0.01], [9], missing=1, after=[0.0] * 9)
    assert not told({"arrival": kind}).within(GOAL_WATCHERS)


def test_all_of_them_and_in_time() -> None:
    kind = Kind([0.01], [10], after=[0.001] * 9 + [GOAL_WATCHERS])
    assert told({"arrival": kind}).within(GOAL_WATCHERS)
    assert not told({"arrival": Kind([0.01], [1], after=[0.2])}).within(GOAL_WATCHERS)
