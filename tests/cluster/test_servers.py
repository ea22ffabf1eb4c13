"""Servers as real pods: ended within the time that leases are promised, and their ends told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpudev_client.ids import new_id
from gpudev_client.kubernetes import LABEL_RANK, LABEL_RESERVATION, worker_name
from gpudev_client.states import State
from gpudev_service.loops import reconcile
from gpudev_service.operations import servers as operations
from gpudev_service.settings import GpuTypeSpec, KubernetesType
from gpudev_service.store.engine import Store
from tools.cluster.cluster import Cluster
from tools.cluster.kubectl import Kubectl

from .pods import pod
from .service import Service, service

pytestmark = pytest.mark.cluster

SLICE = "nvidia.com/mig-1g.10gb"
#: What a server does that ends when it is asked to, and one that does not.
POLITE = "trap 'exit 0' TERM; while true; do sleep 0.1; done"
STUBBORN = "trap '' TERM; while true; do sleep 0.1; done"


@pytest.fixture
async def there(cluster: Cluster, namespace: Kubectl, tmp_path: Path) -> AsyncIterator[Service]:
    types = {"mig": GpuTypeSpec(name="mig", kubernetes=KubernetesType(resource=SLICE))}
    inside = namespace.namespace or ""
    async with service(cluster.place.kubeconfig, tmp_path, types, inside) as found:
        yield found


def server(key: str, script: str, rank: int = 0, **more: Any) -> dict[str, Any]:
    made = pod(worker_name(key, rank), script, **more)
    made["metadata"]["labels"] |= {LABEL_RESERVATION: key, LABEL_RANK: str(rank)}
    made["spec"]["terminationGracePeriodSeconds"] = 60
    return made


async def running(there: Service, namespace: Kubectl, key: str, *pods: dict[str, Any]) -> None:
    namespace.apply(*pods)
    await there.until(lambda: sum(found.running for found in there.view.pods_of(key)) == len(pods))


@pytest.mark.parametrize("script", [POLITE, STUBBORN])
async def test_pods_are_ended_and_verified(there: Service, namespace: Kubectl, script: str) -> None:
    key = new_id()
    await running(there, namespace, key, server(key, script), server(key, script, 1))
    assert await there.servers.running() == {key}
    while not await there.servers.stop(key, None, grace=1.0):
        assert await there.servers.alive(key, None), "what is not verified is not called gone"
    left = namespace.get("pods", "-l", f"{LABEL_RESERVATION}={key}")["items"]
    assert all(found["status"]["phase"] in {"Succeeded", "Failed"} for found in left)


async def test_an_end_for_want_of_memory_is_told_in_history(
    there: Service, namespace: Kubectl, store: Store, tmp_path: Path
) -> None:
    world = there.world(store, tmp_path)
    lease = await world.running(await world.reserve(gpu_type="mig"))
    launch = await operations.launch(world.ctx, lease.id)
    assert launch.pods is not None
    assert (launch.pods.resource, launch.pods.count) == (SLICE, 1)
    greedy = "sleep 1; x=0; while true; do x=$x$x; done"
    limits = {"memory": "32Mi", SLICE: "1"}
    namespace.apply(server(lease.id, greedy, limits=limits))
    await there.until(lambda: any(found.over for found in there.view.pods_of(lease.id)))
    await reconcile.run(world.ctx)
    assert (await world.look(lease)).server_lost_at is not None
    assert "more memory than it has" in (await world.reasons(lease))[-1]
    assert await world.states(lease) == [State.ACTIVE], "it may be started again"


async def test_a_pod_that_somebody_deletes_is_told(there: Service, namespace: Kubectl) -> None:
    key = new_id()
    await running(there, namespace, key, server(key, POLITE))
    namespace("delete", "pod", worker_name(key, 0), "--grace-period=1")
    await there.until(lambda: not there.view.pods_of(key))
    assert "deleted" in (await there.servers.why_gone(key) or "")


async def test_an_image_that_is_not_there_is_told(there: Service, namespace: Kubectl) -> None:
    key = new_id()
    broken = server(key, "true")
    broken["spec"]["containers"][0]["image"] = "gpudev.test/no-such-image:1"
    namespace.apply(broken)

    def trouble() -> str:
        return " ".join(p.trouble.words for p in there.view.pods_of(key) if p.trouble)

    await there.until(lambda: "image" in trouble())
