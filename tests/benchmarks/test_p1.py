"""A plan with promises is measured as well as one without."""

from benchmarks.p1 import GOAL_10K, promised, within
from benchmarks.planner_queues import NOW, queue
from gpudev_service.planner import plan


def test_all_who_have_a_start_are_asked_again_with_their_promise() -> None:
    given = queue(200, 20)
    again = promised(given)
    seated = plan(given.nodes, given.holds, given.demands, given.rules, NOW).slots
    assert seated
    assert {each.id: each.promise for each in again.demands if each.promise} == seated
    assert len(again.holds) < len(given.holds)
    later = plan(again.nodes, again.holds, again.demands, again.rules, NOW).slots
    assert all(later[key].start_ms <= slot.start_ms for key, slot in seated.items())


def test_the_goal_holds_for_the_slower_one() -> None:
    assert within({5_000: 0.1, 10_000: GOAL_10K / 1.25})
    assert not within({5_000: GOAL_10K * 0.6, 10_000: GOAL_10K * 1.1})
