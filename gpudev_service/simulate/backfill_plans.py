"""Where a cycle of Slurm's backfill finds room for a job: as Slurm does, and as exactly as can be.

`AsSlurm` follows what slurm.conf(5) tells of `sched/backfill` with `select/cons_tres`, and what
slurmctld 22.05 was seen to do:

- When a job cannot start now, the running jobs are thought away in the order of their ends, in
  groups: those that end within 30 s of the first, then within 60 s of the next, 120 s, and so on
  (without `bf_window_linear`). The job is planned for the end of the group that makes room for it.
- A job that waits for its start keeps its nodes whole: nobody else is planned on them meanwhile.

`Exact` knows neither: each job gets the very first start, GPU by GPU. It keeps to the order more
strictly, and leaves less to those who ask for little.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple, Protocol

_FOREVER = 1 << 62
#: How far apart ends may be in the first group of running jobs, in milliseconds; then twice that.
_FIRST_GROUP_MS = 30_000


class Want(NamedTuple):
    """`units` on each of `nodes` nodes for `length` milliseconds."""

    nodes: int
    units: int
    length: int


class Taken(NamedTuple):
    """`units` on each of some nodes, until `end`."""

    nodes: tuple[str, ...]
    units: int
    end: int


#: A start and the nodes.
_Found = tuple[int, tuple[str, ...]]


class Plan(Protocol):
    """What one cycle knows of a partition: it begins with the jobs that run."""

    def place(self, want: Want, since: int) -> _Found | None:
        """A start no earlier than `since`, and the nodes; None if there is none in the window."""
        ...

    def start(self, taken: Taken) -> None:
        """A job starts now."""
        ...

    def reserve(self, start: int, taken: Taken) -> None:
        """A job is to start later."""
        ...


class AsSlurm:
    """Room as slurmctld finds it."""

    def __init__(
        self, now: int, units: Mapping[str, int], running: Iterable[Taken], window: int
    ) -> None:
        self._now, self._horizon = now, now + window
        self._free = dict(units)
        self._running = sorted(running, key=attrgetter("end"))
        for job in self._running:
            self._use(job)
        #: The starts and the ends of each node's reservations, which never overlap, in order.
        self._starts: dict[str, list[int]] = {node: [] for node in units}
        self._until: dict[str, list[int]] = {node: [] for node in units}
        #: The ends of reservations, where it is worth to look again.
        self._ends: list[int] = []
        #: For whom there was no room: there is none for who wants as much or more, in this cycle.
        self._hopeless: list[Want] = []
        #: What `_will_run` found, by what it was asked, until another job starts.
        self._looked: dict[tuple[int, int, tuple[str, ...]], _Found | None] = {}

    def _use(self, job: Taken) -> None:
        for node in job.nodes:
            self._free[node] -= job.units

    def place(self, want: Want, since: int) -> _Found | None:
        if any(
            want.nodes >= less.nodes and want.units >= less.units and want.length >= less.length
            for less in self._hopeless
        ):
            return None
        later = since
        while later <= self._horizon:
            found = self._without_reserved(want, later)
            if found is not None and found[0] <= self._horizon:
                return found
            at = bisect_right(self._ends, later)
            if at == len(self._ends):
                break
            later = self._ends[at]
        self._hopeless.append(want)
        return None

    def _without_reserved(self, want: Want, later: int) -> _Found | None:
        """A start on nodes that nobody has reserved, if the job began at `later`."""
        length = want.length
        open_nodes = tuple([node for node in self._free if self._is_open(node, later, length)])
        if len(open_nodes) < want.nodes:
            return None
        asked = want.nodes, want.units, open_nodes
        if asked not in self._looked:
            self._looked[asked] = self._will_run(want, open_nodes)
        found = self._looked[asked]
        if found is None:
            return None
        start, nodes = max(found[0], later), found[1]
        if all(self._is_open(node, start, length) for node in nodes):
            return start, nodes
        return None

    def _is_open(self, node: str, start: int, length: int) -> bool:
        starts = self._starts[node]
        at = bisect_right(starts, start)
        if at and self._until[node][at - 1] > start:
            return False
        return at == len(starts) or starts[at] >= start + length

    def _will_run(self, want: Want, nodes: tuple[str, ...]) -> _Found | None:
        """When running jobs have left enough of these nodes, by groups of their ends."""
        free = {node: self._free[node] for node in nodes}
        chosen = _fullest(free, want)
        if chosen is not None:
            return self._now, chosen
        group, at = _FIRST_GROUP_MS, 0
        concerned = [job for job in self._running if any(node in free for node in job.nodes)]
        while at < len(concerned):
            until = concerned[at].end + group
            while at < len(concerned) and concerned[at].end <= until:
                for node in concerned[at].nodes:
                    if node in free:
                        free[node] += concerned[at].units
                at += 1
            group *= 2
            chosen = _fullest(free, want)
            if chosen is not None:
                return concerned[at - 1].end, chosen
        return None

    def start(self, taken: Taken) -> None:
        self._use(taken)
        self._looked.clear()
        insort(self._running, taken, key=attrgetter("end"))

    def reserve(self, start: int, taken: Taken) -> None:
        for node in taken.nodes:
            at = bisect_right(self._starts[node], start)
            self._starts[node].insert(at, start)
            self._until[node].insert(at, taken.end)
        if taken.end not in self._ends:
            insort(self._ends, taken.end)


def _fullest(free: Mapping[str, int], want: Want) -> tuple[str, ...] | None:
    """The nodes with room that have least of it left."""
    fitting = sorted((units, node) for node, units in free.items() if units >= want.units)
    if len(fitting) < want.nodes:
        return None
    return tuple(node for _, node in fitting[: want.nodes])


class Profile:
    """Free units of one node over time: `free[i]` from `times[i]` on, until `times[i + 1]`."""

    __slots__ = ("free", "times")

    def __init__(self, since: int, units: int) -> None:
        self.times, self.free = [since], [units]

    def take(self, start: int, end: int, units: int) -> None:
        """Takes `units` over [start, end)."""
        first, last = self._cut(start), self._cut(end)
        for at in range(first, last):
            self.free[at] -= units

    def _cut(self, moment: int) -> int:
        """The place of the step that begins at `moment`, which is made if need be."""
        at = bisect_right(self.times, moment) - 1
        if at < 0:
            return 0
        if self.times[at] != moment:
            at += 1
            self.times.insert(at, moment)
            self.free.insert(at, self.free[at - 1])
        return at

    def at(self, moment: int) -> int:
        return self.free[bisect_right(self.times, moment) - 1]

    def windows(self, units: int, length: int, since: int) -> list[tuple[int, int]]:
        """The spans from `since` on with `units` free that are no shorter than `length`."""
        found, begin = [], None
        times = self.times
        for at, free in enumerate(self.free):
            if free >= units:
                if begin is None:
                    begin = times[at]
            elif begin is not None:
                begin = max(begin, since)
                if times[at] - begin >= length:
                    found.append((begin, times[at]))
                begin = None
        if begin is not None:
            found.append((max(begin, since), _FOREVER))
        return found

    def first(self, units: int, length: int, since: int) -> int:
        """The first start from `since` on; never, for a node that is too small."""
        begin, times = -1, self.times
        for at, free in enumerate(self.free):
            if free >= units:
                if begin < 0:
                    begin = max(since, times[at])
            elif begin >= 0:
                if times[at] - begin >= length:
                    return begin
                begin = -1
        return begin if begin >= 0 else _FOREVER


class Exact:
    """The very first room there is."""

    def __init__(
        self, now: int, units: Mapping[str, int], running: Iterable[Taken], window: int
    ) -> None:
        self._now, self._horizon = now, now + window
        self._profiles = {node: Profile(now, there) for node, there in units.items()}
        for job in running:
            self.reserve(now, job)

    def start(self, taken: Taken) -> None:
        self.reserve(self._now, taken)

    def reserve(self, start: int, taken: Taken) -> None:
        for node in taken.nodes:
            self._profiles[node].take(start, taken.end, taken.units)

    def place(self, want: Want, since: int) -> _Found | None:
        found = self._one(want, since) if want.nodes == 1 else self._several(want, since)
        return found if found is not None and found[0] <= self._horizon else None

    def _one(self, want: Want, since: int) -> _Found | None:
        best = (_FOREVER, 0, "")
        for name, profile in self._profiles.items():
            start = profile.first(want.units, want.length, since)
            if start <= best[0] and start < _FOREVER:
                best = min(best, (start, profile.at(start), name))
        return (best[0], (best[2],)) if best[2] else None

    def _several(self, want: Want, since: int) -> _Found | None:
        windows = {
            name: each.windows(want.units, want.length, since)
            for name, each in self._profiles.items()
        }
        for start in sorted({begin for spans in windows.values() for begin, _ in spans}):
            fitting = sorted(
                (self._profiles[name].at(start), name)
                for name, spans in windows.items()
                if any(begin <= start and start + want.length <= end for begin, end in spans)
            )
            if len(fitting) >= want.nodes:
                return start, tuple(name for _, name in fitting[: want.nodes])
        return None
