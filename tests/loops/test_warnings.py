"""When warnings come, and that they reach terminals."""

import fcntl
import os
import pty
import subprocess
import sys
import termios
from datetime import timedelta

import pytest

from gpudev_service.loops import warnings
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import START, World

MINUTES = (30, 15, 5)


@pytest.mark.parametrize(
    ("length", "left", "given", "expected"),
    [
        (60, 31, [], None),
        (60, 30, [], 30),
        (60, 14, [30], 15),
        (60, 4, [], 5),  # slept through the others: only the most urgent
        (60, 4, [5, 15, 30], None),
        (20, 20, [], None),  # never longer than 30 minutes: no warning at the start
        (20, 15, [], 15),
        (60, 0, [], None),
    ],
)
def test_due(length: int, left: int, given: list[int], expected: int | None) -> None:
    row = ReservationRow(
        starts_at=START, expires_at=START + timedelta(minutes=length), warned=given
    )
    now = START + timedelta(minutes=length - left)
    assert warnings.due(row, MINUTES, now)[0] == expected


async def test_a_warning_stands_in_the_history_once_and_again_after_an_extension(
    world: World,
) -> None:
    from gpudev_service.actor import Actor
    from gpudev_service.operations import extension

    got = await world.running(await world.reserve(hours=1))
    world.clock.pass_time(minutes=46)
    await warnings.run(world.ctx)
    await warnings.run(world.ctx)
    said = [r for r in await world.reasons(got) if "ends in" in r]
    assert said == ["Your lease on 1 x t4-small ends in 14 min. Save your work, or extend it."]
    await extension.extend(world.ctx, got.id, Actor("ada"), 1)
    world.clock.pass_time(minutes=46)
    assert await warnings.run(world.ctx) is not None
    assert len([r for r in await world.reasons(got) if "ends in" in r]) == 2


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def test_a_terminal_of_the_server_shows_the_text(world: World) -> None:
    got = await world.reserve()
    parent, child = pty.openpty()
    shell = subprocess.Popen(  # noqa: ASYNC220 - started at once
        [sys.executable, "-c", "import time; time.sleep(600)"],
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
        env=os.environ | {"GPUDEV_RESERVATION": got.id},
        preexec_fn=_take_terminal,  # noqa: PLW1509 - no threads here
    )
    try:
        reached = await world.ctx.servers.tell(got.id, "ends in 5 min\x1b[2J")
        assert reached == 1
        shown = os.read(parent, 1000).decode()
        assert "[gpudev] ends in 5 min" in shown
        assert "\x1b" not in shown
    finally:
        shell.kill()
        shell.wait()
        os.close(parent)
        os.close(child)
