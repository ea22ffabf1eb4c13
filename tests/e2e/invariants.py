"""What must be true of the whole installation at rest, whatever has crashed before.

`of_database` holds in every committed state and may be asked for at any time. `of_machine` compares
the database with the Hub, the processes and the disks; after a crash it holds again once the parts
are back, so it is asked for until a deadline.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, Protocol

import psutil

from gpudev_client.states import LEASED, LIVE, WAITING, State
from gpudev_service.operations import promises
from tests.fixtures.hub import RunningHub

from .database import Database, moment
from .waiting import until

_MARK = "GPUDEV_RESERVATION"
_PUNCTUAL = timedelta(seconds=promises.PUNCTUAL_S)


class HubApi(Protocol):
    """A Hub that is asked as an administrator, wherever it runs."""

    def api(self, method: str, path: str) -> Any: ...


def of_database(database: Database) -> list[str]:
    """What is wrong with the rows; empty when they are sound."""
    return [*_units(database), *_shared(database), *_promises(database)]


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


def _units(database: Database) -> Iterator[str]:
    """Units and leases agree: none held without a lease, none missing to one."""
    rows = database.rows(
        "SELECT r.id, r.state, r.nodes * r.units_per_node AS wanted, "
        "(SELECT count(*) FROM lease_units u WHERE u.reservation_id = r.id) AS held "
        "FROM reservations r"
    )
    for row in rows:
        state, held = State(row["state"]), row["held"]
        if state is State.STOPPING and held in (0, row["wanted"]):
            continue
        if held != (row["wanted"] if state in LEASED else 0):
            yield f"{row['id']} is {state} and holds {held} units of {row['wanted']}"


def _shared(database: Database) -> Iterator[str]:
    """One live reservation per disk and per server."""
    live = ", ".join(f"'{state.value}'" for state in LIVE)
    for columns, what in (("disk_id", "disk"), ('"user", server_name', "server")):
        rows = database.rows(
            f"SELECT count(*) AS number, {columns} FROM reservations "  # noqa: S608 - constants
            f"WHERE state IN ({live}) AND {columns.partition(',')[0]} IS NOT NULL "
            f"GROUP BY {columns}"
        )
        yield from (f"a {what} is in use twice: {row}" for row in rows if row["number"] > 1)


def _promises(database: Database) -> Iterator[str]:
    """No start is later than it was first promised, unless the history says that it moved; what it
    takes to carry a start out is not late."""
    moved = {
        row["reservation_id"]
        for row in database.rows("SELECT reservation_id FROM history WHERE kind = 'promise'")
    }
    for row in database.rows(
        "SELECT id, state, planned_start, first_promise, starts_at FROM reservations"
    ):
        first, start = moment(row["first_promise"]), moment(row["starts_at"])
        planned = moment(row["planned_start"])
        if row["id"] in moved:
            continue
        if State(row["state"]) in WAITING and planned is None:
            yield f"{row['id']} waits without a promised start"
        if State(row["state"]) not in WAITING:
            planned = None
        for later, allowed in ((start, _PUNCTUAL), (planned, timedelta(0))):
            if first is not None and later is not None and later > first + allowed:
                yield f"{row['id']} was promised {first} and has {later}"


def _accepted(database: Database, accepted: Iterable[str]) -> Iterator[str]:
    known = {row["id"] for row in database.rows("SELECT id FROM reservations")}
    yield from (f"{key} was accepted and is gone" for key in accepted if key not in known)
    for row in database.rows("SELECT reservation_id FROM snapshots WHERE state = 'taking'"):
        yield f"a snapshot for {row['reservation_id']} is not finished"


def _running(running: set[str], database: Database) -> Iterator[str]:
    states = {
        row["id"]: (State(row["state"]), row["server_lost_at"])
        for row in database.rows("SELECT id, state, server_lost_at FROM reservations")
    }
    for key in running:
        state = states.get(key, (None, None))[0]
        if state not in LEASED:
            yield f"{key} is {state} and still has processes"
    for key, (state, lost_at) in states.items():
        if state is State.ACTIVE and key not in running and lost_at is None:
            yield f"{key} is active, without a process and not noticed"
        if state is State.STOPPING:
            yield f"{key} is still stopping"


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
                yield f"the Hub has the server {user['name']}/{name} without a reservation"


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
        try:
            environment = process.environ()
            mine = environment.get("GPUDEV_TESTS_DIR") == str(hub.home)
            if mine and environment.get(_MARK) and process.status() != psutil.STATUS_ZOMBIE:
                found.add(environment[_MARK])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
