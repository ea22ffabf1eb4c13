"""Warnings in the terminals of a server that is a pod."""

from __future__ import annotations

import asyncio
import os
import pty
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gpudev_client.models import Event, LabView, Notice
from gpudev_lab.app import sampler_from
from gpudev_lab.gpu import NvmlSource
from gpudev_lab.terminals import Terminals, tell, terminals_of

from .test_closing import view

START = datetime(2026, 5, 12, 12, 0, tzinfo=UTC)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A terminal in a folder of its own, as /dev/pts has them; the end that a person reads."""
    ours, theirs = pty.openpty()
    (tmp_path / "3").symlink_to(os.ttyname(theirs))
    (tmp_path / "ptmx").write_text("")
    (tmp_path / "4").write_text("a file is no terminal")
    yield ours, tmp_path
    os.close(ours)
    os.close(theirs)


def read(terminal: int) -> str:
    """What stands in the one line that was written."""
    return os.read(terminal, 1000).decode().strip("\r\n")


def test_a_sentence_is_shown_and_cannot_steer_the_terminal(terminal: tuple[int, Path]) -> None:
    ours, folder = terminal
    assert tell("Ends in 5 min.\x1b[2J", folder) == 1
    assert read(ours) == "\a[gpudev] Ends in 5 min.[2J"
    assert (folder / "4").read_text() == "a file is no terminal"


async def test_warnings_are_shown_and_notes_are_not(terminal: tuple[int, Path]) -> None:
    ours, folder = terminal
    shown = Terminals(folder)
    reservation = view(timedelta(hours=1)).reservation
    for kind in ("note", "warning"):
        event = Event(
            id=1, kind=kind, at=datetime.now(UTC), message=f"a {kind}", reservation=reservation
        )
        await shown.hear(event)
    assert read(ours) == "\a[gpudev] a warning"


def seen(text: str | None, at: datetime = START) -> LabView:
    notice = None if text is None else Notice(text=text, at=at)
    known = view(timedelta(hours=1))
    reservation = known.reservation.model_copy(update={"notice": notice})
    return known.model_copy(update={"reservation": reservation})


async def test_what_has_happened_is_shown_when_it_is_heard_of_and_not_again(
    terminal: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def note(text: str, folder: Path) -> int:
        said.append(text)
        return 1

    monkeypatch.setattr("gpudev_lab.terminals.tell", note)
    shown = Terminals(terminal[1])
    later = START + timedelta(minutes=1)
    views = [
        None,
        seen("before this server's time"),
        seen("before this server's time"),
        seen("the worker was killed", later),
        seen("the worker was killed", later),
        seen("the worker was killed, and runs again", later),
        seen(None),
        seen("killed again", later + timedelta(minutes=1)),
    ]
    for one in views:
        shown.look(one)
    await asyncio.gather(*shown._telling)
    assert sorted(said) == ["killed again", "the worker was killed"]


async def test_the_first_thing_that_happens_is_shown(terminal: tuple[int, Path]) -> None:
    ours, folder = terminal
    shown = Terminals(folder)
    shown.look(seen(None))
    shown.look(seen("The server was killed."))
    await asyncio.gather(*shown._telling)
    assert read(ours) == "\a[gpudev] The server was killed."


def test_where_the_service_writes_itself_nobody_else_does() -> None:
    assert terminals_of({}) is None
    assert terminals_of({"GPUDEV_POD": "1"}) is not None


def test_no_terminals_at_all(tmp_path: Path) -> None:
    assert tell("nobody", tmp_path / "none") == 0


@pytest.mark.parametrize(
    ("environment", "devices"),
    [
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-1,GPU-2", "GPUDEV_GPUS_HERE": "2"}, ["GPU-1", "GPU-2"]),
        ({"NVIDIA_VISIBLE_DEVICES": "all", "GPUDEV_GPUS_HERE": "2"}, ["0", "1"]),
        ({"GPUDEV_GPUS_HERE": "1"}, ["0"]),
        ({"NVIDIA_VISIBLE_DEVICES": "void", "GPUDEV_GPUS_HERE": "0"}, None),
        ({"CUDA_VISIBLE_DEVICES": "7", "GPUDEV_GPUS_HERE": "0"}, None),
    ],
)
def test_in_a_pod_the_device_plugin_says_which_gpus(
    environment: dict[str, str], devices: list[str] | None
) -> None:
    sampler = sampler_from({"GPUDEV_RESERVATION": "r", "GPUDEV_POD": "1", **environment})
    if devices is None:
        assert sampler is None
        return
    assert sampler is not None
    source = sampler._source
    assert isinstance(source, NvmlSource)
    assert source._devices == devices
