"""The queues of the benchmarks have every rule of the planner, each as often as is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import planner_queues
from benchmarks.planner_queues import NARROW, NOW, PARTS, labels_of, queue
from gpudev_service.planner import Demand, plan

with pytest.MonkeyPatch.context() as _patch:
    _patch.setattr(planner_queues, "LABELS", True)
    GIVEN = queue(4_000, 100)


def test_every_field_of_a_demand_is_in_use() -> None:
    """`promise` is what the plan gives. There is one pool: they do not touch each other."""
    used = {
        name
        for name in Demand.__dataclass_fields__
        if len({getattr(demand, name) for demand in GIVEN.demands}) > 1
    }
    assert Demand.__dataclass_fields__.keys() - used == {"pool", "promise"}


def test_some_are_for_the_nodes_with_a_label() -> None:
    narrowed = {demand.id: demand.among for demand in GIVEN.demands if demand.among is not None}
    assert narrowed.keys() == GIVEN.labels.keys()
    assert 0.8 < len(narrowed) * NARROW / len(GIVEN.demands) < 1.2
    assert len(set(narrowed.values())) == sum(PARTS.values())
    for key, among in narrowed.items():
        wanted = GIVEN.labels[key].items()
        with_it = {
            node.name for at, node in enumerate(GIVEN.nodes) if wanted <= labels_of(at).items()
        }
        assert among == with_it


def test_they_are_planned_there() -> None:
    slots = plan(GIVEN.nodes, GIVEN.holds, GIVEN.demands, GIVEN.rules, NOW).slots
    placed = [demand for demand in GIVEN.demands if demand.among and demand.id in slots]
    assert len(placed) > len(GIVEN.labels) / 2
    assert all(
        demand.among and demand.among.issuperset(slots[demand.id].nodes) for demand in placed
    )


def test_labels_change_nothing_else() -> None:
    without = queue(4_000, 100)
    assert without.labels == {}
    assert without.demands == [replace(demand, among=None) for demand in GIVEN.demands]
    assert (without.nodes, without.holds) == (GIVEN.nodes, GIVEN.holds)
