"""Lines of an outcome: use and queue over time, and how many waited how long. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .replay import Outcome

#: So many points has a line over time.
POINTS = 240

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
#: The waits, in seconds, at which the picture has a tick; evenly apart, since waits span decades.
WAITS = (
    (0, "0"),
    (10 * _MINUTE, "10 min"),
    (_HOUR, "1 h"),
    (4 * _HOUR, "4 h"),
    (12 * _HOUR, "12 h"),
    (_DAY, "1 day"),
    (2 * _DAY, "2 days"),
    (4 * _DAY, "4 days"),
    (8 * _DAY, "8 days"),
)


@dataclass(frozen=True, slots=True)
class Series:
    """Lines of one outcome. `use` is a share of the fleet; `waited` has, for each place between
    0 and 1 along the ticks of `WAITS`, the share of requests that waited no longer."""

    use: Sequence[float]
    queue: Sequence[float]
    waited: Sequence[tuple[float, float]]


def of(outcome: Outcome, units: int, span_ms: int) -> Series:
    """The lines of an outcome on a fleet of `units` over the first `span_ms`."""
    stays = [one for parts in outcome.stays.values() for one in parts]
    held = [
        (one.begun_ms, one.ended_ms, one.part.request.gpus)
        for one in stays
        if one.begun_ms is not None and one.ended_ms is not None
    ]
    waiting = [(one.asked_ms, one.begun_ms, 1) for one in stays if one.begun_ms is not None]
    waits = sorted(sum(one.wait_ms for one in parts) / 1000 for parts in outcome.stays.values())
    return Series(
        use=[value / units for value in averages(held, span_ms)],
        queue=averages(waiting, span_ms),
        waited=cumulative(waits),
    )


def averages(spans: Iterable[tuple[int, int, int]], until: int) -> list[float]:
    """How much there is on average in each of `POINTS` equal parts of the time up to `until`, of
    spans (begin, end, how much)."""
    sums = [0.0] * POINTS
    width = until / POINTS
    for begin, ends, amount in spans:
        end = min(ends, until)
        at = int(begin / width)
        while at < POINTS and at * width < end:
            sums[at] += amount * (min(end, (at + 1) * width) - max(begin, at * width))
            at += 1
    return [total / width for total in sums]


def place(wait: float) -> float:
    """Where a wait lies along the ticks, between 0 and 1."""
    edges = [seconds for seconds, _ in WAITS]
    at = min(bisect_right(edges, wait), len(edges) - 1)
    low, high = edges[at - 1], edges[at]
    return min(1.0, (at - 1 + (wait - low) / (high - low)) / (len(edges) - 1))


def cumulative(waits: Sequence[float], steps: int = 160) -> list[tuple[float, float]]:
    """(Place along the ticks, share that waited no longer), of waits in ascending order."""
    places = [place(wait) for wait in waits]
    return [
        (step / steps, bisect_right(places, step / steps) / max(1, len(places)))
        for step in range(steps + 1)
    ]
