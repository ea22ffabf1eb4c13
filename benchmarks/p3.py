"""From an event to everybody's new start, with 10,000 waiting: the planner alone, event by event.

CPU time of one core per event for the planner alone, and wall time of calls by HTTP to a running
service whose loops run beside them (`events_in_service` says what is a stand-in there); then what
1,000 open streams see of events behind a real Hub (`watchers`). `EVENTS` changes how many there are
of each kind; of fewer than 100 the p99 is the slowest. `SIZE=small` lets 2,000 wait before 200
nodes. The planner is compiled as in the service's image, for the running service too; `COMPILED=0`
measures its sources.
"""

from __future__ import annotations

import gc
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from benchmarks import campaign, compiled, events_in_service, r5, watchers
from benchmarks.campaign import percentile, verdict
from benchmarks.planner_queues import HOUR, MINUTE, NOW, parameters, queue
from benchmarks.ssh_peers import here
from gpudev_service.planner import Changes, Demand, Hold, World

GOAL_WATCHERS = 0.150
STREAMS = 1000
#: When Slurm's own scheduler tells a new start.
PEER = "Slurm's backfill up to 30s and its cycle"

#: (waiting, nodes, events of each kind)
FULL, SMALL = (10_000, 1000, 100), (2_000, 200, 15)
#: p50 and p99 in seconds that an event of each kind may take.
GOALS = {
    "arrival": (None, 0.010),
    "early end": (0.050, 0.250),
    "extension": (0.050, 0.250),
    "cordon": (0.050, 0.250),
    "cancel": (0.050, 0.250),
}


@dataclass
class Site:
    """A world, and what may still happen in it."""

    world: World
    holds: dict[str, Hold]
    waiting: dict[str, Demand]
    new: list[Demand]
    nodes: list[str]
    rng: random.Random
    closed: str | None = None
    changed: dict[str, list[int]] = field(default_factory=dict)
    moved_later: dict[str, list[int]] = field(default_factory=dict)

    def arrival(self) -> Callable[[], Changes]:
        demand = self.new.pop()
        self.waiting[demand.id] = demand
        return lambda: self.world.add(demand)

    def early_end(self) -> Callable[[], Changes]:
        hold = self.holds.pop(self.rng.choice(list(self.holds)))
        return lambda: self.world.release(hold.id)

    def cancel(self) -> Callable[[], Changes]:
        demand = self.waiting.pop(self.rng.choice(list(self.waiting)))
        return lambda: self.world.remove(demand.id)

    def extension(self) -> Callable[[], Changes]:
        """What the service does: it asks how far, and extends so far. Of a lease that can be
        extended at all: the others are refused, which is quick."""
        wanted = self.rng.randrange(10 * MINUTE, 4 * HOUR)
        hold = next(
            self.holds[key]
            for key in self.rng.sample(list(self.holds), len(self.holds))
            if self.world.max_extension(key, wanted).granted_ms
        )

        def work() -> Changes:
            granted = self.world.max_extension(hold.id, wanted).granted_ms
            self.holds[hold.id] = longer = replace(hold, until_ms=hold.until_ms + granted)
            return self.world.extend(hold.id, longer.until_ms)

        return work

    def cordon(self) -> Callable[[], Changes]:
        """One node more is closed; the one of before is back, so that the fleet stays as large."""
        if self.closed is not None:
            self.world.set_available({self.closed: True})
        node = self.closed = self.rng.choice(self.nodes)
        return lambda: self.world.set_available({node: False})


def settled(waiting: int, nodes: int, events: int, seed: int = 1) -> Site:
    """A world in which everybody has a start, and nobody can be improved."""
    given = queue(waiting + events, nodes, seed)
    here, new = given.demands[:waiting], given.demands[waiting:]
    world = World(given.nodes, given.holds, here, given.rules, NOW)
    seated = world.plan()
    return Site(
        world,
        {hold.id: hold for hold in given.holds},
        {demand.id: demand for demand in here if demand.id in seated.slots},
        [replace(demand, booked_start_ms=None) for demand in new],
        [node.name for node in given.nodes if node.available],
        random.Random(seed),
    )


def measure(site: Site, kind: str, events: int) -> list[float]:
    """CPU seconds of each event of a kind."""
    prepare = getattr(site, kind.replace(" ", "_"))
    taken = []
    gc.collect()
    for _ in range(events):
        work = prepare()
        begin = time.process_time()
        changes = work()
        taken.append(time.process_time() - begin)
        site.changed.setdefault(kind, []).append(len(changes.slots))
        site.moved_later.setdefault(kind, []).append(len(changes.moved_later))
    return taken


def main() -> int:
    told = compiled.again("benchmarks.p3")
    here()
    waiting, nodes, events = SMALL if campaign.SMALL else FULL
    events = int(os.environ.get("EVENTS") or events)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one used;"
        f" Python {platform.python_version()}, {told}"
    )
    print(parameters(nodes))
    alone, within = planner_alone(waiting, nodes, events)
    measured = events_in_service.measure(list(GOALS), waiting, nodes, events)
    print(
        f"by HTTP to the running service with its loops, on SQLite, {events} events of each kind;"
        f" load {os.getloadavg()[0]:.1f}:"
    )
    served = _told(measured.events)
    print("one who asks and one who reserves, at once; no goal is set for it:")
    _told(measured.questions)
    good = all(_meets(kind, *each) for kind, each in served.items())
    shown = " ".join(_shown(kind, *each) for kind, each in served.items())
    seen = watchers.measure(events // 5)
    good = good and seen.within(GOAL_WATCHERS)
    full = is_full(waiting, nodes, events, r5.WAITING, watchers.STREAMS)
    print(
        f"P3 service {shown} of {events} each; planner-alone {' '.join(alone)} watchers={seen} by"
        f" {watchers.STREAMS} streams with {r5.WAITING} waiting; peer {PEER}; goal"
        f" arrival p99 10ms, others p50 50ms p99 250ms, watchers p99 +150ms"
        f" {verdict(good=good, full=full)}"
        f" (service: {'within' if good else 'beyond'} the goals; planner alone:"
        f" {'within' if within else 'beyond'})"
    )
    return 0


def _told(times: dict[str, list[float]]) -> dict[str, tuple[float, float]]:
    """Prints what was measured; p50 and p99 by kind, in seconds."""
    found = {kind: (percentile(t, 0.5), percentile(t, 0.99)) for kind, t in times.items()}
    for kind, (p50, p99) in found.items():
        print(
            f"{kind:9}: p50 {p50 * 1e3:7.2f} ms, p99 {p99 * 1e3:7.2f} ms, slowest"
            f" {max(times[kind]) * 1e3:7.2f} ms of {len(times[kind])}"
        )
    return found


def is_full(waiting: int, nodes: int, events: int, watched: int, streams: int) -> bool:
    """Whether nothing is smaller than the goal says.

    Args:
        watched: how many wait while the streams are looked at.
    """
    enough = events >= FULL[2] and watched >= FULL[0] and streams >= STREAMS
    return (waiting, nodes) == FULL[:2] and enough


def planner_alone(waiting: int, nodes: int, events: int) -> tuple[list[str], bool]:
    """What it took, as shown, and whether that is within the goals."""
    print("the planner alone:")
    site = settled(waiting, nodes, events)
    figures, met = [], True
    for kind in GOALS:
        taken = measure(site, kind, events)
        p50, p99 = percentile(taken, 0.5), percentile(taken, 0.99)
        moved = statistics.mean(site.changed[kind])
        print(
            f"{kind:9}: p50 {p50 * 1e3:7.2f} ms, p99 {p99 * 1e3:7.2f} ms, longest"
            f" {max(taken) * 1e3:7.2f} ms; {moved:.1f} starts changed on average, "
            f"{statistics.mean(site.moved_later[kind]):.1f} of them to a later one"
        )
        met = met and _meets(kind, p50, p99)
        figures.append(_shown(kind, p50, p99))
    return figures, met


def _meets(kind: str, p50: float, p99: float) -> bool:
    goal_p50, goal_p99 = GOALS[kind]
    return p99 <= goal_p99 and (goal_p50 is None or p50 <= goal_p50)


def _shown(kind: str, p50: float, p99: float) -> str:
    alone = GOALS[kind][0] is None
    times = f"{p99 * 1e3:.1f}ms" if alone else f"{p50 * 1e3:.0f}/{p99 * 1e3:.0f}ms"
    return f"{kind.replace(' ', '-')}={times}"


if __name__ == "__main__":
    sys.exit(main())
