"""Whether the invariants of the store hold after every step, whatever happened in it.

The checker remembers what it saw and judges the change as well as the state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gpudev_client.states import FINAL, LIVE, WAITING, State
from gpudev_service.context import Context
from gpudev_service.operations import views
from gpudev_service.operations.transitions import ALLOWED
from gpudev_service.store.invariants import (
    Invariant,
    Unit,
    ends,
    is_late,
    lost,
    shared,
    units,
)
from gpudev_service.store.models import HistoryRow, LeaseUnitRow, PlacementRow, ReservationRow

from .doubles import Machine

#: A start that comes late by no more keeps its planned end; and what rounding may add.
_SHORTER = timedelta(seconds=65)
#: What may still change in a row that is over: a disk that is purged, a report that came late.
_MAY_CHANGE = {"disk_id", "server_handle", "version"}


class Violation(AssertionError):  # noqa: N818 - it is what was looked for
    """Something that must never be, and which invariant it breaks."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.which = Invariant[said.partition(":")[0]]


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
    #: Those of whom a submission has told its caller the id.
    answered: set[str] = field(default_factory=set)
    last_entry: int = 0
    last_state: dict[str, State] = field(default_factory=dict)
    #: How many lines of history each has.
    lines: Counter[str] = field(default_factory=Counter)
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
            held = list(await session.scalars(select(LeaseUnitRow)))
            places = list(await session.scalars(select(PlacementRow)))
            lines = await session.execute(
                select(HistoryRow.reservation_id, func.count().label("lines")).group_by(
                    HistoryRow.reservation_id
                )
            )
            self._history(entries)
            self._accepted(ctx, {row["id"] for row in rows})
            self._lines({row.reservation_id: row.lines for row in lines})
            sound(ends(rows))
            for row in rows:
                self._row(row)
            sound(units(rows, (Unit(one.node, one.unit, one.reservation_id) for one in held)))
            sound(shared(rows))
            self._units(ctx, rows, held, places)
            await self._positions(ctx, session)

    # --- who is there ---------------------------------------------------------------------------

    def answer(self, key: str) -> None:
        """A submission has said that this one is accepted."""
        self.answered.add(key)

    def _accepted(self, ctx: Context, there: set[str]) -> None:
        """Whoever was accepted, or was in the database once, is there until it is forgotten."""
        known = self.answered | self.seen.keys()
        days = ctx.settings.history_days
        if days is not None:
            oldest = ctx.clock.now() - timedelta(days=days)
            for key in [key for key in known - there if self._ended_before(key, oldest)]:
                known.discard(key)
                self.answered.discard(key)
                del self.seen[key], self.lines[key]
        sound(lost(sorted(known), there))

    def _ended_before(self, key: str, moment: datetime) -> bool:
        final = self.seen[key].final if key in self.seen else None
        return final is not None and final["ended_at"] < moment

    def _lines(self, found: dict[str, int]) -> None:
        wrong = {
            key: f"{found.get(key, 0)} of {self.lines[key]}"
            for key in found.keys() | self.lines.keys()
            if found.get(key, 0) != self.lines[key]
        }
        _must(Invariant.STATES_ARE_TOLD, not wrong, f"lines of the history are missing: {wrong}")

    # --- one reservation ------------------------------------------------------------------------

    def _history(self, entries: list[HistoryRow]) -> None:
        told = Invariant.STATES_ARE_TOLD
        for entry in entries:
            self.last_entry = entry.id
            key = entry.reservation_id
            self.lines[key] += 1
            self.counts[entry.kind] += 1
            known = self.seen.setdefault(key, Seen(State(entry.state)))
            if entry.kind == "promise":
                known.promise = None
            elif entry.kind == "extension":
                known.extended += float(entry.data["hours"])
            elif entry.kind == "transition":
                before, state = self.last_state.get(key), State(entry.state)
                if before is None:
                    _must(told, state in WAITING, f"{key} begins as {state}")
                else:
                    _must(told, state in ALLOWED[before], f"{key} went from {before} to {state}")
                    _must(told, entry.data["from"] == before, f"{key}: history says {entry.data}")
                if (before, state) == (State.PREPARING, State.QUEUED):  # placed again, and told so
                    known.promise = known.expires_at = None
                    known.extended = 0.0
                    self.counts["placed again"] += 1
                self.last_state[key] = state
                self.counts[state] += 1

    def _row(self, row: dict[str, Any]) -> None:
        key, state = row["id"], State(row["state"])
        told, ends = Invariant.STATES_ARE_TOLD, Invariant.ENDS_ARE_TOLD
        _must(told, key in self.seen, f"{key} has no history")
        known, last = self.seen[key], self.last_state[key]
        _must(told, last == state, f"{key} is {state}, history: {last}")
        if known.final is not None:
            kept = {name: value for name, value in row.items() if name not in _MAY_CHANGE}
            changed = f"{key} was over and has changed: {kept} {known.final}"
            _must(Invariant.OVER_IS_OVER, kept == known.final, changed)
            return
        self._promise(key, row, known)
        if known.expires_at is not None and row["expires_at"] is not None:
            moved = row["expires_at"] - known.expires_at
            by = timedelta(seconds=round(known.extended * 3600))
            fits = abs(moved - by) < timedelta(seconds=1)
            _must(ends, fits, f"{key}: end moved {moved}, told {by}")
        if state in {State.PREPARING, State.ACTIVE}:
            length = timedelta(seconds=row["duration_s"] + row["extension_s"])
            shorter = row["starts_at"] + length - row["expires_at"]
            what = f"{key} is shorter than its {length} by {shorter}"
            _must(ends, abs(shorter) <= _SHORTER, what)
        known.expires_at, known.extended, known.state = row["expires_at"], 0.0, state
        if state in FINAL:
            known.final = {name: value for name, value in row.items() if name not in _MAY_CHANGE}

    def _promise(self, key: str, row: dict[str, Any], known: Seen) -> None:
        first, start = row["first_promise"], row["starts_at"]
        silence = Invariant.NO_DELAY_IN_SILENCE
        _must(
            silence,
            known.first_promise is None or first == known.first_promise,
            f"{key}: the first promise changed",
        )
        known.first_promise = first
        if known.promise is not None and row["planned_start"] is not None:
            _must(
                silence,
                row["planned_start"] <= known.promise,
                f"{key}: start moved from {known.promise} to {row['planned_start']} in silence",
            )
        if start is not None and start != known.starts_at and known.promise is not None:
            _must(
                silence,
                not is_late(known.promise, start),
                f"{key}: promised {known.promise}, began {start}, and the history does not say why",
            )
        known.promise = row["planned_start"] or known.promise
        known.starts_at = start

    # --- all of them ----------------------------------------------------------------------------

    def _units(
        self,
        ctx: Context,
        rows: list[dict[str, Any]],
        units_held: list[LeaseUnitRow],
        places: list[PlacementRow],
    ) -> None:
        """What only the fleet and the placements tell of them."""
        one, whole = Invariant.ONE_LEASE_PER_GPU, Invariant.LEASES_HOLD_WHAT_THEY_ARE_OF
        types = ctx.fleet.types()
        sizes = {
            (node.name, node.gpu_type): types[node.gpu_type].units_per_node
            for node in ctx.fleet.nodes()
        }
        held: dict[str, set[tuple[str, int]]] = {}
        for unit in units_held:
            # A node may have become another one since.
            size = sizes.get((unit.node, unit.gpu_type), unit.unit + 1)
            _must(whole, 0 <= unit.unit < size, f"{unit.node} has no unit {unit.unit}")
            held.setdefault(unit.reservation_id, set()).add((unit.node, unit.unit))
        holders = frozenset(held)
        devices = Counter(
            device for place in places if place.reservation_id in held for device in place.gpu_ids
        )
        once = all(count == 1 for count in devices.values())
        _must(one, once, f"a device is held twice: {devices}")
        placed: dict[str, set[tuple[str, int]]] = {}
        for place in places:
            found = placed.setdefault(place.reservation_id, set())
            found |= {(place.node, unit) for unit in place.units}
        for row in rows:
            key = row["id"]
            mine = held.pop(key, set())
            if mine:
                nodes = Counter(node for node, _ in mine)
                shape = set(nodes.values()) == {row["units_per_node"]}
                _must(whole, shape, f"{key}: {nodes} is not {row['units_per_node']} per node")
                where = placed.get(key)
                _must(whole, mine == where, f"{key}: holds {mine}, placed {where}")
        for key, process in self.machine.processes.items():
            fits = key in holders or not process.began_with_lease
            without = Invariant.NO_SERVER_WITHOUT_A_LEASE
            _must(without, fits, f"{key}: its GPUs went before its server")

    async def _positions(self, ctx: Context, session: AsyncSession) -> None:
        waiting = list(
            await session.scalars(select(ReservationRow).where(ReservationRow.state.in_(WAITING)))
        )
        shown = await views.reservations(ctx, session, waiting)
        count = Invariant.PLACES_COUNT_FROM_ONE
        by_type: dict[str, list[int]] = {}
        for view in shown:
            both = (view.position is None) == (view.promised_start is None)
            _must(count, both, f"{view.id}: position")
            if view.position is not None:
                by_type.setdefault(view.gpu_type, []).append(view.position)
        for kind, positions in by_type.items():
            fits = sorted(positions) == list(range(1, len(positions) + 1))
            _must(count, fits, f"{kind}: {positions}")


def left_over(
    rows: Iterable[ReservationRow],
    processes: Set[str],
    hub: Set[tuple[str, str]],
    limit: datetime,
) -> Iterator[str]:
    """What is wrong where everything has worked since `limit`.

    Args:
        processes: of which reservations there is a server.
        hub: the servers that the Hub runs, starts or stops: user and name.
    """
    in_time, promised = Invariant.LEASES_END_IN_TIME, Invariant.ALL_ARE_PROMISED
    live = {row.id: row for row in rows if State(row.state) in LIVE}
    for row in live.values():
        if row.expires_at is not None and row.expires_at <= limit:
            yield in_time.broken(f"{row.id} is {row.state} long after {row.expires_at}")
        if row.state == State.STOPPING:
            yield in_time.broken(f"{row.id} never stops")
        if row.state in WAITING and row.planned_start is None:
            yield promised.broken(f"{row.id} waits without: {row.state}, {row.booked_for}")
    without = Invariant.NO_SERVER_WITHOUT_A_LEASE
    for key in sorted(processes - live.keys()):
        yield without.broken(f"{key} still has a server")
    for user, name in sorted(hub - {(row.user, row.server_name) for row in live.values()}):
        yield without.broken(f"the Hub still runs {user}/{name}")


def let_in(
    rows: Iterable[ReservationRow],
    invited: Iterable[tuple[str, str]],
    guests: Mapping[tuple[str, str], Set[str]],
    hub: Set[tuple[str, str]],
) -> Iterator[str]:
    """Whom the Hub lets into a server without an invitation, or not in spite of one.

    Args:
        invited: reservation and user of those who may use a server.
        guests: by the user and the name of a server, whom the Hub lets in.
        hub: the servers of which the Hub knows.
    """
    live = {row.id: row for row in rows if State(row.state) is State.ACTIVE}
    may: dict[tuple[str, str], set[str]] = {}
    for key, user in invited:
        if (row := live.get(key)) and (row.user, row.server_name) in hub:
            may.setdefault((row.user, row.server_name), set()).add(user)
    for server in sorted({*may, *guests}):
        expected, found = may.get(server, set()), guests.get(server, set())
        if expected != found:
            said = f"{server} is open to {sorted(found)}, and {sorted(expected)} are invited"
            yield Invariant.INVITED_COME_IN.broken(said)


def _must(which: Invariant, condition: bool, what: str) -> None:
    if not condition:
        raise Violation(which.broken(what))


def sound(wrong: Iterable[str]) -> None:
    """Raises `Violation` for the first of what is wrong."""
    for what in wrong:
        raise Violation(what)
