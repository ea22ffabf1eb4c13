"""The planner's nodes are made again only where something about them is different."""

from __future__ import annotations

from gpudev_service.fleet import PlannerNodes
from gpudev_service.planner import Node
from gpudev_service.settings import GpuTypeSpec, NodeSpec

T4 = {"t4": GpuTypeSpec(name="t4", gpus_per_node=4, cpus=48, memory_gb=192)}
FLEET = (NodeSpec(name="a", gpu_type="t4"), NodeSpec(name="b", gpu_type="t4", units=3))
NOBODY: frozenset[str] = frozenset()


def nodes(
    made: PlannerNodes,
    fleet: tuple[NodeSpec, ...] = FLEET,
    types: dict[str, GpuTypeSpec] = T4,
    drained: frozenset[str] = NOBODY,
) -> list[Node]:
    return [node for _, node in made.by_type(fleet, types, drained)["t4"]]


def test_a_fleet_that_is_the_same_has_the_same_nodes() -> None:
    made = PlannerNodes()
    first = nodes(made)
    assert first == [Node("a", "t4", 4), Node("b", "t4", 3)]
    assert all(one is other for one, other in zip(first, nodes(made), strict=True))


def test_one_that_has_changed_is_made_anew_and_no_other() -> None:
    made = PlannerNodes()
    first = nodes(made)
    broken = FLEET[1].model_copy(update={"ready": False})
    second = nodes(made, (FLEET[0], broken))
    assert second == [first[0], Node("b", "t4", 3, available=False)]
    assert second[0] is first[0]


def test_nodes_that_come_and_go() -> None:
    made = PlannerNodes()
    nodes(made)
    assert nodes(made, FLEET[:1]) == [Node("a", "t4", 4)]
    assert nodes(made, FLEET) == [Node("a", "t4", 4), Node("b", "t4", 3)]


def test_what_operators_drain_is_closed_until_they_open_it() -> None:
    made = PlannerNodes()
    assert [node.available for node in nodes(made, drained=frozenset({"a"}))] == [False, True]
    assert [node.available for node in nodes(made)] == [True, True]


def test_a_type_of_another_size_has_other_nodes() -> None:
    made = PlannerNodes()
    nodes(made)
    larger = {"t4": T4["t4"].model_copy(update={"gpus_per_node": 8})}
    assert [node.units for node in nodes(made, types=larger)] == [8, 3]


def test_an_unknown_type_takes_no_nodes_of_others() -> None:
    assert "h100" not in PlannerNodes().by_type(FLEET, T4, NOBODY)
