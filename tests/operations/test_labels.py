"""Reservations that ask for nodes with certain labels: placed on these, or refused with what there
is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpudev_client.models import ReservationRequest
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.loops import fleet as fleet_loop
from gpudev_service.operations import labels, reservations, servers
from gpudev_service.settings import GpuTypeSpec, KubernetesType, NodeSpec, ScaleUp, Settings
from gpudev_service.store.engine import Store
from gpudev_service.store.models import DiskRow, ReservationRow
from tests.fixtures.world import START, TYPES, World, living
from tests.kube.site import Site, site
from tests.kube.things import node

ADA = Actor("ada")
ZONE = "topology.kubernetes.io/zone"
NODES = tuple(
    NodeSpec(name=name, gpu_type="t4", simulated=True, zone=zone, labels={ZONE: zone, **more})
    for name, zone, more in (
        ("a1", "a", {}),
        ("a2", "a", {"link": "fast"}),
        ("b1", "b", {"link": "slow"}),
    )
)
CHOICES = {"link": ["fast", "slow"], ZONE: ["a", "b"]}


@pytest.fixture
async def there(store: Store, tmp_path: Path) -> AsyncIterator[World]:
    async with living(store, tmp_path, nodes=NODES) as made:
        yield made


async def refused(world: World, **asked: Any) -> Refusal:
    """What both a preview and the request itself are refused with."""
    request = ReservationRequest(gpu_type="t4", hours=1, **asked)
    said = []
    for call in (reservations.preview, reservations.submit):
        with pytest.raises(Refusal) as refusal:
            await call(world.ctx, ADA, request, ())
        said.append(refusal.value)
    assert str(said[0]) == str(said[1])
    assert said[0].accepted == said[1].accepted
    return said[0]


@pytest.mark.parametrize(
    ("wanted", "node_name"),
    [
        ({}, "a1"),
        ({ZONE: "b"}, "b1"),
        ({"link": "fast"}, "a2"),
        ({ZONE: "a", "link": "fast"}, "a2"),
    ],
)
async def test_it_goes_where_the_labels_are(
    there: World, wanted: dict[str, str], node_name: str
) -> None:
    request = ReservationRequest(gpu_type="t4", hours=1, gpus=1, node_labels=wanted)
    asked = await reservations.preview(there.ctx, ADA, request, ())
    got = await there.reserve(gpu_type="t4", gpus=1, node_labels=wanted)
    assert asked.nodes == [node_name]
    assert [place.node for place in got.placement] == [node_name]
    assert got.node_labels == wanted


async def test_it_waits_for_such_a_node_and_others_do_not_wait_for_it(there: World) -> None:
    first = await there.reserve("bob", gpu_type="t4", gpus=4, hours=2, node_labels={ZONE: "b"})
    waits = await there.reserve(gpu_type="t4", gpus=4, node_labels={ZONE: "b"})
    other = await there.reserve("eve", gpu_type="t4", gpus=4)
    assert (waits.state, other.state) == (State.QUEUED, State.PREPARING)
    request = ReservationRequest(gpu_type="t4", hours=1, gpus=4, node_labels={ZONE: "b"})
    behind = await reservations.preview(there.ctx, ADA, request, ())
    assert waits.promised_start is not None
    assert behind.starts_at > waits.promised_start
    await reservations.cancel(there.ctx, first.id, Actor("bob"))
    await there.sweep()
    assert [place.node for place in (await there.look(waits)).placement] == ["b1"]


async def test_the_history_says_what_was_asked_for(there: World) -> None:
    got = await there.reserve(gpu_type="t4", gpus=1, node_labels={"link": "slow", ZONE: "b"})
    page = await reservations.history(there.ctx, got.id, 10, None)
    assert page.items[0].reason == f"Submitted by ada, for nodes with link=slow, {ZONE}=b."
    assert page.items[0].data == {"node_labels": {"link": "slow", ZONE: "b"}}
    plain = await there.reserve(gpu_type="t4", gpus=1, node_labels={})
    assert (await there.reasons(plain))[0] == "Submitted by ada."
    async with there.ctx.store.reading() as session:
        assert (await session.get_one(ReservationRow, plain.id)).node_labels is None


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"rack": "7"}, "No node of t4 has a label rack that can be asked for."),
        ({ZONE: "c"}, f"No node of t4 has {ZONE}=c."),
        ({ZONE: "b", "link": "fast"}, f"No node of t4 has all of link=fast, {ZONE}=b."),
    ],
)
async def test_what_no_node_has_is_refused_with_what_there_is(
    there: World, wanted: dict[str, str], words: str
) -> None:
    refusal = await refused(there, node_labels=wanted)
    assert (refusal.code, refusal.field, refusal.accepted) == (
        "invalid_input", "node_labels", CHOICES,
    )  # fmt: skip
    assert refusal.message == f"{words} There are: link=fast or slow; {ZONE}=a or b."


async def test_a_type_without_labels_says_so(there: World) -> None:
    with pytest.raises(Refusal, match="leave node_labels out") as refusal:
        labels.check({ZONE: "a"}, TYPES["h100"], [{}])
    assert refusal.value.accepted == {}


def test_of_many_values_a_sentence_says_the_first() -> None:
    said = labels.said({"rack": [f"{at:02}" for at in range(25)], "x": [""]})
    assert said.startswith("There are: rack=00 or 01")
    assert said.endswith('or 09 and 15 more; x="".')


async def test_too_few_nodes_with_them_is_no_matter_of_waiting(there: World) -> None:
    both = await there.reserve(gpu_type="t4", gpus=8, node_labels={ZONE: "a"})
    assert [place.node for place in both.placement] == ["a1", "a2"]
    refusal = await refused(there, gpus=8, node_labels={ZONE: "b"})
    assert (refusal.code, refusal.field, refusal.accepted) == ("impossible", "node_labels", CHOICES)
    assert f"The nodes with {ZONE}=b cannot give you 8 x t4 on 2 nodes" in refusal.message


async def put(world: World, zone: str) -> None:
    """A free disk of ada's, with its bytes in a zone."""
    first = await world.reserve(gpu_type="t4", gpus=1, disk="work", create_disk=True)
    await reservations.cancel(world.ctx, first.id, ADA)
    await world.sweep()
    async with world.ctx.store.reading() as session:
        row = await session.get_one(ReservationRow, first.id)

    async def work(session: Any) -> None:
        (await session.get_one(DiskRow, row.disk_id)).reach = {"zones": [zone], "hosts": None}

    await world.ctx.store.run(work)


async def test_both_the_labels_and_the_disk_have_to_be_there(there: World) -> None:
    await put(there, "a")
    refusal = await refused(there, gpus=1, disk="work", node_labels={"link": "slow"})
    assert (refusal.code, refusal.field) == ("impossible", "node_labels")
    assert "where the disk 'work' is (in a)" in refusal.message
    assert refusal.accepted == {"link": ["fast"], ZONE: ["a"]}
    got = await there.reserve(gpu_type="t4", gpus=1, disk="work", node_labels={"link": "fast"})
    assert [place.node for place in got.placement] == ["a2"]


async def test_a_disk_that_alone_is_in_the_way_is_named(there: World) -> None:
    await put(there, "b")
    refusal = await refused(there, gpus=8, disk="work", node_labels={ZONE: "a"})
    assert (refusal.code, refusal.field) == ("impossible", "disk")


# --- nodes of a cluster -----------------------------------------------------------------------


async def changed(world: World, cluster: Site, name: str, zone: str) -> None:
    """A node's label gets another value, and the fleet's loop has run."""
    cluster.moody.set(node(name, labels={ZONE: zone}))
    await cluster.until(lambda: cluster.node(name).labels == {ZONE: zone})
    await fleet_loop.run(world.ctx)


async def test_people_may_ask_for_what_the_operator_offers(tmp_path: Path) -> None:
    found = {"nvidia.com/gpu.product": "H100", "kubernetes.io/hostname": "a", "secret/rack": "7"}
    async with site(tmp_path, node("a", labels=found)) as cluster:
        assert cluster.node("a").labels == {"nvidia.com/gpu.product": "H100"}
    settings = Settings(gpu_types={}, node_labels=("secret/*",))
    assert [key for key in found if settings.offers_label(key)] == ["secret/rack"]


async def test_who_waits_is_planned_anew_when_labels_change(store: Store, tmp_path: Path) -> None:
    nodes = [node(name, labels={ZONE: zone}) for name, zone in (("a", "x"), ("b", "y"))]
    async with site(tmp_path, *nodes) as cluster:
        world = cluster.world(store, tmp_path)
        holders = [await world.reserve("bob", "h100", gpus=8, hours=h) for h in (1, 2)]
        waits = await world.reserve(gpu_type="h100", gpus=8, node_labels={ZONE: "x"})
        plain = await world.reserve("eve", gpu_type="h100", gpus=8)
        ends = [holder.expires_at or START for holder in holders]
        assert waits.promised_start == ends[0] + world.ctx.settings.times.turnover_span
        await changed(world, cluster, "a", "z")
        lost = await world.look(waits)
        assert (lost.state, lost.promised_start) == (State.QUEUED, None)
        assert "had to be taken back" in (await world.reasons(waits))[-1]
        assert (await world.look(plain)).promised_start is not None
        await changed(world, cluster, "b", "x")
        again = await world.look(waits)
        assert again.promised_start is not None
        assert again.promised_start >= ends[1]
        assert "promised again" in (await world.reasons(waits))[-1]


async def test_a_promise_goes_to_another_node_that_has_them(store: Store, tmp_path: Path) -> None:
    nodes = [node(name, labels={ZONE: "x"}) for name in ("a", "b")]
    async with site(tmp_path, *nodes) as cluster:
        world = cluster.world(store, tmp_path)
        for hours in (1, 2):
            await world.reserve("bob", "h100", gpus=8, hours=hours)
        waits = await world.reserve(gpu_type="h100", gpus=8, node_labels={ZONE: "x"})
        await changed(world, cluster, "a", "y")
        moved = await world.look(waits)
        assert waits.promised_start is not None
        assert moved.promised_start is not None
        assert moved.promised_start > waits.promised_start
        assert "it has lost a label that was asked for" in (await world.reasons(waits))[-1]


async def test_a_lease_that_has_begun_stays_on_its_node(store: Store, tmp_path: Path) -> None:
    nodes = [node(name, labels={ZONE: "x"}) for name in ("a", "b")]
    async with site(tmp_path, *nodes) as cluster:
        world = cluster.world(store, tmp_path)
        lease = await world.reserve(gpu_type="h100", gpus=8, node_labels={ZONE: "x"})
        await changed(world, cluster, "a", "y")
        launch = await servers.launch(world.ctx, lease.id)
        assert launch.pods is not None
        assert launch.pods.nodes == ["a"]
        assert launch.reservation.state is State.PREPARING


@pytest.mark.parametrize("sure", [True, False])
async def test_a_node_that_can_be_added_is_sure_to_have_what_its_type_is_chosen_by(
    store: Store, tmp_path: Path, sure: bool
) -> None:
    growing = GpuTypeSpec(
        name="h100",
        gpus_per_node=8,
        cpus=64,
        memory_gb=512,
        kubernetes=KubernetesType(
            node_selector={ZONE if sure else "private": "x"},
            scale_up=ScaleUp(max_nodes=2, minutes=5),
        ),
    )
    async with site(tmp_path, types=(growing,)) as cluster:
        world = cluster.world(store, tmp_path)
        wanted = {ZONE if sure else "private": "x"}
        if sure:
            got = await world.reserve(gpu_type="h100", gpus=8, node_labels=wanted)
            assert got.promised_start is not None
            assert (got.promised_start - START).total_seconds() == 300
            with pytest.raises(Refusal) as refusal:
                await world.reserve(gpu_type="h100", node_labels={ZONE: "y"})
            assert refusal.value.accepted == {ZONE: ["x"]}
        else:
            with pytest.raises(Refusal) as refusal:
                await world.reserve(gpu_type="h100", node_labels=wanted)
            assert refusal.value.accepted == {}
