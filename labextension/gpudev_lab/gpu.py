"""GPU figures: one sampler per server, off the event loop, with a history that stays small.

Real figures come from NVML; a lease on simulated GPUs shows simulated ones, marked as such. Nobody
waits for a driver: a reading has a time limit, and what it would not give is said in a sentence.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

log = logging.getLogger(__name__)

#: Seconds between samples while somebody looks, and otherwise.
WATCHED_EVERY, ALONE_EVERY = 10.0, 60.0
#: Seconds for which a look counts.
LOOK_LASTS = 90.0
#: Seconds that one reading may take before it is given up for this time.
READING_LIMIT = 5.0
#: Points of the history; when they are full, two neighbours become one.
POINTS = 180

NO_FIGURES = "There are no GPU figures on this machine."


class GpuUse(BaseModel, defer_build=True):
    """One GPU at one moment. None where the driver does not say."""

    name: str
    used_percent: int | None
    memory_used: int | None
    memory_total: int | None


class Point(BaseModel, defer_build=True):
    """All GPUs of the lease together, over some seconds: `at` in seconds since 1970, the mean use
    (None where the driver tells none) and the highest share of memory in percent."""

    at: int
    used: int | None
    memory: int


class GpuFigures(BaseModel, defer_build=True):
    """What the panel shows. `unavailable` is a sentence, and then there are no figures."""

    gpus: list[GpuUse] = []
    history: list[Point] = []
    simulated: bool = False
    sampled_at: int | None = None
    unavailable: str | None = None


class Source(Protocol):
    """Where figures come from. `read` may block and runs in a thread of its own."""

    simulated: bool

    def read(self) -> list[GpuUse]: ...


class NoFigures(Exception):  # noqa: N818 - says what is the matter
    """There is nothing to read; the message is a sentence."""


class NvmlSource:
    """The GPUs that `devices` names (UUIDs or indices), by NVML. Not initialized before the first
    reading: importing alone takes a tenth of a second."""

    simulated = False

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = devices
        self._handles: list[Any] | None = None

    def read(self) -> list[GpuUse]:
        try:
            import pynvml
        except ImportError:
            raise NoFigures(NO_FIGURES) from None
        try:
            if self._handles is None:
                pynvml.nvmlInit()
                self._handles = [_handle(pynvml, device) for device in self._devices]
            return [_use(pynvml, handle) for handle in self._handles]
        except pynvml.NVMLError as error:
            self._handles = None  # a driver that was loaded anew wants new ones
            raise NoFigures(f"{NO_FIGURES[:-1]}: {error}.") from None


def _handle(pynvml: Any, device: str) -> Any:
    if device.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(device))
    return pynvml.nvmlDeviceGetHandleByUUID(device)


def _use(pynvml: Any, handle: Any) -> GpuUse:
    name = pynvml.nvmlDeviceGetName(handle)
    used = _unless_refused(pynvml, lambda: int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))
    memory = _unless_refused(pynvml, lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    return GpuUse(
        name=name.decode() if isinstance(name, bytes) else str(name),
        used_percent=used,
        memory_used=None if memory is None else int(memory.used),
        memory_total=None if memory is None else int(memory.total),
    )


def _unless_refused(pynvml: Any, call: Callable[[], Any]) -> Any:
    """A MIG slice has no rate of its own, and some devices do not tell their memory."""
    try:
        return call()
    except pynvml.NVMLError_NotSupported:
        return None


class SimulatedSource:
    """Figures for simulated GPUs: a load that comes and goes, the same for the same moment."""

    simulated = True

    def __init__(
        self, count: int, memory_gb: int = 16, clock: Callable[[], float] = time.time
    ) -> None:
        self._count, self._memory, self._clock = count, memory_gb * 10**9, clock

    def read(self) -> list[GpuUse]:
        now = self._clock()
        total = self._memory
        found = []
        for index in range(self._count):
            swing = (1 + math.sin(now / 90 + index)) / 2
            found.append(
                GpuUse(
                    name=f"Simulated GPU {index}",
                    used_percent=round(15 + 80 * swing),
                    memory_used=round(total * (0.3 + 0.4 * swing)),
                    memory_total=total,
                )
            )
        return found


@dataclass(slots=True)
class _Bucket:
    """`used` is a sum, of as many samples as told it."""

    begin: float
    used: float
    told: int
    memory: float

    def take(self, other: _Bucket) -> None:
        self.used, self.told = self.used + other.used, self.told + other.told
        self.memory = max(self.memory, other.memory)

    def point(self) -> Point:
        used = round(self.used / self.told) if self.told else None
        return Point(at=int(self.begin), used=used, memory=round(self.memory))


class History:
    """A curve of at most `points` points, however long it gets: the same for all of the lease, and
    coarser the longer it is."""

    def __init__(self, points: int = POINTS, seconds: float = WATCHED_EVERY) -> None:
        self._points, self._width = points, seconds
        self._buckets: list[_Bucket] = []

    def add(self, at: float, used: float | None, memory: float) -> None:
        found = _Bucket(at, used or 0.0, int(used is not None), memory)
        last = self._buckets[-1] if self._buckets else None
        if last is not None and at < last.begin + self._width:
            last.take(found)
            return
        self._buckets.append(found)
        # More than once where samples were far apart.
        while len(self._buckets) > self._points:
            self._halve()

    def _halve(self) -> None:
        self._width *= 2
        old, self._buckets = self._buckets, []
        for bucket in old:
            last = self._buckets[-1] if self._buckets else None
            if last is None or bucket.begin >= last.begin + self._width:
                self._buckets.append(bucket)
            else:
                last.take(bucket)

    def points(self) -> list[Point]:
        return [bucket.point() for bucket in self._buckets]


class Sampler:
    """Reads the figures while the server runs; more often while somebody looks."""

    def __init__(self, source: Source, *, limit: float = READING_LIMIT) -> None:
        self.history = History()
        self._source, self._limit = source, limit
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gpudev-gpu")
        self._gpus: list[GpuUse] = []
        self._sampled_at: int | None = None
        self._unavailable: str | None = None
        self._looked_at = -LOOK_LASTS
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Future[list[GpuUse]] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="gpudev GPU figures")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._thread.shutdown(wait=False, cancel_futures=True)

    def look(self) -> GpuFigures:
        """What is known now; while somebody looks, samples are taken more often."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._looked_at > LOOK_LASTS:
            self._looked.set()
        self._looked_at = loop.time()
        return self.figures()

    def figures(self) -> GpuFigures:
        """What is known now, for somebody who is content with it."""
        return GpuFigures(
            gpus=self._gpus,
            history=self.history.points(),
            simulated=self._source.simulated,
            sampled_at=self._sampled_at,
            unavailable=self._unavailable,
        )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self.sample()
            watched = loop.time() - self._looked_at < LOOK_LASTS
            self._looked.clear()
            try:
                async with asyncio.timeout(WATCHED_EVERY if watched else ALONE_EVERY):
                    await self._looked.wait()
            except TimeoutError:
                continue

    async def sample(self) -> None:
        """One reading. A driver that hangs keeps its thread; until it is back nothing is asked."""
        if self._reading is None or self._reading.done():
            loop = asyncio.get_running_loop()
            self._reading = loop.run_in_executor(self._thread, self._source.read)
        try:
            async with asyncio.timeout(self._limit):
                gpus = await asyncio.shield(self._reading)
        except TimeoutError:
            self._unavailable = "The GPU's driver does not answer."
            return
        except NoFigures as error:
            self._gpus, self._unavailable = [], str(error)
            return
        self._take(gpus)

    def _take(self, gpus: list[GpuUse]) -> None:
        now = time.time()
        self._gpus, self._unavailable, self._sampled_at = gpus, None, int(now)
        rates = [gpu.used_percent for gpu in gpus if gpu.used_percent is not None]
        shares = [
            100 * gpu.memory_used / gpu.memory_total
            for gpu in gpus
            if gpu.memory_used is not None and gpu.memory_total
        ]
        if rates or shares:
            used = sum(rates) / len(rates) if rates else None
            self.history.add(now, used, max(shares, default=0.0))
