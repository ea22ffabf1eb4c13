"""What a server is launched with."""

from __future__ import annotations

import dataclasses
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gpudev_client.ids import MARK
from gpudev_service.errors import Refusal
from gpudev_service.fleet import StaticFleet
from gpudev_service.kube import KubeAway, KubeRefused
from gpudev_service.operations import servers
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import START, World


class Folders:
    """Folders that several nodes share, of a cluster that may be away or refuse them."""

    away = refuses = False

    async def ensure(self, reservation_id: str) -> str:
        if self.away:
            raise KubeAway("its API server does not answer")
        if self.refuses:
            raise KubeRefused(403, "Forbidden", "exceeded quota")
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
    with pytest.raises(Refusal, match="the cluster does not answer") as refused:
        await servers._shared(world.ctx, row(2))
    assert refused.value.code == "unavailable", "it is tried again"
    there.away, there.refuses = False, True
    with pytest.raises(Refusal, match="The cluster refused the folder") as refused:
        await servers._shared(world.ctx, row(2))
    assert refused.value.code == "wrong_state"
    assert "quota" not in refused.value.message, "that is for the operators"


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


async def test_what_a_server_finds_in_its_environment(world: World) -> None:
    """As the user guide has it."""
    asked = await world.reserve("ada", "t4", gpus=8, hours=2, name="both")
    launch = await servers.launch(world.ctx, asked.id)
    found = launch.environment
    assert len(asked.placement) == 2
    assert found.pop("CUDA_VISIBLE_DEVICES") == "0,1,2,3", "those of the first node"
    assert found.pop("NVIDIA_VISIBLE_DEVICES") == "0,1,2,3"
    assert found == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        MARK: asked.id,
        "GPUDEV_NAME": "both",
        "GPUDEV_GPU_TYPE": "t4",
        "GPUDEV_GPUS": "8",
        "GPUDEV_GPU_MEMORY_GB": "",
        "GPUDEV_NODE": "t4-1",
        "GPUDEV_NODES": "t4-1,t4-2",
        "GPUDEV_STARTS_AT": START.isoformat(),
        "GPUDEV_EXPIRES_AT": (START + timedelta(hours=2)).isoformat(),
        "GPUDEV_DISK": "",
        "GPUDEV_SIMULATED": "1",
        "GPUDEV_URL": world.ctx.settings.url_for_servers,
    }


async def test_the_memory_of_a_gpu_is_told_where_it_is_known(world: World) -> None:
    asked = await world.reserve("ada", "t4", gpus=1)
    kind = world.ctx.settings.gpu_types["t4"].model_copy(update={"gpu_memory_gb": 16})
    types = {**world.ctx.settings.gpu_types, "t4": kind}
    ctx = dataclasses.replace(
        world.ctx, fleet=StaticFleet(world.ctx.settings.model_copy(update={"gpu_types": types}))
    )
    assert servers.environment(ctx, asked)["GPUDEV_GPU_MEMORY_GB"] == "16"


async def test_a_home_without_a_disk_is_its_owners_alone_and_there_once(world: World) -> None:
    asked = await world.reserve()
    home = servers.scratch(world.ctx, asked.id)
    for _ in range(2):  # a start may be tried again
        assert (await servers.launch(world.ctx, asked.id)).home == str(home)
        assert _mode(home) == 0o700
    disk = await world.reserve("grace", "t4", disk="work", create_disk=True)
    assert "scratch" not in ((await servers.launch(world.ctx, disk.id)).home or "scratch")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
