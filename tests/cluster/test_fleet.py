"""Nodes that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.pods import names, pod
from tools.cluster import fleet, node
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl

pytestmark = pytest.mark.cluster

COUNT = 50


@pytest.fixture
def group(cluster: Cluster) -> Iterator[str]:
    """Many nodes with eight GPUs each, for one test."""
    cluster.add_nodes(COUNT, "crowd", resources={"nvidia.com/gpu": "8"}, labels={"gpu": "h100"})
    yield "crowd"
    cluster.remove_nodes("crowd")


def test_many_nodes_are_there_and_pods_seem_to_run(namespace: Kubectl, group: str) -> None:
    namespace.wait("node", "Ready", selector=f"{fleet.GROUP}={group}")
    found = namespace.get("nodes", "-l", f"{fleet.GROUP}={group}")["items"]
    assert len(found) == COUNT
    tolerations = [{"key": fleet.TAINT["key"], "operator": "Exists"}]
    wanted: dict[str, Any] = {"nodeSelector": {"gpu": "h100"}, "tolerations": tolerations}
    namespace.apply(pod("seems", "true", limits={"nvidia.com/gpu": "8"}, **wanted))
    namespace.wait("pod/seems", "Ready")
    assert namespace.get("pod", "seems")["spec"]["nodeName"] in names(found)


def test_a_pod_without_a_toleration_goes_to_the_real_node(namespace: Kubectl, group: str) -> None:
    namespace.apply(pod("real", "exec sleep 1000", limits={"nvidia.com/gpu": "1"}))
    namespace.wait("pod/real", "Ready")
    assert namespace.get("pod", "real")["spec"]["nodeName"] == node.NAME
