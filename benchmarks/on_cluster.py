"""The part of R2 and R4 that needs a cluster: its API server, etcd and kubelet are killed too.

One Hub with its service on this machine, whose servers are real pods on a real kubelet; and for R2
a release of the chart, whose service is a pod. Needs root, and for the chart what its tests need;
`GPUDEV_CLUSTER` names a cluster that runs already.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from benchmarks.p9 import cluster
from gpudev_client.models import Reservation
from gpudev_client.states import FINAL, State
from tests.cluster import pod_kills
from tests.cluster.kills import (
    CLUSTER,
    ENDING,
    HUB,
    INSTALLATION,
    PATIENCE,
    PLACED,
    POINTS,
    RUNNING,
    SERVICE,
    Killed,
    Lives,
    processes,
)
from tests.cluster.pod_kills import KilledRelease, killed_release
from tests.cluster.site import built, opened
from tests.e2e.waiting import until

#: Whether this part runs, instead of the one on a single machine.
WANTED = bool(os.environ.get("CLUSTER"))
VICTIMS = (*CLUSTER, *INSTALLATION, *pod_kills.VICTIMS)
#: A pod is killed so many seconds after the point, at most: between the points, too.
LATER = 2.0


@contextmanager
def site() -> Iterator[Killed]:
    with cluster() as there, pytest.MonkeyPatch.context() as monkeypatch:
        built(there)
        with opened(there, monkeypatch, SERVICE, HUB) as one, closing(Killed(one)) as killed:
            yield killed


@dataclass
class Kills:
    """What came of one campaign."""

    victims: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0


def kills(number: int, seed: int, limit: float) -> Kills:
    """Kills one part after the other, each at a point of a new lease's life.

    Args:
        number: how many.
        seed: decides who is killed, and when.
        limit: seconds after the return in which everything has to be in order.
    """
    rng, found = random.Random(seed), Kills()
    with site() as killed, killed_release(killed.site.cluster) as release:
        for at in range(1, number + 1):
            victim, point = rng.choice(VICTIMS), rng.choice(POINTS)
            try:
                if victim in pod_kills.VICTIMS:
                    took = _round_in_pods(release, victim, point, rng.uniform(0, LATER), found)
                else:
                    took = _round(killed, victim, point, found)
                # Whatever of the cluster was killed was the other one's, too.
                for lives in (killed, release):
                    lives.settle()
            except AssertionError as error:
                found.wrong.append(f"kill {at}, {victim} at {point}: {error}")
                break
            found.slowest = max(found.slowest, took)
            if took > limit:
                found.wrong.append(f"{victim} at {point}: in order only after {took:.0f} s")
            print(f"kill {at}: {victim} at {point}, in order after {took:.1f} s", flush=True)
    return found


def _round(killed: Killed, victim: str, point: str, found: Kills) -> float:
    lease = killed.lease(point, hours=1)
    killed.kill(victim)
    what = f"{victim} at {point}"
    found.victims[what] += 1
    took = _in_order(killed)
    _compare(killed, lease, State.CANCELLED if point == ENDING else State.ACTIVE, found, what)
    return took


def _round_in_pods(
    release: KilledRelease, victim: str, point: str, later: float, found: Kills
) -> float:
    """One lease lives and another waits for what it holds."""
    is_to_end = point == ENDING
    lease = release.lease(RUNNING if is_to_end else point)
    waits = release.lease(PLACED)
    if is_to_end:
        release.release.client.cancel(lease.id)
    time.sleep(later)
    release.kill(victim)
    what = f"{victim} at {point}"
    found.victims[what] += 1
    took = _in_order(release)
    _compare(release, lease, State.CANCELLED if is_to_end else State.ACTIVE, found, what)
    if is_to_end:
        _compare(release, waits, State.ACTIVE, found, what)
    elif release.state(waits.id) is not State.QUEUED:
        found.wrong.append(f"{what}: who waits is {release.state(waits.id)}")
    return took


def _in_order(lives: Lives) -> float:
    began = time.monotonic()
    until(lambda: not lives.wrong(), "everything is in order", patience=PATIENCE, pause=0.2)
    return time.monotonic() - began


def _compare(lives: Lives, lease: Reservation, wanted: State, found: Kills, what: str) -> None:
    got = lives.until_state(lease.id, State.ACTIVE, *FINAL)
    found.outcomes[got.state] += 1
    if got.state is not wanted:
        found.wrong.append(f"{what}: {got.state} instead of {wanted}: {got.reason}")


def hub_and_proxy_dead(killed: Killed) -> Callable[[], None]:
    for part in ("proxy", "hub"):
        killed.site.hub.end(part, signal.SIGKILL)
    return killed.site.hub.start


def part_down(name: str) -> Callable[[Killed], Callable[[], None]]:
    def down(killed: Killed) -> Callable[[], None]:
        killed.site.cluster.kill(name)
        return lambda: killed.site.cluster.start(name)

    return down


#: What happens, and whether the end may wait for the return.
CASES = {
    "Hub and proxy dead": (hub_and_proxy_dead, False),
    "API server down": (part_down("kube-apiserver"), True),
    "etcd down": (part_down("etcd"), True),
    "kubelet down": (part_down("kubelet"), True),
}


def ends(number: int, seconds: float) -> dict[str, float]:
    """How many seconds after its time, or after the return of what was down over it, the last
    process of a lease ended: the latest of some leases per case."""
    found: dict[str, float] = {}
    with site() as killed:
        for name, (happens, waits) in CASES.items():
            late = [_end(killed, seconds, happens, waits) for _ in range(number)]
            found[name] = max(late)
            of = "the return" if waits else "their time"
            told = " ".join(f"{one:+.2f}" for one in late)
            print(
                f"{name}: {number} leases of {seconds:g} s ended after {of}: {told} s", flush=True
            )
    return found


def _end(
    killed: Killed, seconds: float, happens: Callable[[Killed], Callable[[], None]], waits: bool
) -> float:
    key, end = killed.short_lease(seconds)
    comes_back = happens(killed)
    base = end
    if waits:
        until(lambda: datetime.now(UTC) > end, "the lease is over", patience=4 * seconds)
        comes_back()
        base = datetime.now(UTC)
    until(lambda: not processes([key]), "it has ended", patience=4 * seconds + 60, pause=0.1)
    late = (datetime.now(UTC) - base).total_seconds()
    if not waits:
        comes_back()
    killed.until_state(key, State.EXPIRED)
    killed.settle()
    return late
