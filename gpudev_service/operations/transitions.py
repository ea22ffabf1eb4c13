"""The one place where a reservation changes its state.

`transition` checks the move against the table, writes reason and time to the history
(`STATES_ARE_TOLD`), and returns the entry from which the event is made. From a final state the
table has no move (`OVER_IS_OVER`). No other code assigns `state`; a test looks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client import words
from gpudev_client.states import FINAL, State
from gpudev_service.errors import Refusal
from gpudev_service.store.models import HistoryRow, ReservationRow

#: From each state, where it may go. What is not here is refused.
ALLOWED: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.SCHEDULED: frozenset({State.QUEUED, State.PREPARING, State.CANCELLED, State.FAILED}),
        State.QUEUED: frozenset({State.PREPARING, State.CANCELLED, State.FAILED}),
        State.PREPARING: frozenset({State.ACTIVE, State.STOPPING, State.QUEUED}),
        State.ACTIVE: frozenset({State.STOPPING}),
        State.STOPPING: FINAL,
        State.EXPIRED: frozenset(),
        State.CANCELLED: frozenset(),
        State.FAILED: frozenset(),
    }
)


class ForbiddenTransition(Refusal):
    """A move that the table does not have."""

    def __init__(self, row: ReservationRow, to: State) -> None:
        super().__init__(
            "wrong_state", f"The reservation is {row.state}; it cannot become {to} from there."
        )


def begin(session: AsyncSession, row: ReservationRow, state: State) -> None:
    """Adds a new reservation in its first state; `begun` follows once it is flushed."""
    if state not in {State.SCHEDULED, State.QUEUED}:
        raise ForbiddenTransition(row, state)
    row.state, row.target = state, State.ACTIVE
    session.add(row)


def begun(session: AsyncSession, row: ReservationRow, *, actor: str, now: datetime) -> HistoryRow:
    """The first line of a reservation's history, which refers to its row."""
    word = "Booked" if row.state == State.SCHEDULED else "Submitted"
    labels = row.node_labels or {}
    only = f", for nodes with {words.labels(labels)}" if labels else ""
    data = {"node_labels": labels} if labels else None
    reason = f"{word} by {actor}{only}."
    return note(session, row, "transition", reason, actor=actor, now=now, data=data)


def transition(
    session: AsyncSession,
    row: ReservationRow,
    to: State,
    *,
    reason: str,
    actor: str,
    now: datetime,
    target: State | None = None,
) -> HistoryRow:
    """Moves `row` to `to` and records why.

    Args:
        reason: a sentence for the owner; it becomes the reservation's reason.
        target: what the state should become next; required for `stopping`, the final state.

    Raises:
        ForbiddenTransition: the table has no such move; nothing is changed.
    """
    if to not in ALLOWED[State(row.state)]:
        raise ForbiddenTransition(row, to)
    if to is State.STOPPING and target not in FINAL:
        raise ValueError("stopping needs the final state that follows")
    before = row.state
    row.state, row.reason = to, reason
    row.target = target or (to if to in FINAL else State.ACTIVE)
    if to is State.ACTIVE:
        row.active_at = now
    elif to is State.QUEUED:
        # What it was extended by stays: the next lease is as long, and warned of anew.
        row.starts_at = row.expires_at = row.server_handle = None
        row.warned = []
    elif to is State.STOPPING:
        row.stopping_at = now
    elif to in FINAL:
        row.ended_at = now
        row.planned_start = row.planned_nodes = None
    data = {"from": before, "target": row.target}
    return note(session, row, "transition", reason, actor=actor, now=now, data=data)


class Subject(Protocol):
    """Whom a line of the history is about."""

    @property
    def id(self) -> str: ...
    @property
    def state(self) -> str: ...


class Entry(Protocol):
    """What listeners are told: a line of the history, or what is not stored there."""

    @property
    def id(self) -> int: ...
    @property
    def reservation_id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def at(self) -> datetime: ...
    @property
    def data(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Told:
    """An entry for the event streams only."""

    reservation_id: str
    kind: str
    reason: str
    at: datetime
    id: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)


def note(
    session: AsyncSession,
    row: Subject,
    kind: str,
    reason: str,
    *,
    actor: str,
    now: datetime,
    data: dict[str, Any] | None = None,
) -> HistoryRow:
    """Adds a line to the history without changing the state."""
    entry = HistoryRow(
        reservation_id=row.id,
        at=now,
        kind=kind,
        state=row.state,
        reason=reason,
        actor=actor,
        data=data or {},
    )
    session.add(entry)
    return entry
