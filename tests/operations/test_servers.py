"""What a server is launched with."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gpudev_service.errors import Refusal
from gpudev_service.kube import KubeAway
from gpudev_service.operations import servers
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import World


class Folders:
    """Folders that several nodes share, of a cluster that may be away."""

    away = False

    async def ensure(self, reservation_id: str) -> str:
        if self.away:
            raise KubeAway("its API server does not answer")
        return f"claim-of-{reservation_id}"


def row(nodes: int) -> ReservationRow:
    return ReservationRow(id="r1", nodes=nodes)


async def test_only_several_nodes_share_a_folder_where_there_are_such(world: World) -> None:
    assert await servers._shared(world.ctx, row(2)) is None
    there: Any = Folders()
    world.ctx.shared = there
    assert await servers._shared(world.ctx, row(1)) is None
    assert await servers._shared(world.ctx, row(2)) == "claim-of-r1"
    there.away = True
    assert await servers._shared(world.ctx, row(1)) is None
    with pytest.raises(Refusal, match="the cluster does not answer"):
        await servers._shared(world.ctx, row(2))


@pytest.mark.parametrize("kind", ["local", "kubernetes"])
@pytest.mark.parametrize("gpus", [0, 2])
async def test_which_gpus_a_server_sees(world: World, kind: Any, gpus: int) -> None:
    """In a pod the device plugin says it, but for whoever has none: no image brings some."""
    asked: dict[str, Any] = {"gpu_type": "t4", "gpus": 2} if gpus else {"gpu_type": "cpu-x86"}
    view = await world.reserve(**asked)
    settings = world.ctx.settings.model_copy(update={"servers": kind})
    found = servers.environment(dataclasses.replace(world.ctx, settings=settings), view)
    seen = found.get("CUDA_VISIBLE_DEVICES"), found.get("NVIDIA_VISIBLE_DEVICES")
    if not gpus:
        assert seen == ("", "void")
    elif kind == "kubernetes":
        assert seen == (None, None)
    else:
        devices = ",".join(view.placement[0].gpu_ids)
        assert devices.count(",") == 1
        assert seen == (devices, devices)
