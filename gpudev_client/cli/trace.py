"""Where a reservation's time went, from its history; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from gpudev_client import words
from gpudev_client.states import FINAL, State

if TYPE_CHECKING:
    from gpudev_client import models

_WORDS = {
    State.SCHEDULED: "booked",
    State.QUEUED: "in the queue",
    State.PREPARING: "starting the server",
    State.ACTIVE: "active",
    State.STOPPING: "stopping",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One state that a reservation was in, or one step of its server's start inside of it (`step`
    names it); `ended_at` is None while it still is."""

    state: State
    what: str
    began_at: datetime
    ended_at: datetime | None
    seconds: float
    step: str | None = None

    def model_dump(self) -> dict[str, object]:
        """As JSON shows it."""
        return {
            "state": self.state,
            "step": self.step,
            "began_at": self.began_at,
            "ended_at": self.ended_at,
            "seconds": self.seconds,
        }


def trace(history: Sequence[models.HistoryEntry], now: datetime) -> list[Step]:
    """The states in order, each with how long it lasted. The order of `history` does not matter."""
    entries = sorted(history, key=lambda entry: entry.at)
    changes: list[tuple[State, datetime]] = []
    for entry in entries:
        if not changes or changes[-1][0] is not entry.state:
            changes.append((entry.state, entry.at))
    steps = []
    for index, (state, began) in enumerate(changes):
        if state in FINAL:
            continue
        ended = changes[index + 1][1] if index + 1 < len(changes) else None
        seconds = ((ended or now) - began).total_seconds()
        steps.append(Step(state, _WORDS[state], began, ended, max(0.0, seconds)))
        # What a start consists of stands behind the state that it happened in.
        steps += [
            step
            for entry in entries
            if entry.kind == "milestones" and entry.state is state
            if began <= entry.at and (ended is None or entry.at <= ended)
            for step in _start(entry)
        ]
    return steps


def _start(entry: models.HistoryEntry) -> list[Step]:
    """The steps of one start. Each begins when the one before was done."""
    found = [
        (str(one.get("step")), datetime.fromisoformat(str(one.get("at"))))
        for one in entry.data.get("steps", [])
    ]
    return [
        Step(
            entry.state,
            words.STEPS.get(name, name),
            begin,
            end,
            (end - begin).total_seconds(),
            name,
        )
        for name, begin, end in words.in_order(found)
    ]
