"""The world in which the service's events are measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from benchmarks import events_in_service, planner_queues
from benchmarks.planner_queues import NOW, queue
from gpudev_service.planner import plan
from gpudev_service.store.engine import Store


@pytest.mark.parametrize("labels", [False, True])
async def test_nobody_waits_to_whom_no_start_can_be_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: bool
) -> None:
    """With one such in the queue every event would be planned from all rows."""
    monkeypatch.setattr(planner_queues, "LABELS", labels)
    url = f"sqlite+aiosqlite:///{tmp_path / 'gpudev.sqlite'}"
    given = queue(2000, 200)
    without = plan(given.nodes, given.holds, given.demands, given.rules, NOW).impossible
    assert without
    await events_in_service.fill(url, 2000, 200)
    store = Store(url)
    async with store.reading() as session:
        counted = text("SELECT count(*) FROM reservations WHERE starts_at IS NULL")
        assert await session.scalar(counted) == 2000 - len(without)
        labelled = text("SELECT count(*) FROM reservations WHERE node_labels LIKE '{%'")
        asks = len(given.labels.keys() - without.keys())
        assert await session.scalar(labelled) == asks
        assert (asks > 0) is labels
    await store.close()
