"""What the pods of a reservation are made with follows from type, place and request alone."""

from gpudev_service.fleet import Share
from gpudev_service.fleet.parts import tolerations
from gpudev_service.operations.pods import pod_launch
from gpudev_service.settings import GpuTypeSpec, KubernetesType

GIB = 2**30
H100 = KubernetesType(
    resource="nvidia.com/gpu",
    node_selector={"kind": "h100"},
    tolerations=({"key": "ours", "operator": "Exists"},),
    runtime_class="nvidia",
    profiling=True,
)
SPEC = GpuTypeSpec(name="h100", gpus_per_node=8, cpus=192, memory_gb=2048, kubernetes=H100)


def test_all_pods_get_the_least_that_one_of_their_nodes_has() -> None:
    shares = [Share(50.0, 300 * GIB), None, Share(40.0, 600 * GIB)]
    made = pod_launch(
        SPEC, ("a", "b", "c"), 2, shares, claim="disk", shared_claim="common", image="ours:1"
    )
    assert (made.nodes, made.resource, made.count) == (["a", "b", "c"], "nvidia.com/gpu", 2)
    assert (made.cpus, made.memory_bytes) == (40.0, 300 * GIB)
    assert made.tolerations == tolerations(H100)
    assert made.node_selector == {"kind": "h100"}
    assert (made.runtime_class, made.profiling) == ("nvidia", True)
    assert (made.claim, made.shared_claim, made.image) == ("disk", "common", "ours:1")


def test_a_node_that_says_nothing_gives_its_proportion_of_the_type() -> None:
    made = pod_launch(SPEC, ("a",), 2, [None], claim=None, shared_claim=None, image=None)
    assert (made.cpus, made.memory_bytes) == (48.0, 512 * GIB)


def test_a_type_without_a_resource_asks_for_none() -> None:
    spec = GpuTypeSpec(name="cpu", gpus_per_node=0, shares_per_node=4, cpus=32, memory_gb=64)
    made = pod_launch(spec, ("a",), 1, [None], claim=None, shared_claim=None, image=None)
    assert (made.resource, made.count) == (None, 0)
    assert (made.cpus, made.memory_bytes) == (8.0, 16 * GIB)
    assert (made.claim, made.shared_claim, made.image, made.runtime_class) == (None,) * 4
    assert not made.profiling
