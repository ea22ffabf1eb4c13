"""The picture of a comparison: an SVG that reads well on light and on dark pages.

Three panels: GPUs in use and the queue over time, and how many waited how long. Written by hand,
as it is a few lines and ticks; no library that draws is among the service's dependencies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from .series import WAITS, Series

_WIDTH, _PANEL, _LEFT, _TOP, _GAP = 900, 170, 60, 84, 64
_INNER = _WIDTH - _LEFT - 30
#: Lines differ in colour, for light and for dark pages, and in how they are broken.
_LINES = (
    ("#1f5fbf", "#7fb2ff", ""),
    ("#b3541e", "#ffb07a", "7 4"),
    ("#2e7d4f", "#7fd6a2", "2 3"),
    ("#7a3fa0", "#cf9cf2", "9 3 2 3"),
)
_STYLE = """\
svg { color: #1b1f24; background: #fff; font: 12px system-ui, sans-serif }
text { fill: currentColor } .title { font-weight: 600 } .grid { stroke: #8886; stroke-width: 1 }
.line { fill: none; stroke-width: 1.8 }
"""
_DAY_S = 86_400
_Points = Sequence[tuple[float, float]]
#: (Name, value at its top, ticks below as (place, label), lines)
_Panel = tuple[str, float, Sequence[tuple[float, str]], Sequence[_Points]]
#: Days between two ticks, for up to so many ticks.
_STEPS, _MOST_TICKS = (1, 2, 5, 7, 14, 30, 61, 122), 12


def svg(title: str, found: Mapping[str, Series], span_s: float) -> str:
    """The whole picture, with one line for each of the rules in every panel."""
    most = max((value for each in found.values() for value in each.queue), default=0.0)
    ceiling = _round_up(most)
    height = _TOP + 3 * (_PANEL + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{_STYLE}{_colours(len(found))}</style>",
        f'<text class="title" x="{_LEFT}" y="20">{escape(title)}</text>',
        *_legend(found),
    ]
    days = _days(span_s)
    each = list(found.values())
    panels: Sequence[_Panel] = (
        ("GPUs in use, %", 100.0, days, [_over_time(one.use, 1.0) for one in each]),
        ("waiting", ceiling, days, [_over_time(one.queue, ceiling) for one in each]),
        ("waited no longer, % of requests", 100.0, _wait_ticks(), [one.waited for one in each]),
    )
    for at, panel in enumerate(panels):
        parts += _panel(_TOP + at * (_PANEL + _GAP), *panel)
    return "\n".join([*parts, "</svg>\n"])


def _colours(count: int) -> str:
    """The rules for the lines' colours."""
    kinds = [_LINES[at % len(_LINES)] for at in range(count)]
    light = "".join(
        f".l{at} {{ stroke: {light}; stroke-dasharray: {dash or 'none'} }}\n"
        for at, (light, _, dash) in enumerate(kinds)
    )
    dark = " ".join(f".l{at} {{ stroke: {dark} }}" for at, (_, dark, _) in enumerate(kinds))
    return (
        f"{light}@media (prefers-color-scheme: dark) {{\n"
        f"svg {{ color: #e6e6e6; background: #14171a }} {dark} }}\n"
    )


def _legend(names: Iterable[str]) -> list[str]:
    parts, x = [], _LEFT
    for at, name in enumerate(names):
        parts.append(f'<path class="line l{at}" d="M{x} 38h28"/>')
        parts.append(f'<text x="{x + 34}" y="42">{escape(name)}</text>')
        x += 60 + 7 * len(name)
    return parts


def _panel(
    top: int,
    name: str,
    ceiling: float,
    ticks: Sequence[tuple[float, str]],
    lines: Sequence[_Points],
) -> list[str]:
    bottom = top + _PANEL
    parts = [f'<text class="title" x="{_LEFT}" y="{top - 8}">{escape(name)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * _PANEL
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}h{_INNER}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{ceiling * share:g}</text>'
        )
    for place, label in ticks:
        x = _LEFT + place * _INNER
        parts.append(f'<path class="grid" d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    for at, points in enumerate(lines):
        path = "L".join(
            f"{_LEFT + x * _INNER:.1f} {bottom - min(1.0, y) * _PANEL:.1f}" for x, y in points
        )
        parts.append(f'<path class="line l{at}" d="M{path}"/>')
    return parts


def _over_time(values: Sequence[float], ceiling: float) -> list[tuple[float, float]]:
    return [((at + 0.5) / len(values), value / ceiling) for at, value in enumerate(values)]


def _days(span_s: float) -> list[tuple[float, str]]:
    days = span_s / _DAY_S
    step = next((each for each in _STEPS if days / each <= _MOST_TICKS), _STEPS[-1])
    return [(at / days, f"day {at}") for at in range(0, int(days) + 1, step)]


def _wait_ticks() -> list[tuple[float, str]]:
    return [(at / (len(WAITS) - 1), label) for at, (_, label) in enumerate(WAITS)]


def _round_up(value: float) -> float:
    """The next of 2, 10, 20, 100, … above."""
    ceiling = 2.0
    while ceiling < value:
        ceiling *= 5 if str(ceiling).startswith("2") else 2
    return ceiling
