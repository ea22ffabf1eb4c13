"""What must be true of the whole installation at rest, whatever has crashed before.

`of_database` holds in every committed state and may be asked for at any time. `of_machine` compares
the database with the Hub, the processes and the disks; after a crash it holds again once the parts
are back, so it is asked for until a deadline.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Protocol

import psutil

from gpudev_client.processes import variable
from gpudev_client.states import LEASED, LIVE, State
from gpudev_service.store import invariants
from gpudev_service.store.invariants import Invariant, Promise, Unit
from tests.fixtures.hub import RunningHub

from .database import Database, moment
from .waiting import until

_MARK = "GPUDEV_RESERVATION"
#: Of a reservation whose GPUs are gone before its server was there.
_PLACED_AGAIN = (State.PREPARING, State.QUEUED)


class HubApi(Protocol):
    """A Hub that is asked as an administrator, wherever it runs."""

    def api(self, method: str, path: str) -> Any: ...


def of_database(database: Database) -> list[str]:
    """What is wrong with the rows; empty when they are sound."""
    return [*_rows(database), *_promises(database)]


def of_machine(hub: RunningHub, database: Database, accepted: Iterable[str] = ()) -> list[str]:
    """What is wrong between database, Hub, processes and disks.

    Args:
        accepted: ids of reservations that were answered with 201; none may be gone.
    """
    return [*of_servers(hub, database, marked(hub), accepted), *_disks(hub, database)]


def of_servers(
    hub: HubApi, database: Database, running: set[str], accepted: Iterable[str] = ()
) -> list[str]:
    """The same but for disks, wherever servers run.

    Args:
        running: reservations of which something runs.
    """
    return [
        *of_database(database),
        *_accepted(database, accepted),
        *_running(running, database),
        *_hub_servers(hub, database),
    ]


def assert_sound(hub: RunningHub, database: Database, accepted: Iterable[str] = ()) -> None:
    """Waits until the whole installation is sound."""
    ids = list(accepted)
    until(
        lambda: not of_machine(hub, database, ids),
        "everything is in order again",
        patience=60,
        pause=0.5,
        seen=lambda: of_machine(hub, database, ids),
    )


def _rows(database: Database) -> Iterator[str]:
    """Reservations and what they hold, by one statement: one moment's."""
    found = database.rows(
        'SELECT r.id, r.state, r.nodes, r.units_per_node, r.disk_id, r."user", r.server_name, '
        "r.starts_at, r.expires_at, u.node, u.unit "
        "FROM reservations r LEFT JOIN lease_units u ON u.reservation_id = r.id"
    )
    reservations = {row["id"]: row for row in found}.values()
    held = [Unit(row["node"], row["unit"], row["id"]) for row in found if row["node"] is not None]
    yield from invariants.units(reservations, held)
    yield from invariants.shared(reservations)
    yield from invariants.ends(
        {**row, "starts_at": moment(row["starts_at"]), "expires_at": moment(row["expires_at"])}
        for row in reservations
    )


def _promises(database: Database) -> Iterator[str]:
    """Each start against what the history has told of it, to the last entry; by one statement."""
    found = database.rows(
        "SELECT r.id, r.state, r.planned_start, r.first_promise, r.starts_at, "
        "h.kind, h.state AS told_state, h.data "
        "FROM reservations r LEFT JOIN history h ON h.reservation_id = r.id "
        "AND h.kind IN ('promise', 'transition') ORDER BY r.id, h.id"
    )
    broken = Invariant.NO_DELAY_IN_SILENCE.broken
    for key, entries in groupby(found, lambda row: row["id"]):
        told = list(entries)
        row = told[0]
        promise = Promise(moment(row["first_promise"]))
        for entry in told:
            data = json.loads(entry["data"]) if isinstance(entry["data"], str) else entry["data"]
            if entry["kind"] == "promise":
                if not promise.told(moment(data["from"]), moment(data["to"])):
                    yield broken(f"{key} was promised {promise.start}, and not as told: {data}")
            elif (data and data.get("from"), entry["told_state"]) == _PLACED_AGAIN:
                promise.placed_again()
        planned, begun = moment(row["planned_start"]), moment(row["starts_at"])
        for what in promise.kept(State(row["state"]), planned, begun):
            yield broken(f"{key} {what}")


def _accepted(database: Database, accepted: Iterable[str]) -> Iterator[str]:
    known = {row["id"] for row in database.rows("SELECT id FROM reservations")}
    yield from invariants.lost(accepted, known)
    for row in database.rows("SELECT reservation_id FROM snapshots WHERE state = 'taking'"):
        yield f"a snapshot for {row['reservation_id']} is not finished"


def _running(running: set[str], database: Database) -> Iterator[str]:
    states = {
        row["id"]: (State(row["state"]), row["server_lost_at"])
        for row in database.rows("SELECT id, state, server_lost_at FROM reservations")
    }
    without = Invariant.NO_SERVER_WITHOUT_A_LEASE.broken
    for key in running:
        state = states.get(key, (None, None))[0]
        if state not in LEASED:
            yield without(f"{key} is {state} and still has processes")
    for key, (state, lost_at) in states.items():
        if state is State.ACTIVE and key not in running and lost_at is None:
            yield f"{key} is active, without a process and not noticed"
        if state is State.STOPPING:
            yield Invariant.LEASES_END_IN_TIME.broken(f"{key} is still stopping")


def _hub_servers(hub: HubApi, database: Database) -> Iterator[str]:
    live = ", ".join(f"'{state.value}'" for state in LIVE)
    leased = {
        (row["user"], row["server_name"])
        for row in database.rows(
            f'SELECT "user", server_name FROM reservations WHERE state IN ({live})'  # noqa: S608
        )
    }
    for user in hub.api("GET", "users?include_stopped_servers=1"):
        for name, row in user["servers"].items():
            if (row["ready"] or row["pending"]) and (user["name"], name) not in leased:
                what = f"the Hub has the server {user['name']}/{name}"
                yield Invariant.NO_SERVER_WITHOUT_A_LEASE.broken(what)


def _disks(hub: RunningHub, database: Database) -> Iterator[str]:
    used = database.rows(
        "SELECT id FROM disks WHERE deleted_at IS NULL AND last_used_at IS NOT NULL"
    )
    folders = hub.data_dir / "disks" / "disks"
    for row in used:
        if not (folders / row["id"] / "home").is_dir():
            yield f"disk {row['id']} has no directory"


def marked(hub: RunningHub) -> set[str]:
    """Reservations of this Hub of which a process runs."""
    found = set()
    for process in psutil.process_iter():
        mark = variable(process.pid, _MARK)
        if mark and variable(process.pid, "GPUDEV_TESTS_DIR") == str(hub.home):
            found.add(mark)
    return found
