"""What counts as use of a server, and when the service is told."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from gpudev_client.errors import Unreachable
from gpudev_client.models import ActivityReport, ActivitySource, IdleVerdict
from gpudev_lab import activity, usage
from gpudev_lab.activity import HEARTBEAT, Reporter, Terminals, worth_telling
from gpudev_lab.gpu import GpuFigures, GpuUse, Point
from tests.fixtures.world import START


def source(kind: str = "kernels", *, busy: bool = False, at: datetime | None = None) -> Any:
    return ActivitySource.model_validate({"source": kind, "busy": busy, "last_at": at})


class Kernels:
    """The part of a `MappingKernelManager` that is looked at."""

    def __init__(self, *kernels: tuple[str, datetime]) -> None:
        self._kernels = [
            SimpleNamespace(execution_state=state, last_activity=at) for state, at in kernels
        ]

    def list_kernel_ids(self) -> list[str]:
        return [str(index) for index in range(len(self._kernels))]

    def get_kernel(self, key: str) -> Any:
        return self._kernels[int(key)]


def test_a_busy_kernel_is_busy_and_an_idle_one_was_used_last_when_it_said() -> None:
    earlier = START - timedelta(hours=1)
    found = activity.kernels(Kernels(("idle", START), ("busy", earlier)))
    assert (found.busy, found.last_at, found.detail) == (True, START, "1 kernel is busy.")
    found = activity.kernels(Kernels(("idle", earlier)))
    assert (found.busy, found.last_at, found.detail) == (False, earlier, None)
    assert activity.kernels(Kernels()).last_at is None


def test_a_kernel_that_has_not_answered_yet_is_not_busy() -> None:
    starting = Kernels()
    starting._kernels = [SimpleNamespace()]
    assert not activity.kernels(starting).busy


@dataclass
class Shell:
    """A shell on a terminal of its own."""

    process: subprocess.Popen[bytes]
    master: int
    path: str = field(default="")

    def forget(self) -> None:
        """As if nobody had touched the terminal for a day."""
        day = (START - timedelta(days=1)).timestamp()
        os.utime(self.path, (day, day))

    def expect(self, text: bytes) -> None:
        seen = b""
        while text not in seen:
            seen += os.read(self.master, 4096)


@pytest.fixture
def shell() -> Iterator[Shell]:
    master, slave = pty.openpty()
    path = os.ttyname(slave)
    process = subprocess.Popen(
        ["sh"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    yield Shell(process, master, path)
    process.kill()
    process.wait()
    os.close(master)


def test_typing_is_use_and_printing_is_none(shell: Shell) -> None:
    members = usage.tree(shell.process.pid)
    os.write(shell.master, b"read line; echo printed\n")
    shell.expect(b"echo printed\r\n")
    shell.forget()
    with open(shell.path, "wb", buffering=0) as terminal:  # noqa: PTH123 - a terminal
        terminal.write(b"[gpudev] Your lease ends\r\n")
    shell.expect(b"Your lease ends")
    (at,) = usage.typed(members).values()
    assert at < START
    os.write(shell.master, b"\n")
    shell.expect(b"\nprinted\r\n")
    (at,) = usage.typed(members).values()
    assert datetime.now(UTC) - at < timedelta(minutes=5)


def test_work_in_a_terminal_is_use_while_it_goes_on(shell: Shell) -> None:
    terminals, now = Terminals(), datetime.now(UTC)
    pid = shell.process.pid
    shell.forget()
    assert not terminals.look([pid], now).busy
    # A second of the processor in a second and a half of the test's time.
    os.write(
        shell.master,
        b"python3 -c 'import time\nwhile time.process_time() < 1: pass'; echo don''e\n",
    )
    shell.expect(b"done\r\n")
    shell.forget()
    later = now + timedelta(seconds=1.5)
    found = terminals.look([pid], later)
    assert found.busy
    assert found.last_at == later
    assert found.detail == "Something works in 1 terminal."
    again = terminals.look([pid], later + timedelta(minutes=1))
    assert not again.busy
    assert again.last_at == later


def test_a_shell_that_is_gone_is_passed_over() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert not psutil.pid_exists(child.pid)
    found = Terminals().look([child.pid], START)
    assert (found.busy, found.last_at) == (False, None)


def test_a_program_that_works_is_use_whoever_is_logged_in() -> None:
    key = "a000000000000077"
    code = (
        "import sys, time\n"
        "for line in sys.stdin:\n"
        "    end = time.process_time() + float(line)\n"
        "    while time.process_time() < end: pass\n"
        "    print('done', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "GPUDEV_RESERVATION": key},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None

        def work(seconds: float) -> None:
            program.stdin.write(f"{seconds}\n")  # type: ignore[union-attr]
            program.stdin.flush()  # type: ignore[union-attr]
            assert program.stdout.readline() == "done\n"  # type: ignore[union-attr]

        work(0)
        programs = activity.Programs(key)
        assert not programs.look(START).busy
        work(1)
        later = START + timedelta(seconds=2)
        found = programs.look(later)
        assert (found.busy, found.last_at) == (True, later)
        again = programs.look(later + timedelta(minutes=1))
        assert (again.busy, again.last_at) == (False, later)
        program.stdin.close()


def test_an_ssh_session_is_in_use_for_as_long_as_the_time_between_two_looks() -> None:
    used = [START - timedelta(hours=1), START - timedelta(seconds=activity.EVERY - 1)]
    found = activity.ssh(used, START)
    assert (found.busy, found.last_at, found.detail) == (True, used[1], "1 SSH session in use.")
    assert not activity.ssh([START - timedelta(seconds=activity.EVERY)], START).busy
    assert activity.ssh([], START).last_at is None


def figures(percent: int | None, **values: Any) -> GpuFigures:
    use = GpuUse(name="a", used_percent=percent, memory_used=None, memory_total=None)
    return GpuFigures(gpus=[use], **values)


def test_a_gpu_that_computes_is_use() -> None:
    history = [Point(at=100, used=90, memory=0), Point(at=200, used=0, memory=0)]
    found = activity.gpus(figures(0, history=history))
    assert found is not None
    assert (found.busy, found.last_at) == (False, datetime.fromtimestamp(100, UTC))
    found = activity.gpus(figures(97))
    assert found is not None
    assert (found.busy, found.detail) == (True, "The GPUs compute, at 97 %.")


@pytest.mark.parametrize(
    "given",
    [figures(None), figures(50, simulated=True), GpuFigures(unavailable="No driver.")],
)
def test_gpus_that_cannot_be_seen_are_left_out(given: GpuFigures) -> None:
    assert activity.gpus(given) is None


def verdict(state: str) -> IdleVerdict:
    return IdleVerdict.model_validate(
        {
            "state": state,
            "summary": "",
            "since": None,
            "reasons": [],
            "action": "warn",
            "idle_at": None,
            "release_at": None,
            "kept_until": None,
            "keeps_left": 1,
        }
    )


def test_told_first_then_when_it_changes_and_from_time_to_time() -> None:
    quiet, busy = [source()], [source(busy=True)]
    soon = START + timedelta(minutes=1)
    assert worth_telling(None, START, quiet, START, None)
    assert not worth_telling({"kernels": quiet[0]}, START, quiet, soon, verdict("in_use"))
    assert worth_telling({"kernels": quiet[0]}, START, busy, soon, verdict("in_use"))
    assert worth_telling({"kernels": busy[0]}, START, quiet, soon, verdict("in_use"))
    assert worth_telling({"kernels": quiet[0]}, START, quiet, START + HEARTBEAT, verdict("in_use"))


def test_use_of_an_idle_lease_is_told_at_once() -> None:
    used = [source(at=START + timedelta(seconds=30))]
    told, soon = {"kernels": source()}, START + timedelta(minutes=1)
    assert worth_telling(told, START, used, soon, verdict("idle"))
    assert worth_telling(told, START, used, soon, verdict("kept"))
    assert not worth_telling(told, START, used, soon, verdict("in_use"))


class Service:
    """A link and its client, which is away as often as it is told to be."""

    def __init__(self, *, judged: bool = True) -> None:
        idle = verdict("in_use") if judged else None
        self.view: Any = SimpleNamespace(reservation=SimpleNamespace(idle=idle))
        self.client, self.reservation_id = self, "a000000000000001"
        self.reports: list[ActivityReport] = []
        self.away, self.renewed = 0, 0
        self.answer = verdict("in_use")

    async def report_activity(self, key: str, report: ActivityReport) -> Any:
        if self.away:
            self.away -= 1
            raise Unreachable("away")
        self.reports.append(report)
        return SimpleNamespace(idle=self.answer)

    async def renew(self) -> None:
        self.renewed += 1


class Looks:
    """What a test lets be seen, and the clock."""

    def __init__(self, service: Service) -> None:
        self.found, self.at = [source()], START
        self.reporter = Reporter(service, self.look, now=lambda: self.at)  # type: ignore[arg-type]

    async def look(self, now: datetime) -> list[ActivitySource]:
        return self.found

    async def minutes(self, count: int) -> None:
        for _ in range(count):
            self.at += timedelta(minutes=1)
            await self.reporter.once()


async def test_an_hour_of_quiet_is_a_report_every_five_minutes() -> None:
    service = Service()
    await Looks(service).minutes(60)
    assert len(service.reports) == 12
    assert service.renewed == 1


async def test_nothing_is_looked_at_where_nothing_is_judged() -> None:
    service = Service(judged=False)
    looks = Looks(service)
    looks.found = None  # type: ignore[assignment]
    await looks.minutes(10)
    assert service.reports == []


async def test_what_could_not_be_told_is_told_at_the_next_look() -> None:
    service = Service()
    looks = Looks(service)
    service.away = 1
    with pytest.raises(Unreachable):
        await looks.minutes(1)
    await looks.minutes(1)
    assert len(service.reports) == 1


async def test_another_verdict_reaches_the_pages() -> None:
    service = Service()
    looks = Looks(service)
    await looks.minutes(1)
    service.answer = verdict("idle")
    await looks.minutes(4)
    assert service.renewed == 1
    await looks.minutes(1)
    assert service.renewed == 2
    looks.found = [source(at=looks.at + timedelta(seconds=30))]
    service.answer = verdict("in_use")
    await looks.minutes(1)
    assert (len(service.reports), service.renewed) == (3, 3)
