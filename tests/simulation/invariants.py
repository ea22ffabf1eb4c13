"""What must hold after every step, whatever happened in it.

The checker remembers what it saw and judges the change as well as the state.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import FINAL, LIVE, WAITING, State
from gpudev_service.context import Context
from gpudev_service.operations import views
from gpudev_service.operations.transitions import ALLOWED
from gpudev_service.store.models import HistoryRow, LeaseUnitRow, PlacementRow, ReservationRow

from .doubles import Machine

#: A start that is carried out within this time is not late.
_PUNCTUAL = timedelta(seconds=1)
#: A start that comes late by no more keeps its planned end; and what rounding may add.
_SHORTER = timedelta(seconds=65)
#: What may still change in a row that is over: a disk that is purged, a report that came late.
_MAY_CHANGE = {"disk_id", "server_handle", "version"}


class Violation(AssertionError):  # noqa: N818 - it is what was looked for
    """Something that must never be."""


@dataclass
class Seen:
    """What the checker knows of one reservation."""

    state: State
    expires_at: datetime | None = None
    #: The promise in force at the last look; None where the history has told of another since.
    promise: datetime | None = None
    starts_at: datetime | None = None
    first_promise: datetime | None = None
    extended: float = 0.0
    final: dict[str, Any] | None = None


@dataclass
class Checker:
    """Looks at the database through the service's own store."""

    machine: Machine
    seen: dict[str, Seen] = field(default_factory=dict)
    last_entry: int = 0
    last_state: dict[str, State] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    async def look(self, ctx: Context) -> None:
        """Raises `Violation` for the first thing that is wrong."""
        async with ctx.store.reading() as session:
            table = ReservationRow.__table__
            rows = [dict(row._mapping) for row in await session.execute(select(table))]
            entries = list(
                await session.scalars(
                    select(HistoryRow)
                    .where(HistoryRow.id > self.last_entry)
                    .order_by(HistoryRow.id)
                )
            )
            units = list(await session.scalars(select(LeaseUnitRow)))
            places = list(await session.scalars(select(PlacementRow)))
            self._history(entries)
            for row in rows:
                self._row(row)
            self._units(ctx, rows, units, places)
            _disks(rows)
            await self._positions(ctx, session)

    # --- one reservation ------------------------------------------------------------------------

    def _history(self, entries: list[HistoryRow]) -> None:
        for entry in entries:
            self.last_entry = entry.id
            key = entry.reservation_id
            self.counts[entry.kind] += 1
            known = self.seen.setdefault(key, Seen(State(entry.state)))
            if entry.kind == "promise":
                known.promise = None
            elif entry.kind == "extension":
                known.extended += float(entry.data["hours"])
            elif entry.kind == "transition":
                before, state = self.last_state.get(key), State(entry.state)
                if before is None:
                    _must(state in WAITING, f"{key} begins as {state}")
                else:
                    _must(state in ALLOWED[before], f"{key} went from {before} to {state}")
                    _must(entry.data["from"] == before, f"{key}: history says {entry.data}")
                if (before, state) == (State.PREPARING, State.QUEUED):  # placed again, and told so
                    known.promise = known.expires_at = None
                    known.extended = 0.0
                    self.counts["placed again"] += 1
                self.last_state[key] = state
                self.counts[state] += 1

    def _row(self, row: dict[str, Any]) -> None:
        key, state = row["id"], State(row["state"])
        _must(key in self.seen, f"{key} has no history")
        known = self.seen[key]
        _must(self.last_state[key] == state, f"{key} is {state}, history: {self.last_state[key]}")
        if known.final is not None:
            kept = {name: value for name, value in row.items() if name not in _MAY_CHANGE}
            _must(kept == known.final, f"{key} was over and has changed: {kept} {known.final}")
            return
        self._promise(key, row, known)
        if known.expires_at is not None and row["expires_at"] is not None:
            moved = row["expires_at"] - known.expires_at
            told = timedelta(seconds=round(known.extended * 3600))
            _must(
                abs(moved - told) < timedelta(seconds=1), f"{key}: end moved {moved}, told {told}"
            )
        if state in {State.PREPARING, State.ACTIVE}:
            length = timedelta(seconds=row["duration_s"] + row["extension_s"])
            shorter = row["starts_at"] + length - row["expires_at"]
            _must(abs(shorter) <= _SHORTER, f"{key} is shorter than its {length} by {shorter}")
        known.expires_at, known.extended, known.state = row["expires_at"], 0.0, state
        if state in FINAL:
            known.final = {name: value for name, value in row.items() if name not in _MAY_CHANGE}

    def _promise(self, key: str, row: dict[str, Any], known: Seen) -> None:
        first, start = row["first_promise"], row["starts_at"]
        _must(
            known.first_promise is None or first == known.first_promise,
            f"{key}: the first promise changed",
        )
        known.first_promise = first
        if known.promise is not None and row["planned_start"] is not None:
            _must(
                row["planned_start"] <= known.promise,
                f"{key}: start moved from {known.promise} to {row['planned_start']} in silence",
            )
        if start is not None and start != known.starts_at and known.promise is not None:
            _must(
                start - known.promise <= _PUNCTUAL,
                f"{key}: promised {known.promise}, began {start}, and the history does not say why",
            )
        known.promise = row["planned_start"] or known.promise
        known.starts_at = start

    # --- all of them ----------------------------------------------------------------------------

    def _units(
        self,
        ctx: Context,
        rows: list[dict[str, Any]],
        units: list[LeaseUnitRow],
        places: list[PlacementRow],
    ) -> None:
        types = ctx.fleet.types()
        sizes = {
            (node.name, node.gpu_type): types[node.gpu_type].units_per_node
            for node in ctx.fleet.nodes()
        }
        held: dict[str, set[tuple[str, int]]] = {}
        for unit in units:
            # A node may have become another one since.
            size = sizes.get((unit.node, unit.gpu_type), unit.unit + 1)
            _must(0 <= unit.unit < size, f"{unit.node} has no unit {unit.unit}")
            held.setdefault(unit.reservation_id, set()).add((unit.node, unit.unit))
        total = sum(len(found) for found in held.values())
        _must(total == len({(u.node, u.unit) for u in units}), "a unit is held twice")
        devices = Counter(
            device for place in places if place.reservation_id in held for device in place.gpu_ids
        )
        _must(all(count == 1 for count in devices.values()), f"a device is held twice: {devices}")
        placed: dict[str, set[tuple[str, int]]] = {}
        for place in places:
            found = placed.setdefault(place.reservation_id, set())
            found |= {(place.node, unit) for unit in place.units}
        for row in rows:
            key, state = row["id"], State(row["state"])
            mine = held.pop(key, set())
            due = row["nodes"] * row["units_per_node"]
            if state in {State.PREPARING, State.ACTIVE} or (state is State.STOPPING and mine):
                _must(len(mine) == due, f"{key} is {state} with {len(mine)} of {due} units")
                nodes = Counter(node for node, _ in mine)
                shape = set(nodes.values()) == {row["units_per_node"]}
                _must(shape, f"{key}: {nodes} is not {row['units_per_node']} per node")
                _must(mine == placed.get(key), f"{key}: holds {mine}, placed {placed.get(key)}")
            else:
                _must(not mine, f"{key} is {state} and holds {mine}")
            process = self.machine.processes.get(key)
            if process is not None and not mine:
                _must(not process.began_with_lease, f"{key}: its GPUs went before its server")
        _must(not held, f"units of nobody: {held}")

    async def _positions(self, ctx: Context, session: AsyncSession) -> None:
        waiting = list(
            await session.scalars(select(ReservationRow).where(ReservationRow.state.in_(WAITING)))
        )
        shown = await views.reservations(ctx, session, waiting)
        by_type: dict[str, list[int]] = {}
        for view in shown:
            _must((view.position is None) == (view.promised_start is None), f"{view.id}: position")
            if view.position is not None:
                by_type.setdefault(view.gpu_type, []).append(view.position)
        for kind, positions in by_type.items():
            _must(sorted(positions) == list(range(1, len(positions) + 1)), f"{kind}: {positions}")


def _disks(rows: list[dict[str, Any]]) -> None:
    used = Counter(r["disk_id"] for r in rows if r["disk_id"] and State(r["state"]) in LIVE)
    _must(all(count == 1 for count in used.values()), f"a disk serves two: {used}")
    servers = Counter((r["user"], r["server_name"]) for r in rows if State(r["state"]) in LIVE)
    _must(all(count == 1 for count in servers.values()), f"a server serves two: {servers}")


def _must(condition: bool, what: str) -> None:
    if not condition:
        raise Violation(what)
