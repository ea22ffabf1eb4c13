"""Traces that are made up: repeatable, as busy as asked for, and shaped like people's weeks."""

from __future__ import annotations

import pytest

from gpudev_service.simulate import synthetic

DAY = 86_400


def test_a_seed_always_makes_the_same_trace() -> None:
    one = synthetic.make(0.5, 4, 8, days=7, seed=3)
    assert one == synthetic.make(0.5, 4, 8, days=7, seed=3)
    assert one.jobs != synthetic.make(0.5, 4, 8, days=7, seed=4).jobs


@pytest.mark.parametrize("load", synthetic.LOADS.values())
def test_the_load_is_what_was_asked_for(load: float) -> None:
    jobs = synthetic.make(load, 16, 8, days=14).jobs
    used = sum((job.run_s or 0) * (job.gpus or 0) for job in jobs)
    assert used / (16 * 8 * 14 * DAY) == pytest.approx(load, rel=0.02)


def test_people_ask_by_day_on_working_days_and_end_early() -> None:
    jobs = synthetic.make(0.85, 16, 8, days=28).jobs
    by_day = [job for job in jobs if 8 <= job.submit_s % DAY / 3600 < 18]
    assert len(by_day) > len(jobs) / 2
    weekend = [job for job in jobs if job.submit_s // DAY % 7 >= 5]
    assert len(weekend) < len(jobs) / 6
    early = [job for job in jobs if (job.run_s or 0) < (job.requested_s or 0)]
    assert len(jobs) / 2 < len(early) < len(jobs)


def test_gangs_are_whole_nodes_and_leave_room_for_others() -> None:
    gangs = {job.gpus or 0 for job in synthetic.make(0.85, 16, 8).jobs if (job.gpus or 0) > 8}
    assert gangs == {16, 24, 32}
    assert max(job.gpus or 0 for job in synthetic.make(0.85, 2, 4).jobs) == 4, "a small fleet"
