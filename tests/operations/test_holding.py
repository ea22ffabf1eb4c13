"""A lease holds what it was begun on, whatever that is called, or belongs to, afterwards."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from gpudev_client.models import Reservation
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.errors import Refusal
from gpudev_service.loops import driving
from gpudev_service.operations import (
    capacity,
    extension,
    holding,
    overview,
    placing,
    reservations,
)
from gpudev_service.operations.holding import Unit, gpu_types, located
from gpudev_service.settings import GpuTypeSpec, KubernetesType, NodeSpec
from gpudev_service.store.engine import Store
from gpudev_service.store.models import PlacementRow
from tests.fixtures.world import NODES, START, TYPES, World, make_world

TURNOVER = timedelta(seconds=15)
DEVICES = tuple(f"GPU-{number}" for number in range(4))
OLD = NodeSpec(name="ws1", gpu_type="t4", gpu_ids=DEVICES)


@pytest.fixture(autouse=True, params=[0.0, 1.0], ids=["read-all", "read-some"])
def _read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held on some nodes is the same, whether all units are read or those of these."""
    monkeypatch.setattr(holding, "_FEW", request.param)


def at(store: Store, folder: Path, *nodes: NodeSpec) -> World:
    """The service with these nodes, after a restart with another configuration."""
    return make_world(store, folder, nodes=nodes)


async def devices(world: World, *of: Reservation) -> list[str]:
    async with world.ctx.store.reading() as session:
        query = select(PlacementRow.gpu_ids).where(
            PlacementRow.reservation_id.in_([one.id for one in of])
        )
        return sorted(device for ids in await session.scalars(query) for device in ids)


async def ended(world: World, lease: Reservation) -> None:
    await reservations.cancel(world.ctx, lease.id, Actor(lease.user))
    await world.sweep()


async def test_a_renamed_node_gives_nobody_a_device_that_is_held(
    store: Store, tmp_path: Path
) -> None:
    before = at(store, tmp_path, OLD)
    lease = await before.reserve("ada", "t4", gpus=2, hours=2)
    after = at(store, tmp_path, OLD.model_copy(update={"name": "gpu-1"}))
    other = await after.reserve("grace", "t4", gpus=2, hours=1)
    third = await after.reserve("linus", "t4", gpus=1, hours=1)
    shown = await overview.cluster(after.ctx, "ada", lambda _: False)
    assert [(node.name, node.free, len(node.held)) for node in shown.nodes] == [("gpu-1", 0, 4)]
    assert other.state is State.PREPARING
    assert await devices(after, lease, other) == list(DEVICES)
    assert third.state is State.QUEUED
    assert third.promised_start == START + timedelta(hours=1) + TURNOVER
    await ended(after, lease)
    assert (await after.look(third)).state is State.PREPARING


async def test_devices_that_are_counted_otherwise_are_the_same_devices(
    store: Store, tmp_path: Path
) -> None:
    before = at(store, tmp_path, OLD)
    lease = await before.reserve("ada", "t4", gpus=2, hours=2)
    turned = OLD.model_copy(update={"gpu_ids": DEVICES[::-1]})
    after = at(store, tmp_path, turned)
    # The rows of the first two numbers are taken, and the last two devices are.
    assert (await after.reserve("grace", "t4", gpus=1)).state is State.QUEUED
    await ended(after, lease)
    got = await after.reserve("linus", "t4", gpus=2)
    assert got.state is State.PREPARING


async def test_a_node_of_another_type_is_held_by_the_lease_of_before(
    store: Store, tmp_path: Path
) -> None:
    """It was free to the planner, and each start on it failed."""
    before = make_world(store, tmp_path)
    lease = await before.running(await before.reserve("ada", "t4", gpus=4, hours=2))
    node = next(n.name for n in NODES if n.gpu_type == "t4")
    nodes = tuple(
        n.model_copy(update={"gpu_type": "h100"}) if n.name == node else n
        for n in NODES
        if n.name != "h100-1"
    )
    after = make_world(store, tmp_path, nodes=nodes)
    waiting = await after.reserve("grace", "h100", gpus=8, hours=1)
    assert waiting.state is State.QUEUED
    assert waiting.promised_start == START + timedelta(hours=2) + TURNOVER
    second = await after.reserve("linus", "h100", gpus=4, hours=1)
    # The node has eight of the new type, of which the old lease has four.
    assert second.state is State.PREPARING
    await ended(after, lease)
    await ended(after, second)
    assert (await after.look(waiting)).state is State.PREPARING


async def test_a_lease_on_a_node_of_another_type_is_extended_as_far_as_its_queue_lets_it(
    store: Store, tmp_path: Path
) -> None:
    before = at(store, tmp_path, OLD)
    lease = await before.running(await before.reserve("ada", "t4", gpus=4, hours=2))
    after = at(store, tmp_path, OLD.model_copy(update={"gpu_type": "h100"}))
    longer = await extension.extend(after.ctx, lease.id, Actor("ada"), 1)
    assert longer.expires_at == START + timedelta(hours=3)
    waiting = await after.reserve("grace", "h100", gpus=8, hours=1)
    assert waiting.promised_start == START + timedelta(hours=3) + TURNOVER
    with pytest.raises(Refusal, match="Somebody who waits"):
        await extension.extend(after.ctx, lease.id, Actor("ada"), 1)


async def test_a_lease_on_nodes_of_two_types_is_told_whose_promise_is_in_its_way(
    store: Store, tmp_path: Path
) -> None:
    """Nobody waits for the second type: what that one says does not hide the reason."""
    before = make_world(store, tmp_path)
    lease = await before.running(await before.reserve("ada", "t4", gpus=8, hours=2))
    nodes = tuple(
        n.model_copy(update={"gpu_type": "h100"}) if n.name == "t4-1" else n
        for n in NODES
        if n.name != "h100-1"
    )
    after = make_world(store, tmp_path, nodes=nodes)
    waiting = await after.reserve("grace", "h100", gpus=8, hours=1)
    assert waiting.promised_start == START + timedelta(hours=2) + TURNOVER
    offer = await extension.offer(after.ctx, lease.id)
    assert offer.possible_hours == 0
    assert (offer.limited_by or "").startswith("Somebody who waits has been promised 8 x h100")


async def test_an_end_is_planned_for_the_type_that_has_the_node_now(
    store: Store, tmp_path: Path
) -> None:
    before = at(store, tmp_path, OLD)
    lease = await before.running(await before.reserve("ada", "t4", gpus=4, hours=2))
    nodes = (
        OLD.model_copy(update={"gpu_type": "t4-small", "gpu_ids": DEVICES[:1]}),
        NodeSpec(name="t4-9", gpu_type="t4", simulated=True),
    )
    after = at(store, tmp_path, *nodes)
    waiting = await after.reserve("grace", "t4-small", hours=1)
    assert waiting.promised_start == START + timedelta(hours=2) + TURNOVER
    await reservations.cancel(after.ctx, lease.id, Actor("ada"))
    await driving.run(after.ctx)
    await after.ctx.background.settle()
    assert (await after.look(waiting)).state is State.PREPARING


async def test_what_is_nowhere_any_more_holds_nothing(store: Store, tmp_path: Path) -> None:
    before = at(store, tmp_path, OLD)
    await before.reserve("ada", "t4", gpus=4, hours=2)
    new = NodeSpec(name="ws2", gpu_type="t4", gpu_ids=tuple(f"GPU-new-{at}" for at in range(4)))
    after = at(store, tmp_path, new)
    assert (await after.reserve("grace", "t4", gpus=4)).state is State.PREPARING


def kubernetes(name: str, resource: str = "nvidia.com/gpu") -> GpuTypeSpec:
    return GpuTypeSpec(name=name, gpus_per_node=8, kubernetes=KubernetesType(resource=resource))


GPU, MIG = kubernetes("gpu"), kubernetes("mig", "nvidia.com/mig-1g.10gb")
CPU = GpuTypeSpec(
    name="cpu", gpus_per_node=0, shares_per_node=4, kubernetes=KubernetesType(resource="")
)


def part(name: str, gpu_type: str, host: str = "n1") -> NodeSpec:
    return NodeSpec(name=name, gpu_type=gpu_type, host=host, units=4)


@pytest.mark.parametrize(
    ("now", "held"),
    [
        ([part("n1", "gpu")], {"n1": 2}),
        # A second type has come to the machine, or has left it.
        ([part("n1.gpu", "gpu"), part("n1.mig", "mig")], {"n1.gpu": 2}),
        ([part("n1.gpu", "gpu"), part("n1.cpu", "cpu")], {"n1.gpu": 2}),
        ([part("n1.mig", "mig"), part("n1.cpu", "cpu")], {}),
        # The same GPUs are another type's.
        ([part("n1", "big")], {"n1": 2}),
        ([part("n1.big", "big"), part("n1.cpu", "cpu")], {"n1.big": 2}),
        ([part("n2", "gpu", "n2")], {}),
    ],
)
def test_parts_of_a_machine_are_told_by_what_they_give(
    now: Sequence[NodeSpec], held: dict[str, int]
) -> None:
    types = {spec.name: spec for spec in (GPU, MIG, CPU, kubernetes("big"))}
    units = [Unit("lease", "n1", number, "gpu", "") for number in (1, 2)]
    found = located(now, types, units)
    assert {name: len(found.taken(name)) for name in found.numbers if found.taken(name)} == held


@pytest.mark.parametrize(("now", "moved"), [("h100", True), ("t4", False), ("t4-small", True)])
def test_a_lease_on_a_node_of_another_type_is_noted_as_moved(now: str, moved: bool) -> None:
    node = NodeSpec(name="n1", gpu_type=now, simulated=True)
    found = located([node], TYPES, [Unit("lease", "n1", 0, "t4", "")])
    assert found.taken("n1") == {0}
    assert found.moved == ({"n1"} if moved else set())


def test_a_lease_with_the_devices_that_it_had_is_not_noted_as_moved() -> None:
    """For one that is, the plan of its type is made anew each time."""
    units = [Unit("lease", "ws1", number, "t4", DEVICES[number]) for number in range(4)]
    found = located([OLD], TYPES, units)
    assert found.numbers == {"ws1": {"lease": {0, 1, 2, 3}}}
    assert found.moved == set()
    other = OLD.model_copy(update={"gpu_ids": (*DEVICES[:3], "GPU-new")})
    assert located([other], TYPES, units[:3]).moved == set()
    found = located([other], TYPES, units[3:])
    assert (found.taken("ws1"), found.moved) == ({3}, {"ws1"})
    fewer = OLD.model_copy(update={"gpu_ids": DEVICES[:3]})
    assert located([fewer], TYPES, units[3:]).moved == {"ws1"}


def test_what_was_a_part_is_the_machine() -> None:
    units = [Unit("lease", "n1.gpu", number, "gpu", "") for number in (0, 3)]
    found = located([part("n1", "gpu")], {"gpu": GPU}, units)
    assert found.taken("n1") == {0, 3}
    assert found.moved == {"n1"}


def test_no_number_is_held_twice() -> None:
    """A machine that was two nodes is one."""
    units = [
        Unit(lease, name, 0, "gpu", "") for lease, name in (("one", "n1.gpu"), ("other", "n1"))
    ]
    found = located([part("n1", "gpu")], {"gpu": GPU}, units)
    counts = Counter(number for numbers in found.numbers["n1"].values() for number in numbers)
    assert counts == {0: 1, 1: 1}


async def test_a_lease_that_is_placed_again_keeps_its_extension(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await world.reserve("ada", "t4", gpus=4, hours=1)
    await extension.extend(world.ctx, lease.id, Actor("ada"), 2)

    async def refuses(needed: dict[str, int]) -> dict[str, str]:
        return dict.fromkeys(needed, "It has left the cluster.")

    monkeypatch.setattr(world.ctx.fleet, "refusals", refuses)
    with pytest.raises(Refusal, match="cannot take it any more"):
        await placing.startable(world.ctx, await world.look(lease))
    got = await world.look(lease)
    assert got.state is State.PREPARING
    assert got.starts_at is not None
    assert got.expires_at == got.starts_at + timedelta(hours=3)


async def test_a_lease_that_is_placed_again_takes_nothing_from_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [await world.reserve(f"user-{at}", "h100", gpus=1) for at in range(4)]
    lease = await world.reserve("ada", "t4", gpus=4, hours=1)

    async def refuses(needed: dict[str, int]) -> dict[str, str]:
        return dict.fromkeys(needed, "It has left the cluster.")

    monkeypatch.setattr(world.ctx.fleet, "refusals", refuses)
    with pytest.raises(Refusal, match="cannot take it any more"):
        await placing.startable(world.ctx, await world.look(lease))
    for other in others:
        assert [place.node for place in (await world.look(other)).placement] == ["h100-1"]
    [h100] = await capacity.availability(world.ctx, 1, (), "h100")
    assert h100.free == 4


async def test_a_lease_holds_something_of_its_own_type_alone(world: World) -> None:
    made = [await world.reserve("ada", name) for name in ("t4", "h100", "t4-small", "cpu-x86")]
    async with world.ctx.store.reading() as session:
        found = [await gpu_types(world.ctx, session, one.id) for one in made]
    assert found == [{one.gpu_type} for one in made]


async def test_what_an_earlier_start_has_left_ends_before_its_gpus_are_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await world.reserve("ada", "t4", gpus=4, hours=1)
    before = await devices(world, lease)
    left = True

    async def refuses(needed: dict[str, int]) -> dict[str, str]:
        return dict.fromkeys(needed, "It has left the cluster.")

    async def alive(*_: object) -> bool:
        return left

    async def stubborn(*_: object) -> bool:
        return False

    monkeypatch.setattr(world.ctx.fleet, "refusals", refuses)
    monkeypatch.setattr(world.ctx.servers, "alive", alive)
    monkeypatch.setattr(world.ctx.servers, "stop", stubborn)
    with pytest.raises(Refusal, match="has not ended yet") as refused:
        await placing.startable(world.ctx, await world.look(lease))
    assert refused.value.code == "unavailable"
    assert await devices(world, lease) == before
    entries = await world.reasons(lease)
    left = False
    with pytest.raises(Refusal, match="cannot take it any more"):
        await placing.startable(world.ctx, await world.look(lease))
    assert len(await world.reasons(lease)) > len(entries)


def test_numbers_that_every_machine_has_say_nothing_of_a_device() -> None:
    """A renamed node without ids of its own: its lease holds nothing of the other nodes."""
    numbers = tuple("0123")
    nodes = [NodeSpec(name=name, gpu_type="t4", gpu_ids=numbers) for name in ("gpu-1", "ws2")]
    units = [Unit("lease", "ws1", int(number), "t4", number) for number in numbers]
    assert located(nodes, TYPES, units).numbers == {}
