"""What was found, as a table for people and as JSON for programs. Pure; the command prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gpudev_client import words
from gpudev_client.cli.show import table

from .measures import Figures

_Row = tuple[str, Callable[[Figures], str]]


def _late(figures: Figures) -> str:
    if not figures.late:
        return "none"
    by = words.duration(figures.latest_s)
    return f"{figures.late} of {figures.told}, up to {by}"


_ROWS: Sequence[_Row] = (
    ("wait, mean", lambda f: words.duration(f.mean_wait_s)),
    ("wait, median", lambda f: words.duration(f.median_wait_s)),
    ("wait, 95 of 100 less than", lambda f: words.duration(f.p95_wait_s)),
    ("slowdown, mean", lambda f: f"{f.slowdown:.2f}"),
    ("GPU-hours delivered", lambda f: f"{f.gpu_hours:,.0f}"),
    ("GPUs in use", lambda f: f"{f.utilisation:.1%}"),
    ("fairness (1 is alike for all)", lambda f: f"{f.fairness:.3f}"),
    ("later than first told", _late),
    ("all done after", lambda f: words.duration(f.makespan_s)),
    ("came again for the rest", lambda f: str(f.came_again)),
    ("waited for a limit of theirs", lambda f: str(f.held_back)),
    ("refused", lambda f: str(f.refused)),
)
#: Shown only where some column has anything to say.
_QUIET = frozenset({"came again for the rest", "waited for a limit of theirs", "refused"})


def compared(found: Mapping[str, Figures], width: int | None = None) -> str:
    """One column for each of the rules that were compared."""
    rows = [
        [title, *(show(figures) for figures in found.values())]
        for title, show in _ROWS
        if title not in _QUIET or any(show(figures) != "0" for figures in found.values())
    ]
    for at in range(max(len(figures.top_users) for figures in found.values())):
        users = [figures.top_users[at] for figures in found.values()]
        if len({user.name for user in users}) == 1:
            title = f"wait of {users[0].name or 'unknown'}, {users[0].gpu_hours:,.0f} GPU-hours"
            rows.append([title, *(words.duration(user.mean_wait_s) for user in users)])
    return table(["", *found], rows, width)


def document(about: Mapping[str, Any], found: Mapping[str, Figures]) -> dict[str, Any]:
    """The same for programs; spans are seconds."""
    return {**about, "results": [{"rules": name, **asdict(each)} for name, each in found.items()]}
