"""The end of a lease as a server goes through it: the owner's hook, asking open pages to save."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client import AsyncClient
from gpudev_client.models import ClosingReport, ClosingTimes, LabView
from gpudev_client.states import State
from gpudev_lab.closing import HOOK, HOOK_LOG, Closing, Saved, closing_moments
from gpudev_lab.link import Link

PATIENCE = 20.0


class Service:
    """The service's end of the wire: takes reports, and notes them."""

    def __init__(self) -> None:
        self.reports: list[ClosingReport] = []
        self.told = asyncio.Event()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path.endswith("/reservations/abc/closing")
        self.reports.append(ClosingReport.model_validate_json(request.content))
        self.told.set()
        return httpx.Response(200, json=view(timedelta(0)).reservation.model_dump(mode="json"))


def view(
    left: timedelta,
    *,
    whole: timedelta = timedelta(hours=1),
    state: State = State.ACTIVE,
    hook: float = 5.0,
    early: float = 5.0,
) -> LabView:
    now = datetime.now(UTC)
    reservation = {
        "id": "abc",
        "name": "run",
        "user": "ada",
        "server_name": "abc",
        "gpu_type": "t4",
        "gpus": 1,
        "hours": 1,
        "disk": "work",
        "state": state,
        "submitted_at": now,
        "starts_at": now + left - whole,
        "expires_at": now + left,
    }
    return LabView.model_validate(
        {
            "reservation": reservation,
            "access": [],
            "disk": None,
            "snapshots": [],
            "closing": {"hook_seconds": hook, "save_seconds": 2.0, "early_seconds": early},
        }
    )


class Site:
    """A server's closing with pages that answer as the test wants."""

    def __init__(self, home: Path, pages: int = 0) -> None:
        self.service = Service()
        client = AsyncClient("http://127.0.0.1:1", "t", http=httpx.MockTransport(self.service))
        self.link = Link(client, "abc")
        self.pages = pages
        self.answer: Callable[[str], None] = lambda _: None
        self.closing = Closing(self.link, home, tabs=lambda: self.pages, announce=self._announced)

    def _announced(self) -> None:
        assert self.closing.request is not None
        self.answer(self.closing.request.id)

    def saves_one(self, request: str) -> None:
        self.closing.take(Saved(id=request, saved=1))

    def sees(self, seen: LabView) -> None:
        self.link.view = seen
        self.closing.update()

    async def report(self) -> ClosingReport:
        async with asyncio.timeout(PATIENCE):
            await self.service.told.wait()
        (report,) = self.service.reports
        return report


@pytest.fixture
def hook(tmp_path: Path) -> Callable[[str], None]:
    def write(script: str) -> None:
        path = tmp_path / HOOK
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


async def test_the_hook_runs_at_home_and_what_it_says_is_kept(
    tmp_path: Path, hook: Callable[[str], None]
) -> None:
    hook('pwd; echo "$GPUDEV_SECONDS_LEFT left"; echo warned >&2; exit 3')
    assert await Site(tmp_path).closing.run_hook(9.7) == f"~/{HOOK} ended with exit code 3."
    assert (tmp_path / HOOK_LOG).read_text() == f"{tmp_path}\n9 left\nwarned\n"


async def test_a_hook_that_takes_too_long_is_ended_with_all_that_it_started(
    tmp_path: Path, hook: Callable[[str], None]
) -> None:
    hook("trap '' TERM; sleep 1000 & echo $! > child; wait; wait")
    said = await Site(tmp_path).closing.run_hook(1.0)
    assert said == f"~/{HOOK} was ended after 1 s, its time limit."
    child = int((tmp_path / "child").read_text())
    if psutil.pid_exists(child):  # killed, and perhaps not gone yet
        psutil.Process(child).wait(PATIENCE)


@pytest.mark.parametrize("kind", ["none", "plain", "directory"])
async def test_what_is_no_hook_is_not_run(tmp_path: Path, kind: str) -> None:
    path = tmp_path / HOOK
    path.parent.mkdir()
    if kind == "plain":
        path.write_text("echo no")
    elif kind == "directory":
        path.mkdir()
    said = await Site(tmp_path).closing.run_hook(5.0)
    expected = None if kind == "none" else f"~/{HOOK} was not run: it is not an executable file."
    assert said == expected
    assert not (tmp_path / HOOK_LOG).exists()


async def test_a_hook_that_cannot_be_started_is_said(
    tmp_path: Path, hook: Callable[[str], None]
) -> None:
    hook("true")
    (tmp_path / HOOK).write_text("#!/nowhere/sh\n")
    said = await Site(tmp_path).closing.run_hook(5.0)
    assert said == f"~/{HOOK} could not be run: {os.strerror(2)}."


@pytest.mark.parametrize("kind", ["directory", "pipe", "nowhere", "device"])
@pytest.mark.parametrize("state", [State.ACTIVE, State.STOPPING])
async def test_output_that_cannot_be_kept_keeps_nothing_from_being_saved(
    tmp_path: Path, hook: Callable[[str], None], kind: str, state: State
) -> None:
    hook("echo ran > ran; echo said")
    log = tmp_path / HOOK_LOG
    if kind == "directory":
        log.mkdir()
    elif kind == "pipe":
        os.mkfifo(log)
    else:
        log.symlink_to("/dev/full" if kind == "device" else "/nowhere/log")
    site = Site(tmp_path, pages=1)
    site.answer = site.saves_one
    site.sees(view(timedelta(seconds=4), state=state))
    report = await site.report()
    assert report.saved == 1
    why = {
        "directory": os.strerror(errno.EISDIR),
        "pipe": os.strerror(errno.ENXIO),
        "nowhere": os.strerror(errno.ENOENT),
        "device": "it is not a file",
    }
    assert report.hook == (
        f"~/{HOOK} ran to its end. Its output could not be kept: ~/{HOOK_LOG}: {why[kind]}."
    )
    assert (tmp_path / "ran").exists()


async def test_a_hook_that_fails_beyond_all_rules_keeps_nothing_from_being_saved(
    tmp_path: Path,
) -> None:
    class Broken(Closing):
        async def run_hook(self, seconds: float) -> str | None:
            raise RuntimeError("out of everything")

    site = Site(tmp_path, pages=1)
    site.answer = site.saves_one
    site.closing = Broken(site.link, tmp_path, tabs=lambda: 1, announce=site._announced)
    site.sees(view(timedelta(seconds=4)))
    report = await site.report()
    assert report.saved == 1
    assert report.hook == f"~/{HOOK} could not be run; the server's log says why."


async def test_the_end_waits_for_all_pages_and_tells_what_they_saved(tmp_path: Path) -> None:
    site = Site(tmp_path, pages=2)

    def answer(request: str) -> None:
        assert not site.closing.take(Saved(id="forged", saved=100))
        site.closing.take(Saved(id=request, saved=2))
        site.closing.take(Saved(id=request, saved=1, unsaved=["locked.ipynb"]))

    site.answer = answer
    site.sees(view(timedelta(seconds=2), hook=0.0))
    report = await site.report()
    assert (report.saved, report.unsaved, report.hook) == (3, ["locked.ipynb"], None)
    assert site.closing.request is None


async def test_a_page_that_does_not_answer_is_not_waited_for_beyond_the_end(tmp_path: Path) -> None:
    site = Site(tmp_path, pages=1)
    site.sees(view(timedelta(seconds=0.5)))
    report = await site.report()
    assert report.saved == 0
    assert report.unsaved == ["(1 open tab did not answer)"]


async def test_hook_and_saving_come_before_a_regular_end_and_once(
    tmp_path: Path, hook: Callable[[str], None]
) -> None:
    hook("echo ran >> runs")
    site = Site(tmp_path, pages=1)
    site.answer = site.saves_one
    seen = view(timedelta(seconds=4))
    site.sees(seen)
    site.sees(seen)  # more news of the same end
    report = await site.report()
    site.sees(view(timedelta(0), state=State.STOPPING))
    await site.closing.stop()
    assert (tmp_path / "runs").read_text() == "ran\n"
    assert report.hook == f"~/{HOOK} ran to its end."
    assert len(site.service.reports) == 1


async def test_an_extended_lease_ends_later(tmp_path: Path) -> None:
    site = Site(tmp_path, pages=1)
    asked = asyncio.Event()
    site.answer = lambda _: asked.set()
    site.sees(view(timedelta(seconds=2.5), hook=0.0))
    site.sees(view(timedelta(hours=2)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await asked.wait()
    await site.closing.stop()


async def test_an_early_end_does_both_at_once(tmp_path: Path, hook: Callable[[str], None]) -> None:
    hook("true")
    site = Site(tmp_path, pages=1)
    site.answer = site.saves_one
    site.sees(view(timedelta(hours=2)))
    site.sees(view(timedelta(hours=2), state=State.STOPPING))
    report = await site.report()
    assert (report.saved, report.hook) == (1, f"~/{HOOK} ran to its end.")


async def test_an_early_end_while_the_hook_runs_saves_all_the_same(
    tmp_path: Path, hook: Callable[[str], None]
) -> None:
    begun = pipe(tmp_path / "begun")
    hook(f"echo ran >> runs; echo > {begun}; sleep 1000")
    site = Site(tmp_path, pages=1)
    site.answer = site.saves_one
    site.sees(view(timedelta(seconds=60), hook=100.0))
    await asyncio.to_thread(begun.read_text)
    site.sees(view(timedelta(seconds=60), state=State.STOPPING, early=1.5))
    report = await site.report()
    assert report.saved == 1
    assert report.hook == f"~/{HOOK} was ended, since the lease ends early."
    assert (tmp_path / "runs").read_text() == "ran\n"


async def test_an_extension_leaves_a_running_hook_alone(
    tmp_path: Path, hook: Callable[[str], None]
) -> None:
    begun, go, done = (pipe(tmp_path / name) for name in ("begun", "go", "done"))
    hook(f"echo > {begun}; cat {go}; echo written > {done}")
    site = Site(tmp_path)
    site.sees(view(timedelta(seconds=60), hook=100.0))
    await asyncio.to_thread(begun.read_text)
    site.sees(view(timedelta(hours=2)))
    await asyncio.to_thread(go.write_text, "go on")
    assert await asyncio.to_thread(done.read_text) == "written\n"
    await site.closing.stop()


def pipe(path: Path) -> Path:
    """A named pipe: who writes waits for who reads, and the other way round."""
    os.mkfifo(path)
    return path


# --- leases shorter than what comes before their end --------------------------------------------

BEGIN = datetime(2026, 5, 14, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("lease", "hook", "saving", "hook_at", "save_at"),
    [
        (3600, 60, 15, 3525, 3585),
        (150, 60, 15, 75, 135),
        (75, 60, 15, 37.5, 67.5),
        (10, 60, 15, 5, 9),
        (10, 0, 15, 5, 5),
        (10, 60, 0, 5, 10),
        (10, 0, 0, 10, 10),
        (0, 60, 15, 0, 0),
    ],
)
def test_hook_and_saving_have_at_most_the_second_half(
    lease: float, hook: float, saving: float, hook_at: float, save_at: float
) -> None:
    times = ClosingTimes(hook_seconds=hook, save_seconds=saving, early_seconds=5)
    found = closing_moments(BEGIN, BEGIN + timedelta(seconds=lease), times)
    assert [(moment - BEGIN).total_seconds() for moment in found] == [hook_at, save_at]


@given(lease=st.floats(0, 1e6), hook=st.floats(0, 3600), saving=st.floats(0, 600))
def test_nothing_runs_at_a_leases_start(lease: float, hook: float, saving: float) -> None:
    times = ClosingTimes(hook_seconds=hook, save_seconds=saving, early_seconds=5)
    end = BEGIN + timedelta(seconds=lease)
    found = closing_moments(BEGIN, end, times)
    tick = timedelta(microseconds=2)
    assert BEGIN + (end - BEGIN) / 2 - tick <= found.hook <= found.save <= end
    assert found.save - found.hook <= timedelta(seconds=hook) + tick


async def test_a_hook_on_a_short_lease_waits_for_its_half(
    tmp_path: Path, hook: Callable[[str], None]
) -> None:
    """Hook and saving want 7 s, the lease has 4: they have its last 2."""
    hook("echo $GPUDEV_SECONDS_LEFT")
    site = Site(tmp_path)
    whole = timedelta(seconds=4)
    begins = datetime.now(UTC)
    site.sees(view(whole, whole=whole))
    assert (await site.report()).hook == f"~/{HOOK} ran to its end."
    log = tmp_path / HOOK_LOG
    assert datetime.fromtimestamp(log.stat().st_mtime, UTC) - begins >= timedelta(seconds=2)
    assert log.read_text() == "1\n"
