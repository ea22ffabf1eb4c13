"""Figures of an outcome: waits, slowdown, use, fairness, promises. Pure arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .replay import Outcome, Stay

_HOUR_MS = 3_600_000
#: A run shorter than this counts as so long when a wait is set against it, as is usual: otherwise
#: runs of seconds would decide the mean.
BOUND_MS = 600_000
#: The people whose waits are shown: those who used most.
TOP = 3


@dataclass(frozen=True, slots=True)
class User:
    """What one person met."""

    name: str
    gpu_hours: float
    requests: int
    mean_wait_s: float
    mean_slowdown: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What there is to say of one outcome.

    `slowdown` is the mean of (wait + run) / run, with runs counted as ten minutes at least.
    `gpu_hours` were delivered within the first `span_s`; `utilisation` is their share of what the
    fleet had. `fairness` is Jain's index of the users' mean slowdowns: 1 is alike for all.
    `told` have been told a start, `late` of them began later than first told, by up to
    `latest_s`.
    """

    requests: int
    refused: int
    held_back: int
    came_again: int
    mean_wait_s: float
    median_wait_s: float
    p95_wait_s: float
    slowdown: float
    gpu_hours: float
    utilisation: float
    fairness: float
    told: int
    late: int
    latest_s: float
    span_s: float
    makespan_s: float
    top_users: tuple[User, ...]


def measure(
    outcome: Outcome, units: int, *, span_ms: int | None = None, patience_ms: int = 0
) -> Figures:
    """The figures for a fleet of `units`, over `span_ms` (default: up to the last submission).

    A start counts as late when it is later than first told by more than `patience_ms`.
    """
    stays = [one for parts in outcome.stays.values() for one in parts]
    last = max((request.at_ms for request in outcome.requests.values()), default=0)
    span = span_ms or max(last, 1)
    waits = sorted(_wait(parts) for parts in outcome.stays.values())
    slowdowns = [_slowdown(parts) for parts in outcome.stays.values()]
    used = sum(_overlap(one, span) * one.part.request.gpus for one in stays)
    told = [one for one in stays if one.told_ms is not None]
    late = [_late(one) for one in told if _late(one) > patience_ms]
    users = _users(outcome)
    return Figures(
        requests=len(outcome.requests),
        refused=len(outcome.refused),
        held_back=sum(one.held_back_ms > 0 for one in stays),
        came_again=len(stays) - len(outcome.stays),
        mean_wait_s=_mean(waits) / 1000,
        median_wait_s=statistics.median(waits) / 1000 if waits else 0.0,
        p95_wait_s=quantile(waits, 0.95) / 1000,
        slowdown=_mean(slowdowns),
        gpu_hours=used / _HOUR_MS,
        utilisation=used / (units * span),
        fairness=jain([user.mean_slowdown for user in users]),
        told=len(told),
        late=len(late),
        latest_s=max(late, default=0) / 1000,
        span_s=span / 1000,
        makespan_s=max((one.ended_ms or 0 for one in stays), default=0) / 1000,
        top_users=tuple(users[:TOP]),
    )


def jain(values: Sequence[float]) -> float:
    """Jain's index: 1 where all values are the same, 1/n where one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the ordered values do not exceed."""
    if not ordered:
        return 0.0
    return ordered[max(0, -(-round(len(ordered) * share * 1e6) // 1_000_000) - 1)]


def _wait(parts: Iterable[Stay]) -> int:
    return sum(one.wait_ms for one in parts)


def _slowdown(parts: Sequence[Stay]) -> float:
    run = max(sum(_overlap(one, None) for one in parts), BOUND_MS)
    return max(1.0, (_wait(parts) + sum(_overlap(one, None) for one in parts)) / run)


def _overlap(stay: Stay, until: int | None) -> int:
    """For how long it held its GPUs, up to `until`."""
    if stay.begun_ms is None or stay.ended_ms is None:
        return 0
    end = stay.ended_ms if until is None else min(stay.ended_ms, until)
    return max(0, end - stay.begun_ms)


def _late(stay: Stay) -> int:
    return 0 if stay.begun_ms is None or stay.told_ms is None else stay.begun_ms - stay.told_ms


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def _users(outcome: Outcome) -> list[User]:
    """Everybody, those who used most first."""
    of: dict[str, list[list[Stay]]] = {}
    for parts in outcome.stays.values():
        of.setdefault(parts[0].part.request.user, []).append(parts)
    users = [
        User(
            name=name,
            gpu_hours=sum(
                _overlap(one, None) * one.part.request.gpus for parts in theirs for one in parts
            )
            / _HOUR_MS,
            requests=len(theirs),
            mean_wait_s=_mean([_wait(parts) for parts in theirs]) / 1000,
            mean_slowdown=_mean([_slowdown(parts) for parts in theirs]),
        )
        for name, theirs in of.items()
    ]
    return sorted(users, key=lambda user: (-user.gpu_hours, user.name))
