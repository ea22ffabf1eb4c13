"""Between plan and start a node may go; nobody loses their place by it, and nothing is placed from
a view that is not current."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.loops import fleet as fleet_loop
from gpudev_service.operations import capacity, overview, placing, reservations, servers
from gpudev_service.store.engine import Store
from tests.fixtures.world import World, make_world
from tests.kube.site import Site, site
from tests.kube.things import node, pod


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, node("a"), node("b")) as found:
        yield found


@pytest.fixture
def world(store: Store, tmp_path: Path, there: Site) -> World:
    return there.world(store, tmp_path)


def where(view: Reservation) -> list[str]:
    return [place.node for place in view.placement]


async def test_a_launch_says_what_the_pods_are_made_with(world: World) -> None:
    lease = await world.reserve(gpu_type="h100", gpus=2)
    found = await servers.launch(world.ctx, lease.id)
    pods = found.pods
    assert pods is not None
    assert (pods.nodes, pods.resource, pods.count) == (["a"], "nvidia.com/gpu", 2)
    assert (pods.cpus, pods.memory_bytes) == (16, 128 * 2**30)
    assert (pods.workers, pods.claim, found.home) == (0, None, "/home/jovyan")
    assert {"key": "nvidia.com/gpu", "operator": "Exists"} in pods.tolerations
    assert "NVIDIA_VISIBLE_DEVICES" not in found.environment, "the device plugin says it"


async def test_whole_nodes_are_pods_by_rank(world: World) -> None:
    lease = await world.reserve(gpu_type="h100", gpus=16)
    pods = (await servers.launch(world.ctx, lease.id)).pods
    assert pods is not None
    assert (pods.nodes, pods.count, pods.workers) == (["a", "b"], 8, 1)


@pytest.mark.parametrize("how", ["gone", "cordoned", "not ready", "silent"])
async def test_a_lease_whose_node_goes_before_the_start_moves_at_once(
    world: World, there: Site, how: str
) -> None:
    lease = await world.reserve(gpu_type="h100", gpus=8)
    assert where(lease) == ["a"]
    there.moody.become("silent")
    if how == "gone":
        there.moody.drop("a")
    elif how == "cordoned":
        there.moody.set(node("a", cordoned=True))
    else:
        there.moody.set(node("a", ready="Unknown" if how == "silent" else "False"))
    launch = await servers.launch(world.ctx, lease.id)
    assert launch.pods is not None
    assert launch.pods.nodes == ["b"]
    assert launch.reservation.state is State.PREPARING
    reasons = await world.reasons(lease)
    assert any(reason.startswith("a cannot take your server.") for reason in reasons)


async def test_a_lease_that_finds_no_other_node_waits_before_those_who_came_later(
    world: World, there: Site
) -> None:
    first = await world.reserve("ada", "h100", gpus=8)
    other = await world.reserve("bob", "h100", gpus=8, hours=2)
    world.clock.pass_time(minutes=1)
    later = await world.reserve("eve", "h100", gpus=8)
    assert [where(first), where(other)] == [["a"], ["b"]]
    there.moody.drop("a")
    with pytest.raises(Refusal) as refused:
        await servers.launch(world.ctx, first.id)
    assert refused.value.code == "planned_again"
    seen = await world.look(first)
    assert (seen.state, seen.position) == (State.QUEUED, 1)
    assert (seen.starts_at, seen.expires_at, seen.server_lost_at) == (None, None, None)
    assert seen.promised_start is not None
    after = await world.look(later)
    assert after.promised_start is not None
    assert seen.promised_start < after.promised_start
    there.moody.set(node("c"))
    await there.until(lambda: "c" in there.cluster.nodes)
    await fleet_loop.run(world.ctx)
    moved = await world.look(first)
    assert (moved.state, where(moved)) == (State.PREPARING, ["c"])
    assert (await servers.launch(world.ctx, first.id)).pods


@pytest.mark.parametrize("how", ["broken", "foreign"])
async def test_a_lease_whose_gpus_go_before_the_start_moves_at_once(
    world: World, there: Site, how: str
) -> None:
    lease = await world.reserve(gpu_type="h100", gpus=8)
    assert where(lease) == ["a"]
    if how == "broken":
        there.moody.become("silent")
        there.moody.set(node("a", healthy=6))
    else:
        there.moody.set(pod("train", "a", gpu="1"))
        await there.until(lambda: there.node("a").units == 7)
    launch = await servers.launch(world.ctx, lease.id)
    assert launch.pods is not None
    assert launch.pods.nodes == ["b"]
    assert launch.reservation.state is State.PREPARING
    [told] = [one for one in await world.reasons(lease) if one.startswith("a cannot take your")]
    assert "and the leases on it hold 8" in told
    small = await world.reserve("bob", "h100", gpus=6)
    assert where(small) == ["a"], "what is left of the node is given to others"


async def test_a_lease_that_has_lost_gpus_waits_in_its_place_where_there_are_no_others(
    world: World, there: Site
) -> None:
    first = await world.reserve("ada", "h100", gpus=8)
    await world.reserve("bob", "h100", gpus=8, hours=2)
    world.clock.pass_time(minutes=1)
    later = await world.reserve("eve", "h100", gpus=8)
    there.moody.set(node("a", healthy=7))
    await there.until(lambda: there.node("a").units == 7)
    with pytest.raises(Refusal, match="cannot take it any more") as refused:
        await servers.launch(world.ctx, first.id)
    assert refused.value.code == "planned_again"
    assert [(await world.look(one)).position for one in (first, later)] == [1, 2]
    there.moody.set(node("a"))
    await there.until(lambda: there.node("a").units == 8)
    await fleet_loop.run(world.ctx)
    assert await world.states(first, later) == [State.PREPARING, State.QUEUED]
    assert (await servers.launch(world.ctx, first.id)).pods


async def test_of_leases_that_share_a_node_only_the_last_goes_when_it_loses_gpus(
    world: World, there: Site
) -> None:
    runs = await world.running(await world.reserve("ada", "h100", gpus=3))
    early = await world.reserve("bob", "h100", gpus=3)
    world.clock.pass_time(minutes=1)
    late = await world.reserve("eve", "h100", gpus=2)
    assert [where(one) for one in (runs, early, late)] == [["a"]] * 3
    there.moody.set(node("a", healthy=7))
    await there.until(lambda: there.node("a").units == 7)
    # Whoever asks first: it is the last one's GPUs that are not there.
    moved = await servers.launch(world.ctx, late.id)
    assert where(moved.reservation) == ["b"]
    stays = await servers.launch(world.ctx, early.id)
    assert where(stays.reservation) == ["a"]
    assert where((await servers.launch(world.ctx, runs.id)).reservation) == ["a"]
    there.moody.set(node("a", healthy=5))
    await there.until(lambda: there.node("a").units == 5)
    # Who has a server that runs keeps it, and can start it again.
    assert where((await servers.launch(world.ctx, early.id)).reservation) == ["b"]
    assert where((await servers.launch(world.ctx, runs.id)).reservation) == ["a"]


async def test_a_server_is_not_started_again_on_a_node_that_has_lost_its_gpus(
    world: World, there: Site
) -> None:
    lease = await world.running(await world.reserve(gpu_type="h100", gpus=8))
    there.moody.set(node("a", healthy=7))
    await there.until(lambda: there.node("a").units == 7)
    with pytest.raises(Refusal, match="Only 7 GPUs of it") as refused:
        await servers.launch(world.ctx, lease.id)
    assert refused.value.code == "wrong_state"


async def test_a_second_start_gets_as_much_as_the_first(world: World, there: Site) -> None:
    lease = await world.reserve(gpu_type="h100", gpus=8)
    first = (await servers.launch(world.ctx, lease.id)).pods
    assert first is not None
    cpu, memory = str(first.cpus), str(first.memory_bytes)
    there.moody.set(pod("s", "a", reservation=lease.id, gpu="8", cpu=cpu, memory=memory))
    await there.until(lambda: bool(there.cluster.pods_of(lease.id)))
    assert (await servers.launch(world.ctx, lease.id)).pods == first


async def test_plans_of_other_types_stay_in_memory(store: Store, tmp_path: Path) -> None:
    world = make_world(store, tmp_path)
    await world.reserve("ada", "h100", gpus=8)
    lease = await world.reserve("grace", "t4")
    known = store.memory.kept["h100"]
    await placing._again(world.ctx, lease.id, dict.fromkeys(where(lease), "It is gone."))
    assert store.memory.kept["h100"] is known


async def test_a_server_that_crashed_is_not_started_again_on_a_node_that_is_gone(
    world: World, there: Site
) -> None:
    lease = await world.running(await world.reserve(gpu_type="h100"))
    there.moody.drop("a")
    with pytest.raises(Refusal, match="cannot be started again on a") as refused:
        await servers.launch(world.ctx, lease.id)
    assert refused.value.code == "wrong_state"
    assert (await world.look(lease)).state is State.ACTIVE


async def test_while_the_cluster_is_away_a_launch_is_tried_again_later(
    world: World, there: Site
) -> None:
    lease = await world.reserve(gpu_type="h100")
    there.moody.become("ill")
    with pytest.raises(Refusal) as refused:
        await servers.launch(world.ctx, lease.id)
    assert refused.value.code == "unavailable"
    assert (await world.look(lease)).state is State.PREPARING


async def test_from_a_frozen_view_nothing_starts_and_no_promise_moves(
    world: World, there: Site
) -> None:
    first = await world.reserve("ada", "h100", gpus=16)
    waiting = await world.reserve("bob", "h100", gpus=8)
    promised = (await world.look(waiting)).promised_start
    there.freeze()
    shown = await overview.cluster(world.ctx, "eve", lambda _: True)
    assert not shown.fresh
    assert "last seen" in (shown.trouble or "")
    await reservations.cancel(world.ctx, first.id, Actor("ada"))
    await world.sweep()
    newcomer = await world.reserve("eve", "h100", gpus=1)
    assert await world.states(waiting, newcomer) == [State.QUEUED, State.QUEUED]
    assert (await world.look(waiting)).promised_start == promised
    assert (await world.look(newcomer)).promised_start is not None
    await fleet_loop.run(world.ctx)
    there.moody.become("well")
    await there.until(lambda: there.fleet.view().fresh)
    await fleet_loop.run(world.ctx)
    assert await world.states(waiting, newcomer) == [State.PREPARING, State.PREPARING]


async def test_a_node_that_goes_takes_promises_with_a_reason_and_a_new_one_keeps_them(
    world: World, there: Site
) -> None:
    await world.reserve("ada", "h100", gpus=8, hours=2)
    await world.reserve("bob", "h100", gpus=8, hours=4)
    waiting = await world.reserve("eve", "h100", gpus=8)
    before = await world.look(waiting)
    there.moody.set(node("a", cordoned=True))
    await there.until(lambda: not there.node("a").ready)
    await fleet_loop.run(world.ctx)
    moved = await world.look(waiting)
    assert before.promised_start is not None
    assert moved.promised_start is not None
    assert moved.promised_start > before.promised_start
    assert "a node was taken out of service" in (await world.reasons(waiting))[-1]
    there.moody.set(node("new"))
    await there.until(lambda: "new" in there.cluster.nodes)
    await fleet_loop.run(world.ctx)
    assert await world.states(waiting) == [State.PREPARING]


async def test_a_gpu_that_somebody_else_uses_is_not_promised(world: World, there: Site) -> None:
    there.moody.set(pod("train", "a", gpu="1"))
    await there.until(lambda: there.node("a").units == 7)
    lease = await world.reserve("ada", "h100", gpus=8)
    assert where(lease) == ["b"]
    with pytest.raises(Refusal, match="no room"):
        await world.reserve("bob", "h100", gpus=16)
    seven = await world.reserve("bob", "h100", gpus=7)
    assert where(seven) == ["a"]
    offer = (await capacity.availability(world.ctx, 1.0, (), "h100"))[0]
    assert (offer.total, offer.free) == (15, 0)
