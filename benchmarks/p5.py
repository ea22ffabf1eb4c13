"""The quality of the plan: GPU-hours, slowdown and promises, against Slurm's backfill rules.

Made-up traces with fixed seeds at three load levels, on 16 nodes of 8 GPUs, replayed under the
planner and under the rules of `gpudev_service.simulate.backfill`, with Slurm's defaults. Then one
day of such a trace, hurried into 24 minutes, through the real slurmctld, beside both rules on the
same requests; our slowdown has to be within the goal beside it, too. In more of a hurry Slurm's
limits, which are whole minutes, would be hours of that day, and most jobs would end long before.
`SIZE=small`: one seed, ten days, 8 nodes, and a greater hurry.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import slurm, slurm_replay
from benchmarks.campaign import SMALL, machine, verdict
from gpudev_service.settings import Policy
from gpudev_service.simulate import fleet as fleets
from gpudev_service.simulate import synthetic
from gpudev_service.simulate.backfill import Backfill, Parameters
from gpudev_service.simulate.desk import Desk
from gpudev_service.simulate.fleet import Fleet
from gpudev_service.simulate.measures import BOUND_MS, Figures, measure
from gpudev_service.simulate.planned import Planned
from gpudev_service.simulate.replay import Rules, replay
from gpudev_service.simulate.requests import Request, fitted

NODES, DAYS, SEEDS = (8, 10, (1,)) if SMALL else (16, 30, (1, 2))
#: How many times as fast a day passes for the real slurmctld, and the load of that day.
HURRY, HURRIED_LOAD = (480, 1.0) if SMALL else (60, 1.0)
HOURS_GOAL, SLOWDOWN_GOAL = 1.0, 0.9
TURNOVER_MS = 15_000
_DAY_MS = 86_400_000
_PATIENCE_MS = 90_000


@dataclass(frozen=True)
class Level:
    """One load level: the planner over Slurm's rules, all seeds together."""

    hours: float
    slowdown: float
    late: int


def under(rules: Rules, requests: Sequence[Request], there: Fleet, patience_ms: int) -> Figures:
    outcome = replay(requests, rules, Desk(Policy(), there.types))
    return measure(outcome, there.units, span_ms=DAYS * _DAY_MS, patience_ms=patience_ms)


def level(name: str, there: Fleet) -> Level:
    ours, theirs = [], []
    for seed in SEEDS:
        trace = synthetic.make(synthetic.LOADS[name], NODES, 8, days=DAYS, seed=seed)
        requests = fitted(trace, there).requests
        begin = time.process_time()
        ours.append(under(Planned(there, TURNOVER_MS), requests, there, 0))
        middle = time.process_time()
        theirs.append(under(Backfill(there), requests, there, _PATIENCE_MS))
        end = time.process_time()
        print(f"{name}, seed {seed}: {len(requests)} requests")
        for who, found, took in (
            ("planner", ours[-1], middle - begin),
            ("Slurm's rules", theirs[-1], end - middle),
        ):
            print(
                f"  {who:13} slowdown {found.slowdown:6.2f}, wait {found.mean_wait_s / 3600:5.2f} h"
                f" (median {found.median_wait_s / 3600:.2f}, p95 {found.p95_wait_s / 3600:.1f}),"
                f" {found.gpu_hours:,.0f} GPU-hours ({found.utilisation:.1%}), fairness"
                f" {found.fairness:.3f}, {found.late} later than first told; {took:.0f} s of a core"
            )
    return Level(
        hours=sum(f.gpu_hours for f in ours) / sum(f.gpu_hours for f in theirs),
        slowdown=statistics.fmean(f.slowdown for f in ours)
        / statistics.fmean(f.slowdown for f in theirs),
        late=sum(f.late for f in ours),
    )


def hurried_day(there: Fleet) -> float | None:
    """Our slowdown of a day over the real slurmctld's, with that of both rules beside it; None
    where there is no Slurm."""
    lacking = slurm.missing()
    if lacking:
        print(f"slurmctld not measured: not installed: {lacking}")
        return None
    trace = synthetic.make(HURRIED_LOAD, NODES, 8, days=1, seed=1)
    wanted = slurm_replay.hurried(fitted(trace, there).requests, HURRY)
    window = _DAY_MS // HURRY
    happened = slurm_replay.through_slurmctld(wanted, NODES, window_minutes=window // 60_000)
    requests, real = happened.requests, happened.waits
    quick = Parameters(bf_interval_ms=1000, bf_resolution_ms=1000, bf_window_ms=window)
    planned = waits_under(Planned(there, max(1, TURNOVER_MS // HURRY)), requests, there)
    ruled = waits_under(Backfill(there, quick), requests, there)
    found = {
        "planner": slowdown(requests, planned),
        "rules": slowdown(requests, ruled),
        "slurmctld": slowdown(requests, real),
    }
    print(
        f"one day {HURRY} times as fast, {len(requests)} requests: mean slowdown "
        + ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        + "; mean wait "
        + ", ".join(
            f"{name} {statistics.fmean(those.values()):.1f} s"
            for name, those in zip(found, (planned, ruled, real), strict=True)
        )
    )
    return found["planner"] / found["slurmctld"]


def waits_under(rules: Rules, requests: Sequence[Request], there: Fleet) -> dict[int, float]:
    """Seconds that each request waited."""
    # Hurried leases are shorter than any policy allows.
    policy = Policy(min_hours=1 / 3600)
    outcome = replay(requests, rules, Desk(policy, there.types))
    return {order: stays[0].wait_ms / 1000 for order, stays in outcome.stays.items()}


def slowdown(requests: Sequence[Request], waits: dict[int, float]) -> float:
    bound = BOUND_MS / HURRY / 1000
    return statistics.fmean(
        max(1.0, (waits[one.order] + one.run_ms / 1000) / max(one.run_ms / 1000, bound))
        for one in requests
    )


def main() -> int:
    print(
        f"{machine()}; {NODES} nodes of 8 GPUs, {DAYS} days, seeds {', '.join(map(str, SEEDS))};"
        f" loads {', '.join(f'{name} {load:g}' for name, load in synthetic.LOADS.items())};"
        f" turnover {TURNOVER_MS // 1000} s in the planner's plans, and GPUs free at a server's end"
        " on both sides; Slurm: priority by arrival, bf_window 1 day, bf_resolution 60 s,"
        " bf_interval 30 s, bf_max_job_test 500"
    )
    there = fleets.written([f"h100={NODES}x8"], {})
    levels = {name: level(name, there) for name in synthetic.LOADS}
    real = hurried_day(there)
    late = sum(each.late for each in levels.values())
    met = real is not None and real <= SLOWDOWN_GOAL and late == 0
    met = met and all(
        each.hours >= HOURS_GOAL and each.slowdown <= SLOWDOWN_GOAL for each in levels.values()
    )
    print(
        "P5"
        f" gpu-hours={','.join(f'{each.hours:.3f}x' for each in levels.values())}"
        f" slowdown={','.join(f'{each.slowdown:.2f}x' for each in levels.values())}"
        f" ({','.join(levels)}) late={late}"
        f" slowdown-to-slurmctld={'not-measured' if real is None else f'{real:.2f}x'}"
        f" goal {HOURS_GOAL:.2f}x,{SLOWDOWN_GOAL:.2f}x,0,{SLOWDOWN_GOAL:.2f}x"
        f" {verdict(good=met, full=not SMALL)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
