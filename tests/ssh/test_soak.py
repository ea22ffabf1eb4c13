"""The soak at its everyday size: logins and pages that end well or not at all leave nothing."""

from __future__ import annotations

import pytest

from benchmarks import soak, soak_counts


@pytest.mark.ssh
@pytest.mark.hub
@pytest.mark.timeout(280)
def test_nothing_is_left_of_many_people() -> None:
    with soak.Place() as place:
        found = soak.soak(place, 10, minute=10)
    assert (found.logins, found.pages) >= (10, 10)
    assert found.killed >= 3
    assert found.echoed > 0
    assert found.left == {}
    assert found.dropped == []
    assert found.held.keys() == found.drift.keys() == {"hub", "proxy", "service", "server"}
    assert found.held["proxy"][-1] < found.course["proxy"][-1]


def test_the_drift_is_that_of_the_time_after_the_warm_up() -> None:
    """A cache of 50 MB fills at first; then a megabyte comes every six minutes."""
    samples = {
        float(at): {"server": 100 + min(at, 600) / 12 + at / 360, "proxy": 60.0}
        for at in range(0, 7200, 5)
    }
    found = soak_counts.drift(samples, warm=600, sizes=samples)
    assert found["proxy"] == 0
    assert found["server"] == pytest.approx(10 / (150 + (7200 + 600) / 2 / 360), rel=0.01)


def test_the_drift_of_what_is_held_is_a_share_of_the_whole_size() -> None:
    held = {float(at): {"proxy": 10 + at / 3600} for at in range(0, 7200, 450)}
    sizes = {float(at): {"proxy": 100.0} for at in range(0, 7200, 5)}
    assert soak_counts.drift(held, warm=1800, sizes=sizes) == {"proxy": pytest.approx(0.01)}


def test_the_course_is_by_eighths_of_the_time() -> None:
    samples = {float(at): {"proxy": 60.0 + at // 10} for at in range(0, 80, 5)}
    assert soak_counts.course(samples, 80.0) == {"proxy": [60.0 + step for step in range(8)]}


def test_what_is_left_is_what_there_is_more_of() -> None:
    before = {"server": {"sockets": 3, "children": 1, "task A.run": 1}, "hub": {"files": 9}}
    after = {"server": {"sockets": 5, "children": 0, "task B.run": 1}, "hub": {"files": 9}}
    assert soak_counts.more(before, after) == {"server sockets": 2, "server task B.run": 1}
