"""What a Kubernetes node has to give: cordons, taints, broken GPUs, and what others use."""

from __future__ import annotations

from typing import Any

import pytest

from gpudev_service.fleet.parts import Kind, overhead, parts, resolved, tolerates, usual
from gpudev_service.kube.objects import Taint, node_reader, pod_reader
from gpudev_service.settings import GpuTypeSpec, KubernetesType, NodeSpec
from tests.kube.things import GPU, node, pod

MIG = "nvidia.com/mig-1g.10gb"
RESOURCES = frozenset({GPU, MIG})
READ = node_reader(frozenset({"product"}), RESOURCES)
READ_POD = pod_reader("lab", RESOURCES)
GIB = 2**30


def kind(name: str = "h100", gpus: int | None = None, **kubernetes: Any) -> Kind:
    values: dict[str, Any] = {"name": name, "kubernetes": KubernetesType(**kubernetes)}
    if gpus is not None:
        values["gpus_per_node"] = gpus
    spec = GpuTypeSpec(**values)
    assert spec.kubernetes is not None
    return Kind(spec, spec.kubernetes)


def part(item: Any, *pods: Any, of: Kind | None = None) -> NodeSpec:
    read = [found for found in map(READ_POD, pods) if found is not None]
    (found,) = parts(READ(item), read, [of or kind()], {})
    return found


def test_a_healthy_node_gives_all_its_gpus_with_their_part_of_the_rest() -> None:
    found = part(node("a", labels={"topology.kubernetes.io/zone": "z1"}))
    assert (found.name, found.machine, found.units, found.ready) == ("a", "a", 8, True)
    assert (found.unit_cpus, found.unit_memory) == (8, 64 * GIB)
    assert (found.zone, found.reason) == ("z1", None)


@pytest.mark.parametrize(
    ("sick", "reason"),
    [
        ({"cordoned": True}, "cordoned"),
        ({"ready": "False"}, "not ready"),
        ({"ready": "Unknown"}, "not ready"),
        ({"taints": ({"key": "team", "value": "b", "effect": "NoSchedule"},)}, "taint team"),
        ({"taints": ({"key": "team", "effect": "NoExecute"},)}, "taint team"),
    ],
)
def test_a_closed_node_says_why(sick: dict[str, Any], reason: str) -> None:
    found = part(node("a", **sick))
    assert not found.ready
    assert reason in (found.reason or "")
    assert found.units == 8, "what runs there goes on"


@pytest.mark.parametrize(
    "taint",
    [
        {"key": "team", "effect": "PreferNoSchedule"},
        {"key": GPU, "value": "present", "effect": "NoSchedule"},
        {"key": "hub.jupyter.org/dedicated", "value": "user", "effect": "NoSchedule"},
    ],
)
def test_taints_that_do_not_keep_our_pods_away(taint: dict[str, str]) -> None:
    assert part(node("a", taints=(taint,))).ready


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": "k", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "l", "operator": "Exists"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "k", "operator": "Exists", "tolerationSeconds": 300}, False),
        ({"value": "v"}, False),
    ],
)
def test_tolerations_are_read_as_the_scheduler_reads_them(
    toleration: dict[str, Any], tolerated: bool
) -> None:
    assert tolerates(toleration, Taint("k", "v", "NoSchedule")) is tolerated


def test_a_node_that_is_being_removed_is_closed() -> None:
    item = node("a")
    item["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    assert "removed" in (part(item).reason or "")


def test_a_gpu_that_is_out_of_order_or_used_by_others_is_never_offered() -> None:
    found = part(node("a", healthy=6), pod("train", "a", gpu="2", cpu="1"))
    assert found.units == 4
    assert found.reason == "2 GPUs out of order; 2 GPUs used by pods that are not gpudev's."
    assert found.ready


def test_a_node_of_which_others_use_everything_is_closed_with_the_reason() -> None:
    found = part(node("a", gpus=2), pod("train", "a", gpu="2"))
    assert (found.units, found.ready) == (0, False)
    assert "used by pods" in (found.reason or "")


def test_gpus_of_our_own_pods_and_of_ended_ones_do_not_count() -> None:
    ours = pod("s", "a", reservation="r" * 16, gpu="4", cpu="32", memory="256Gi")
    found = part(node("a"), ours, pod("old", "a", phase="Succeeded", gpu="4"))
    assert (found.units, found.unit_cpus) == (8, 8)


def test_daemons_are_taken_off_before_dividing() -> None:
    found = part(node("a"), pod("d", "a", owner="DaemonSet", cpu="8", memory="32Gi"))
    assert (found.units, found.unit_cpus, found.unit_memory) == (8, 7, 60 * GIB)


def test_pods_of_others_first_make_shares_smaller_and_then_take_units_away() -> None:
    small = part(node("a"), pod("web", "a", cpu="8", memory="8Gi"))
    assert (small.units, small.unit_cpus, small.reason) == (8, 7, None)
    big = part(node("a"), pod("build", "a", cpu="40"))
    assert big.units == 4, "24 CPUs are left, and a GPU never has less than 6 of its 8"
    assert big.unit_cpus == 6
    assert "CPU and memory" in (big.reason or "")
    greedy = part(node("a"), pod("cache", "a", memory="500Gi"))
    assert (greedy.units, greedy.ready) == (0, False)


def test_mig_slices_are_types_of_their_own_on_one_node() -> None:
    item = node("a", gpus=2, more={MIG: "7"})
    kinds = [kind("whole"), kind("slice", resource=MIG)]
    whole, piece = parts(READ(item), [], kinds, {})
    assert [whole.name, piece.name] == ["a.whole", "a.slice"]
    assert [whole.machine, piece.machine] == ["a", "a"]
    assert [whole.units, piece.units] == [2, 7]
    assert whole.unit_cpus == 16, "half of the node's CPUs go with each type"


def test_types_find_their_nodes_by_label_and_resource() -> None:
    cpu, gpu = kind("cpu", resource=""), kind("h100", node_selector={"product": "H100"})
    labelled, bare, other = (
        READ(node("a", labels={"product": "H100"})),
        READ(node("b", gpus=0)),
        READ(node("c", labels={"product": "A100"})),
    )
    assert [gpu.has(one, RESOURCES) for one in (labelled, bare, other)] == [True, False, False]
    assert [cpu.has(one, RESOURCES) for one in (labelled, bare, other)] == [False, True, False]
    chosen = kind("cpu", resource="", node_selector={"product": "A100"})
    assert chosen.has(other, RESOURCES), "an operator may say that GPU nodes give shares"


def test_shares_of_a_node_without_gpus() -> None:
    spec = GpuTypeSpec(
        name="cpu", shares_per_node=4, kubernetes=KubernetesType(resource=""), cpus=32
    )
    assert spec.kubernetes is not None
    found = part(node("b", gpus=0), of=Kind(spec, spec.kubernetes))
    assert (found.units, found.unit_cpus, found.unit_memory) == (4, 8, 128 * GIB)


def test_what_a_type_leaves_out_is_what_its_nodes_have() -> None:
    nodes = [READ(node("a", gpus=4)), READ(node("b", cpu="48")), READ(node("c", memory="256Gi"))]
    found = resolved(kind(), nodes, {"cpu": 2.0, "memory": 2.0 * GIB})
    assert (found.gpus_per_node, found.cpus, found.memory_gb) == (8, 46, 254)
    assert resolved(kind(gpus=4), nodes, {}).gpus_per_node == 4


def test_a_new_node_is_taken_to_get_the_daemons_that_the_others_have() -> None:
    daemon = READ_POD(pod("d", "a", owner="DaemonSet", cpu="4"))
    assert daemon is not None
    expected = usual([overhead([daemon]), overhead([daemon]), {}])
    (fresh,) = parts(READ(node("new")), [], [kind()], expected)
    assert fresh.unit_cpus == 7.5
