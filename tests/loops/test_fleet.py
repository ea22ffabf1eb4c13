"""Between two runs of the service the configuration may have become another one."""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from gpudev_client.states import State
from gpudev_service.loops import fleet
from gpudev_service.settings import NodeSpec
from gpudev_service.store.engine import Store
from tests.fixtures.world import NODES, START, World, make_world


async def test_a_node_that_was_added_serves_who_waits_from_the_start_on(
    world: World, store: Store, tmp_path: Path
) -> None:
    await world.reserve("ada", "h100", gpus=8, hours=5)
    waiting = await world.reserve("grace", "h100", gpus=8, hours=1)
    assert waiting.promised_start == START + timedelta(hours=5, seconds=15)
    more = (*NODES, NodeSpec(name="h100-2", gpu_type="h100", simulated=True))
    after = make_world(store, tmp_path, nodes=more)
    await fleet.run(after.ctx)
    assert (await after.look(waiting)).state is State.PREPARING


async def test_what_stays_as_it_is_is_planned_once(world: World) -> None:
    with world.ctx.fleet.changes() as types:
        assert types == frozenset(world.ctx.fleet.types())
    with world.ctx.fleet.changes() as types:
        assert types == frozenset()


async def test_what_could_not_be_planned_is_planned_the_next_time(world: World) -> None:
    with suppress(ConnectionError), world.ctx.fleet.changes():
        raise ConnectionError
    with world.ctx.fleet.changes() as types:
        assert types == frozenset(world.ctx.fleet.types())
