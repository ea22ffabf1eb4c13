"""When warnings come, and that they reach terminals."""

import contextlib
import fcntl
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gpudev_service.actor import Actor
from gpudev_service.loops import warnings
from gpudev_service.operations import extension, reservations
from gpudev_service.settings import Times
from gpudev_service.store.engine import Store
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import START, World, make_world

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
        (60, -1, [], None),
    ],
)
def test_due(length: int, left: int, given: list[int], expected: int | None) -> None:
    row = ReservationRow(
        starts_at=START, expires_at=START + timedelta(minutes=length), warned=given
    )
    now = START + timedelta(minutes=length - left)
    assert warnings.due(row, MINUTES, now)[0] == expected


def test_warnings_that_were_slept_through_count_as_given_and_those_that_do_not_fit_do_not() -> None:
    row = ReservationRow(starts_at=START, expires_at=START + timedelta(minutes=20), warned=[])
    assert warnings.due(row, MINUTES, START + timedelta(minutes=16)) == (5, [5, 15])
    assert warnings.due(row, MINUTES, START + timedelta(minutes=5)) == (15, [15])


async def test_a_warning_stands_in_the_history_once_and_again_after_an_extension(
    world: World,
) -> None:
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


@contextlib.contextmanager
def terminal(key: str, *, controlling: bool = True) -> Iterator[int]:
    """A shell of the reservation `key` in a terminal of its own; where to read what it shows."""
    parent, child = pty.openpty()
    shell = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
        env=os.environ | {"GPUDEV_RESERVATION": key},
        preexec_fn=_take_terminal if controlling else None,  # noqa: PLW1509 - no threads here
    )
    try:
        yield parent
    finally:
        shell.kill()
        shell.wait()
        os.close(parent)
        os.close(child)


async def test_a_terminal_of_the_server_shows_the_text(world: World) -> None:
    got = await world.reserve()
    with terminal(got.id) as first:
        assert await world.ctx.servers.tell(got.id, "ends in 5 min\x1b[2J") == 1
        shown = os.read(first, 1000).decode()
        assert "[gpudev] ends in 5 min" in shown
        assert "\x1b" not in shown
        # One that was opened after the first message is told as well.
        with terminal(got.id) as second:
            assert await world.ctx.servers.tell(got.id, "ends in 1 min") == 2
            assert "ends in 1 min" in os.read(second, 1000).decode()


async def test_the_terminal_of_whoever_started_the_hub_is_left_alone(world: World) -> None:
    got = await world.reserve()
    with terminal(got.id, controlling=False):
        assert await world.ctx.servers.tell(got.id, "ends in 5 min") == 0


async def test_a_terminal_that_nobody_reads_stops_nothing(world: World) -> None:
    got = await world.reserve()
    with terminal(got.id):
        told = [await world.ctx.servers.tell(got.id, "x" * 1000) for _ in range(80)]
    assert told[0] == 1
    assert told[-1] == 0  # it is full


async def test_no_warnings_are_no_work(store: Store, tmp_path: Path) -> None:
    silent = make_world(store, tmp_path, times=Times(warnings=()))
    await silent.running(await silent.reserve())
    assert await warnings.run(silent.ctx) is None


async def test_the_next_look_is_at_the_next_warning_of_anybody(world: World) -> None:
    soon = await world.running(await world.reserve("ada", hours=1))
    await world.running(await world.reserve("grace", "t4", hours=5))
    assert await warnings.run(world.ctx) == START + timedelta(minutes=30)
    world.clock.pass_time(minutes=50)
    assert await warnings.run(world.ctx) == START + timedelta(minutes=55)
    world.clock.pass_time(minutes=9)
    await warnings.run(world.ctx)
    assert await warnings.run(world.ctx) == START + timedelta(hours=4, minutes=30)
    said = [reason for reason in await world.reasons(soon) if "ends in" in reason]
    assert len(said) == 2


async def test_a_warning_that_was_given_meanwhile_is_not_given_again(world: World) -> None:
    """Between the look for those who are due and the turn to write, the lease may be extended, end,
    or be warned of."""
    warned = await world.running(await world.reserve("ada", "t4", gpus=1))
    over = await world.running(await world.reserve("grace", "t4", gpus=1))
    world.clock.pass_time(minutes=46)
    await warnings.run(world.ctx)
    await reservations.cancel(world.ctx, over.id, Actor("grace"))
    world.clock.pass_time(minutes=10)
    chosen = [warned.id, over.id]
    entries = await world.ctx.store.run(lambda s: warnings._warn(world.ctx, s, chosen))
    assert [(entry.reservation_id, entry.data["minutes"]) for entry in entries] == [(warned.id, 5)]
    assert await world.ctx.store.run(lambda s: warnings._warn(world.ctx, s, chosen)) == []


async def test_a_warning_comes_at_its_very_moment(world: World) -> None:
    """The loop is awake then, and looks at the next one only when it has passed."""
    got = await world.running(await world.reserve(hours=1))
    for minutes, left, following in ((30, 30, 45), (15, 15, 55), (10, 5, None)):
        world.clock.pass_time(minutes=minutes)
        due = None if following is None else START + timedelta(minutes=following)
        assert await warnings.run(world.ctx) == due
        said = [reason for reason in await world.reasons(got) if "ends in" in reason]
        assert said[-1].startswith(f"Your lease on 1 x t4-small ends in {left} min.")
    assert len(said) == 3


def test_who_has_no_lease_is_not_warned() -> None:
    now = START + timedelta(hours=1)
    for starts_at, expires_at in ((None, None), (START, None), (None, now + timedelta(minutes=1))):
        row = ReservationRow(starts_at=starts_at, expires_at=expires_at, warned=[30])
        assert warnings.due(row, MINUTES, now) == (None, [30])


async def test_only_of_servers_that_run_the_end_is_waited_for(world: World) -> None:
    """Whoever ends, or has not begun, is not warned; neither is its moment."""
    near = await world.reserve("ada", "t4", gpus=1, hours=0.4)
    far = await world.reserve("grace", "t4", gpus=1, hours=5)
    assert await warnings.run(world.ctx) is None
    await world.running(near)
    assert await warnings.run(world.ctx) == START + timedelta(minutes=9)
    await reservations.cancel(world.ctx, near.id, Actor("ada"))
    assert await warnings.run(world.ctx) is None
    await world.running(far)
    assert await warnings.run(world.ctx) == START + timedelta(hours=4, minutes=30)
    await reservations.cancel(world.ctx, far.id, Actor("grace"))
    assert await warnings.run(world.ctx) is None
