"""Where a reservation's time went, from its history; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

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
    """One state that a reservation was in; `ended_at` is None while it still is."""

    state: State
    what: str
    began_at: datetime
    ended_at: datetime | None
    seconds: float

    def model_dump(self) -> dict[str, object]:
        """As JSON shows it."""
        return {
            "state": self.state,
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
    return steps
