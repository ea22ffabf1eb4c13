"""Nodes that an autoscaler adds: promised for when they can be there, asked for, and used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gpudev_client.kubernetes import LABEL_PLACEHOLDER
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.fleet import free_from
from gpudev_service.fleet.scaling import placeholder_prefix
from gpudev_service.kube.objects import HOSTNAME
from gpudev_service.loops import fleet as fleet_loop
from gpudev_service.loops.runner import Runner
from gpudev_service.operations import capacity, reservations, servers
from gpudev_service.settings import GpuTypeSpec, KubernetesType, ScaleUp
from gpudev_service.store.engine import Store
from tests.fixtures.world import START, World
from tests.kube.site import Site, site
from tests.kube.things import GPU, node

MINUTES = 5
SPAN = timedelta(minutes=MINUTES)
GROWING = GpuTypeSpec(
    name="h100",
    gpus_per_node=8,
    cpus=64,
    memory_gb=512,
    kubernetes=KubernetesType(scale_up=ScaleUp(max_nodes=2, minutes=MINUTES)),
)


SMALL = GROWING.model_copy(
    update={
        "name": "l4",
        "gpus_per_node": 4,
        "kubernetes": KubernetesType(
            node_selector={"gpu": "l4"}, scale_up=ScaleUp(max_nodes=2, minutes=MINUTES)
        ),
    }
)


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, types=(GROWING,)) as found:
        yield found


@pytest.fixture
def world(store: Store, tmp_path: Path, there: Site) -> World:
    return there.world(store, tmp_path)


def placeholders(there: Site) -> list[dict[str, Any]]:
    pods = there.moody.things["pods"].values()
    return [pod for pod in pods if LABEL_PLACEHOLDER in pod["metadata"]["labels"]]


async def test_from_zero_a_start_is_promised_for_when_a_node_can_be_there(
    world: World, there: Site
) -> None:
    offer = (await capacity.availability(world.ctx, 1.0, (), "h100"))[0]
    assert (offer.total, offer.free) == (0, 0)
    assert {one.starts_at for one in offer.earliest} == {START + SPAN}
    (shown,) = await capacity.gpu_types(world.ctx, ())
    assert shown.added_within_minutes == offer.added_within_minutes == MINUTES
    lease = await world.reserve(gpu_type="h100", gpus=4)
    assert (lease.state, lease.promised_start) == (State.QUEUED, START + SPAN)
    assert placeholders(there) == []
    await fleet_loop.run(world.ctx)
    await fleet_loop.run(world.ctx)
    (pod,) = placeholders(there)
    asked = pod["spec"]["containers"][0]["resources"]
    assert asked["limits"] == {GPU: "8"}
    world.clock.pass_time(minutes=2)
    there.moody.set(node("new"))
    await there.until(lambda: "new" in there.cluster.nodes)
    await fleet_loop.run(world.ctx)
    assert (await world.look(lease)).state is State.PREPARING
    assert (await servers.launch(world.ctx, lease.id)).pods
    bound = {**pod, "spec": {**pod["spec"], "nodeName": "new"}}
    there.moody.set(bound)
    await there.until(lambda: any(p.node == "new" for p in there.cluster.placeholders()))
    assert there.node("new").units == 8, "a placeholder takes nothing away"
    await fleet_loop.run(world.ctx)
    assert placeholders(there) == []


async def test_promises_stay_while_the_node_comes_and_move_seldom_when_it_is_late(
    world: World, there: Site
) -> None:
    lease = await world.reserve(gpu_type="h100", gpus=8)
    for _ in range(4):
        world.clock.pass_time(minutes=1)
        await world.reserve("bob", "h100", gpus=1)
    assert (await world.look(lease)).promised_start == START + SPAN
    before = len(await world.reasons(lease))
    for _ in range(6):
        world.clock.pass_time(seconds=50)
        await world.sweep()
    seen = await world.look(lease)
    assert (seen.state, seen.promised_start) == (State.QUEUED, START + 2 * SPAN)
    reasons = await world.reasons(lease)
    assert len(reasons) <= before + 2, "once for each node that could have come"
    assert "the node that was to be added is not there yet" in reasons[-1]


async def test_no_more_nodes_are_asked_for_than_may_be_and_none_that_nobody_wants(
    world: World, there: Site
) -> None:
    leases = [await world.reserve(f"user{n}", "h100", gpus=8) for n in range(3)]
    await fleet_loop.run(world.ctx)
    assert len(placeholders(there)) == 2
    third = await world.look(leases[2])
    assert third.promised_start is not None
    assert third.promised_start > START + timedelta(hours=1)
    for lease in leases:
        await reservations.cancel(world.ctx, lease.id, Actor(lease.user))
    await there.until(lambda: len(there.cluster.placeholders()) == 2)
    await fleet_loop.run(world.ctx)
    assert placeholders(there) == []
    with pytest.raises(Refusal, match="cannot be asked for"):
        await world.reserve(gpu_type="h100", gpus=16)


async def test_a_placeholder_asks_for_another_node_than_those_that_are_there(
    store: Store, tmp_path: Path
) -> None:
    old = [node(f"old-{at}", cordoned=True, labels={HOSTNAME: f"host-{at}"}) for at in (1, 2, 3)]
    nameless = [node(f"nameless-{at}", cordoned=True) for at in (4, 5)]
    growing = KubernetesType(scale_up=ScaleUp(max_nodes=6, minutes=MINUTES))
    kind = GROWING.model_copy(update={"kubernetes": growing})
    async with site(tmp_path, *old, *nameless, types=(kind,)) as there:
        world = there.world(store, tmp_path)
        await world.reserve(gpu_type="h100", gpus=1)
        await fleet_loop.run(world.ctx)
        (pod,) = placeholders(there)
        rule = pod["spec"]["affinity"]["nodeAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        [term] = rule["nodeSelectorTerms"]
        hosts = {"key": HOSTNAME, "operator": "NotIn", "values": ["host-1", "host-2", "host-3"]}
        assert term["matchExpressions"] == [hosts]
        # Kubernetes takes one name in each of these.
        assert [one["values"] for one in term["matchFields"]] == [["nameless-4"], ["nameless-5"]]
        assert pod["spec"]["automountServiceAccountToken"] is False


async def test_a_type_whose_placeholder_is_refused_keeps_no_other_from_its_nodes_and_is_told_of(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path, types=(GROWING, SMALL)) as there:
        world = there.world(store, tmp_path)
        there.moody.barred = placeholder_prefix("h100")
        await world.reserve("ada", "h100", gpus=8)
        await world.reserve("bob", "l4", gpus=4)
        for _ in range(3):
            await fleet_loop.run(world.ctx)
        [made] = placeholders(there)
        assert made["metadata"]["labels"][LABEL_PLACEHOLDER] == "l4"
        view, secret = there.fleet.view(), "nodes of the accounting"
        assert view.fresh
        assert "No node of h100 can be asked for" in (view.no_growth or "")
        assert "422 Invalid" in (view.no_growth or "")
        assert secret not in (view.no_growth or ""), "what the cluster says is for the log"
        logged = [record for record in caplog.records if secret in record.message]
        assert len(logged) == 1, "once for each answer"
        health = {one.name: one for one in Runner(world.ctx).health()}
        assert health["view"].ok
        assert (health["scale_up"].ok, health["scale_up"].message) == (False, view.no_growth)
        there.moody.barred = None
        await fleet_loop.run(world.ctx)
        assert len(placeholders(there)) == 2
        assert there.fleet.view().no_growth is None


@pytest.mark.parametrize(
    ("promised", "now", "until"),
    [
        ([], 1000, 61_000),
        ([5000, 3000], 1000, 3000),
        ([1000], 1000, 61_000),
        ([0], 90_000, 120_000),
    ],
)
def test_when_a_node_to_come_can_be_used(promised: list[int], now: int, until: int) -> None:
    assert free_from(promised, 1, now) == until
