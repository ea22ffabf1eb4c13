"""A warning reaches an open notebook: a real kernel, listened to as JupyterLab does."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from jupyter_client.manager import AsyncKernelManager

from gpudev_service.loops import warnings
from tests.fixtures.world import World

PATIENCE = 180.0


@pytest.fixture
async def kernels() -> AsyncIterator[list[tuple[AsyncKernelManager, Any]]]:
    started: list[tuple[AsyncKernelManager, Any]] = []
    yield started
    for manager, client in started:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)


async def start(kernels: list[tuple[AsyncKernelManager, Any]], key: str) -> Any:
    """A kernel of the reservation `key`, with a client that has run one cell."""
    manager = AsyncKernelManager(kernel_name="python3")
    # A kernel leaves its output alone when it believes that it runs inside a test.
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    await manager.start_kernel(env=environment | {"GPUDEV_RESERVATION": key})
    client = manager.client()
    kernels.append((manager, client))
    client.start_channels()
    await client.wait_for_ready(timeout=PATIENCE)
    await client.execute_interactive("1 + 1", timeout=PATIENCE, output_hook=lambda _: None)
    return client


async def stream_text(client: Any, awaited: str) -> str:
    said = ""
    while awaited not in said:
        message = await client.get_iopub_msg(timeout=PATIENCE)
        if message["msg_type"] == "stream":
            assert message["content"]["name"] == "stdout"
            said += message["content"]["text"]
    return said


async def test_the_warning_appears_in_the_notebook(
    world: World, kernels: list[tuple[AsyncKernelManager, Any]]
) -> None:
    got = await world.running(await world.reserve(hours=1))
    other = await world.reserve("grace", "t4")
    client = await start(kernels, got.id)
    await start(kernels, other.id)
    world.clock.pass_time(minutes=46)
    await warnings.run(world.ctx)
    await world.ctx.background.settle()
    said = await stream_text(client, "extend it.")
    assert "[gpudev] Your lease on 1 x t4-small ends in 14 min." in said
    # The kernel works on, and shows what it is told next, as text and not as commands.
    assert await world.ctx.servers.tell(got.id, "5 min\x1b]0;evil\x07 left") == 1
    assert "[gpudev] 5 min]0;evil left" in await stream_text(client, "left")
    reply = await client.execute_interactive("2 + 2", timeout=PATIENCE, output_hook=lambda _: None)
    assert reply["content"]["status"] == "ok"


async def test_nobody_to_tell_is_no_error(world: World) -> None:
    assert await world.ctx.servers.tell("zzzzzzzzzzzzzzzz", "hello") == 0
