"""What must never be wrong, each named once: by constraints, code, simulation, tests and docs.

The database refuses what it can (`constraints`, each a name in `models`). What it cannot see is
looked at by whoever checks: the simulation after every step, the tests of real processes after
every crash. The checks here are pure functions of rows, and tell each thing that is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from gpudev_client.states import LEASED, LIVE, WAITING, State

#: What it takes to carry out a start that is due; nobody calls that late.
PUNCTUAL = timedelta(seconds=1)


class Invariant(Enum):
    """One thing that always holds: what it says, the constraints that refuse the contrary, and the
    modules of the service that see to it, where it stands by its name."""

    ONE_LEASE_PER_GPU = (
        "A GPU is held by one lease at most.",
        ("pk_lease_units",),
        ("operations/planning.py",),
    )
    LEASES_HOLD_WHAT_THEY_ARE_OF = (
        "A lease holds all its GPUs until its server is gone; whoever has no lease holds none.",
        (),
        ("loops/driving.py",),
    )
    ONE_LIVE_PER_DISK = (
        "A disk serves one live reservation at most.",
        ("uq_reservations_live_disk",),
        ("operations/disks.py",),
    )
    ONE_LIVE_PER_SERVER = (
        "A server of a user serves one live reservation at most.",
        ("uq_reservations_live_server",),
        ("operations/reservations.py",),
    )
    LEASES_END = (
        "A lease has an end, after its start.",
        ("ck_reservations_lease_has_an_end", "ck_reservations_lease_ends_after_start"),
        ("operations/planning.py",),
    )
    LEASES_END_IN_TIME = (
        "A lease is over after its end, and what stops is over too, once all that it takes works.",
        (),
        ("loops/expiry.py",),
    )
    NO_DELAY_IN_SILENCE = (
        "Nobody begins later than promised unless the history says why; a first promise stands.",
        (),
        ("operations/promises.py",),
    )
    ALL_ARE_PROMISED = (
        "Whoever waits has a promised start, once all nodes take part.",
        (),
        ("operations/planning.py",),
    )
    ENDS_ARE_TOLD = (
        "A lease is as long as was asked for, and its end moves by what the history says.",
        (),
        ("operations/extension.py",),
    )
    STATES_ARE_TOLD = (
        "A state changes as the table of moves allows, and the history has each change.",
        ("ck_reservations_state_known", "ck_reservations_target_known"),
        ("operations/transitions.py",),
    )
    OVER_IS_OVER = (
        "A reservation that is over does not change any more.",
        (),
        ("operations/transitions.py",),
    )
    PLACES_COUNT_FROM_ONE = (
        "Who waits with a promise has a place in the queue; the places of a type are 1, 2, 3 ...",
        (),
        ("operations/positions.py",),
    )
    NO_SERVER_WITHOUT_A_LEASE = (
        "Nothing runs without a lease, and no server that runs loses its GPUs.",
        (),
        ("loops/driving.py", "loops/reconcile.py"),
    )
    INVITED_COME_IN = (
        "The Hub lets those into a server who are invited to use it, once all that it takes works.",
        (),
        ("loops/shares.py",),
    )
    ACCEPTED_STAYS = (
        "What was accepted is not lost, whatever crashes.",
        (),
        ("store/drivers.py",),
    )
    MEMORY_IS_OF_THE_ROWS = (
        "What is kept in memory of a plan is what the rows say.",
        (),
        ("store/memory.py",),
    )

    def __init__(self, says: str, constraints: tuple[str, ...], kept_by: tuple[str, ...]) -> None:
        self.says, self.constraints, self.kept_by = says, constraints, kept_by

    def broken(self, what: str) -> str:
        """One way in which it does not hold, by its name."""
        return f"{self.name}: {what}"


@dataclass(frozen=True, slots=True)
class Unit:
    """A GPU, or a share of one, that a reservation holds."""

    node: str
    unit: int
    reservation_id: str


def units(rows: Iterable[Mapping[str, Any]], held: Iterable[Unit]) -> Iterator[str]:
    """Whether each GPU is held once, and by whoever has a lease of it.

    Args:
        rows: of reservations, by the names of the columns.
    """
    held = list(held)
    one = Invariant.ONE_LEASE_PER_GPU
    for place, number in Counter((unit.node, unit.unit) for unit in held).items():
        if number > 1:
            yield one.broken(f"{place} is held {number} times")
    each = Invariant.LEASES_HOLD_WHAT_THEY_ARE_OF
    numbers = Counter(unit.reservation_id for unit in held)
    for row in rows:
        state, has = State(row["state"]), numbers.pop(row["id"], 0)
        whole = row["nodes"] * row["units_per_node"]
        if state is State.STOPPING and has in (0, whole):
            continue
        if has != (whole if state in LEASED else 0):
            yield each.broken(f"{row['id']} is {state} and holds {has} units of {whole}")
    if numbers:
        yield each.broken(f"units of nobody: {dict(numbers)}")


def shared(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Whether each disk and each server serves one live reservation."""
    live = [row for row in rows if State(row["state"]) in LIVE]
    disks = Counter(row["disk_id"] for row in live if row["disk_id"] is not None)
    servers = Counter((row["user"], row["server_name"]) for row in live)
    for which, used in (
        (Invariant.ONE_LIVE_PER_DISK, disks),
        (Invariant.ONE_LIVE_PER_SERVER, servers),
    ):
        for what, number in used.items():
            if number > 1:
                yield which.broken(f"{what} serves {number}")


def ends(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Whether each lease has an end, and none ends before it starts."""
    broken = Invariant.LEASES_END.broken
    for row in rows:
        start, end = row["starts_at"], row["expires_at"]
        if end is None:
            if State(row["state"]) in LEASED:
                yield broken(f"{row['id']} is {row['state']} without an end")
        elif start is None or end <= start:
            yield broken(f"{row['id']} starts {start} and ends {end}")


def lost(accepted: Iterable[str], there: Collection[str]) -> Iterator[str]:
    """Whether all that were accepted are there; by their ids."""
    for key in accepted:
        if key not in there:
            yield Invariant.ACCEPTED_STAYS.broken(f"{key} is gone")


@dataclass(slots=True)
class Promise:
    """What one reservation was told of its start, as far as its history goes."""

    first: datetime | None
    #: The start last told; it may have become earlier since, which the history leaves out.
    start: datetime | None = None
    taken_back: bool = False

    def __post_init__(self) -> None:
        self.start = self.first

    def told(self, before: datetime | None, after: datetime | None) -> bool:
        """An entry of the history about a promise; whether it begins where the last one ended."""
        fits = before is None or self.start is None or before <= self.start
        self.start, self.taken_back = after, after is None
        return fits

    def placed_again(self) -> None:
        """It had its GPUs and waits again: what it was told before is void."""
        self.start, self.taken_back = None, True

    def kept(self, state: State, planned: datetime | None, begun: datetime | None) -> Iterator[str]:
        """What of a row does not fit what its owner was told."""
        waits = state in WAITING
        if waits and planned is None and not self.taken_back:
            yield "waits without a promised start"
        if self.start is None:
            return
        if waits and planned is not None and planned > self.start:
            yield f"was promised {self.start}, and {planned} is planned in silence"
        if begun is not None and is_late(self.start, begun):
            yield f"was promised {self.start} and began {begun}, and the history does not say why"


def is_late(promised: datetime, start: datetime) -> bool:
    """Whether a start is one of which the history must say why it is late."""
    return start - promised > PUNCTUAL
