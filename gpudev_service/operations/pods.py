"""What the pods of a reservation are made with: a pure function of the type, the place and the
person's request."""

from __future__ import annotations

from collections.abc import Sequence

from gpudev_client.models import PodLaunch
from gpudev_service.fleet import Share
from gpudev_service.fleet.parts import tolerations
from gpudev_service.settings import GpuTypeSpec, KubernetesType


def pod_launch(
    spec: GpuTypeSpec,
    hosts: Sequence[str],
    units: int,
    shares: Sequence[Share | None],
    *,
    claim: str | None,
    shared_claim: str | None,
    image: str | None,
    network_policies: bool = False,
) -> PodLaunch:
    """`hosts` by rank, with `units` on each and what each has for them. All pods of a reservation
    are alike, so the least that one of its nodes has is what all get; a node that says nothing
    gives its proportion of what the type says."""
    kubernetes = spec.kubernetes or KubernetesType(resource="")
    known = [share or _by_type(spec, units) for share in shares]
    return PodLaunch(
        nodes=list(hosts),
        resource=kubernetes.resource or None,
        count=units if kubernetes.resource else 0,
        cpus=min(share.cpus for share in known),
        memory_bytes=min(share.memory_bytes for share in known),
        tolerations=tolerations(kubernetes),
        node_selector=dict(kubernetes.node_selector),
        runtime_class=kubernetes.runtime_class,
        profiling=kubernetes.profiling,
        claim=claim,
        shared_claim=shared_claim,
        image=image,
        network_policy=network_policies and len(hosts) > 1,
    )


def _by_type(spec: GpuTypeSpec, units: int) -> Share:
    part = units / spec.units_per_node
    return Share(spec.cpus * part, int(spec.memory_gb * 2**30 * part))
