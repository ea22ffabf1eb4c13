"""What checks the simulated lives notices what it is for, and says which invariant is broken.

A quiet life is lived, something wrong is planted in it, and the look that follows each step must
find it, or the one at the end of a life.
"""

# ruff: noqa: S608 - what is put into SQL here is all ours

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from gpudev_client.models import ReservationRequest
from gpudev_client.states import State
from gpudev_service.actor import Actor
from gpudev_service.operations import reservations, views
from gpudev_service.operations.positions import positions
from gpudev_service.store.invariants import Invariant
from gpudev_service.store.models import ReservationRow
from tests.fixtures.store import Templates

from .doubles import HubRow, Process
from .invariants import Violation
from .replay import determined
from .steps import bring_up
from .world import Life

GONE = "gone0000gone0000"
_OF_RESERVATIONS = ("history", "lease_units", "placements")


class Scene:
    """A life with two leases, two who wait for the GPUs of one of them, and one that is over."""

    def __init__(self, life: Life, file: Path, patch: pytest.MonkeyPatch) -> None:
        self.life, self.patch, self._file = life, patch, file

    async def fill(self) -> None:
        self.lease = await self._submit("ada", "t4", 8, disk="work", create_disk=True)
        self.other = await self._submit("grace", "h100", 2)
        self.over = await self._submit("linus", "cpu", 0)
        await self.life.sweep()
        await reservations.cancel(self.life.ctx, self.over, Actor("linus"))
        await self.life.sweep()
        self.waits = await self._submit("edsger", "t4", 4)
        self.waits_too = await self._submit("barbara", "t4", 8, disk="data", create_disk=True)
        for key in list(self.life.hub.rows):
            await bring_up(self.life, key)
        # Both have been seen, and nothing is wrong.
        await self.look()
        await self.look()
        rows = {row.id: row for row in await self.life._rows()}
        found = [State(rows[key].state) for key in self.keys]
        assert found == [State.ACTIVE, State.ACTIVE, State.CANCELLED, State.QUEUED, State.QUEUED]
        self.rows = rows

    @property
    def keys(self) -> list[str]:
        return [self.lease, self.other, self.over, self.waits, self.waits_too]

    async def _submit(self, user: str, gpu_type: str, gpus: int, **more: object) -> str:
        asked = ReservationRequest.model_validate(
            {"gpu_type": gpu_type, "gpus": gpus, "hours": 1, **more}
        )
        made = await reservations.submit(self.life.ctx, Actor(user), asked, ())
        self.life.checker.answer(made.id)
        return made.id

    async def look(self) -> None:
        await self.life._look()

    async def look_at_the_end(self) -> None:
        await self.life._nothing_left(self.life.clock.now())

    def sql(self, *statements: str) -> None:
        """Changes the rows as no code of ours could: nothing refuses it, and nobody notes it."""
        with sqlite3.connect(self._file) as database:
            database.execute("PRAGMA foreign_keys = OFF")
            database.execute("PRAGMA ignore_check_constraints = ON")
            for statement in statements:
                database.execute(statement)
        database.close()

    def set(self, key: str, what: str) -> None:
        self.sql(f"UPDATE reservations SET {what} WHERE id = '{key}'")

    def lose(self, key: str, *tables: str) -> None:
        self.sql(*(f"DELETE FROM {name} WHERE reservation_id = '{key}'" for name in tables))

    def tell(self, key: str, state: State, data: str = "{}") -> None:
        """A line of the history, as of a move."""
        self.sql(
            "INSERT INTO history (reservation_id, at, kind, state, reason, actor, data) "
            f"SELECT '{key}', max(at), 'transition', '{state}', '', '', '{data}' FROM history"
        )

    def without_a_key(self, table: str) -> None:
        """The table's rows in one that refuses nothing."""
        self.sql(
            f"CREATE TABLE copied AS SELECT * FROM {table}",
            f"DROP TABLE {table}",
            f"ALTER TABLE copied RENAME TO {table}",
        )

    def run(self, key: str) -> None:
        """A server of which nothing but a process is left."""
        self.life.machine.processes[key] = Process(0, began_with_lease=True, generation=9)


@pytest.fixture
async def scene(
    tmp_path: Path, templates: Templates, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scene]:
    file = tmp_path / "gpudev.sqlite"
    templates.fill(make_url(f"sqlite:///{file}"))
    life = Life(1, tmp_path, f"sqlite:///{file}")
    life.chance.calm = True
    made = Scene(life, file, monkeypatch)
    with determined(life):
        await made.fill()
        yield made
    await life.close()


# --- what is planted ------------------------------------------------------------------------------

Plant = Callable[[Scene], None]


def a_unit_held_twice(scene: Scene) -> None:
    scene.without_a_key("lease_units")
    scene.sql(
        "INSERT INTO lease_units SELECT node, unit, gpu_type, gpu_id, rank,"
        f" '{scene.other}' FROM lease_units WHERE node = 't4-1' AND unit = 0"
    )


def a_device_held_twice(scene: Scene) -> None:
    devices = '["GPU-t4-1-0", "GPU-t4-1-0"]'
    scene.sql(f"UPDATE placements SET gpu_ids = '{devices}' WHERE reservation_id = '{scene.other}'")


def a_lease_without_units(scene: Scene) -> None:
    scene.lose(scene.lease, "lease_units")


def units_of_who_waits(scene: Scene) -> None:
    scene.sql(f"UPDATE lease_units SET reservation_id = '{scene.waits}' WHERE node = 't4-1'")


def units_of_nobody(scene: Scene) -> None:
    scene.sql(f"INSERT INTO lease_units VALUES ('cpu-1', 0, 'cpu', '', 0, '{GONE}')")


def a_unit_that_the_node_has_not(scene: Scene) -> None:
    scene.sql("UPDATE lease_units SET unit = 4 WHERE node = 't4-1' AND unit = 0")


def other_units_than_placed(scene: Scene) -> None:
    scene.sql(f"UPDATE placements SET units = '[1]' WHERE reservation_id = '{scene.other}'")


def units_on_too_many_nodes(scene: Scene) -> None:
    scene.sql("UPDATE lease_units SET node = 'cpu-1' WHERE node = 't4-1' AND unit = 0")


def a_disk_used_twice(scene: Scene) -> None:
    scene.sql("DROP INDEX uq_reservations_live_disk")
    scene.set(scene.waits_too, f"disk_id = '{scene.rows[scene.lease].disk_id}'")


def a_server_used_twice(scene: Scene) -> None:
    scene.sql("DROP INDEX uq_reservations_live_server")
    scene.set(scene.waits, f"\"user\" = 'ada', server_name = '{scene.lease}'")


def a_lease_without_an_end(scene: Scene) -> None:
    scene.set(scene.lease, "expires_at = NULL")


def an_end_before_the_start(scene: Scene) -> None:
    scene.set(scene.lease, "expires_at = starts_at")


def an_end_without_a_start(scene: Scene) -> None:
    scene.set(scene.lease, "starts_at = NULL")


def a_promise_moved(scene: Scene) -> None:
    scene.set(scene.waits_too, f"planned_start = '{_later(scene, scene.waits_too)}'")


def a_first_promise_moved(scene: Scene) -> None:
    scene.set(scene.waits, f"first_promise = '{_later(scene, scene.waits)}'")


def a_late_start(scene: Scene) -> None:
    start, end = (_later(scene, scene.waits, minutes=minutes) for minutes in (60, 120))
    lease = f"planned_start = NULL, starts_at = '{start}', expires_at = '{end}'"
    scene.set(scene.waits, f"state = 'preparing', {lease}")
    scene.tell(scene.waits, State.PREPARING, '{"from": "queued"}')


def an_end_moved(scene: Scene) -> None:
    scene.set(scene.lease, f"expires_at = '{_later(scene, scene.lease, end=True)}'")


def a_shorter_lease(scene: Scene) -> None:
    scene.set(scene.lease, "duration_s = 7200")


def a_state_without_a_line(scene: Scene) -> None:
    scene.set(scene.waits, "state = 'failed'")


def a_row_without_history(scene: Scene) -> None:
    """With another server, since the constraints are in force."""
    columns = [column.name for column in ReservationRow.__table__.columns]
    new = {"id": f"'{GONE}'", "server_name": f"'{GONE}'", "disk_id": "NULL"}
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(new.get(name, f'"{name}"') for name in columns)
    scene.sql(
        f"INSERT INTO reservations ({names}) SELECT {values} FROM reservations"
        f" WHERE id = '{scene.waits}'"
    )


def a_move_that_is_not_allowed(scene: Scene) -> None:
    scene.set(scene.waits, "state = 'active'")
    scene.tell(scene.waits, State.ACTIVE, '{"from": "queued"}')


def a_move_from_elsewhere(scene: Scene) -> None:
    scene.set(scene.waits, "state = 'failed'")
    scene.tell(scene.waits, State.FAILED, '{"from": "scheduled"}')


def a_beginning_as_a_lease(scene: Scene) -> None:
    scene.tell(GONE, State.PREPARING)


def a_line_lost(scene: Scene) -> None:
    scene.sql(
        "DELETE FROM history WHERE id = (SELECT max(id) FROM history"
        f" WHERE reservation_id = '{scene.lease}')"
    )


def one_that_is_over_changed(scene: Scene) -> None:
    scene.set(scene.over, "reason = 'another'")


def a_place_doubled(scene: Scene) -> None:
    _place(scene, lambda found: dict.fromkeys(found, 1))


def a_promise_without_a_place(scene: Scene) -> None:
    _place(scene, lambda found: {scene.waits: found[scene.waits]})


def a_server_of_one_that_is_over(scene: Scene) -> None:
    scene.run(scene.over)


def a_server_of_nobody(scene: Scene) -> None:
    scene.run(GONE)


def a_server_that_the_hub_keeps(scene: Scene) -> None:
    scene.life.hub.rows["linus", scene.over] = HubRow(ready=True)


def a_guest_whom_nobody_has_invited(scene: Scene) -> None:
    scene.life.hub.guests["ada", scene.lease] = {"linus"}


def a_row_lost(scene: Scene) -> None:
    scene.lose(scene.waits, *_OF_RESERVATIONS)
    scene.sql(f"DELETE FROM reservations WHERE id = '{scene.waits}'")


def one_that_is_over_lost(scene: Scene) -> None:
    scene.lose(scene.over, *_OF_RESERVATIONS)
    scene.sql(f"DELETE FROM reservations WHERE id = '{scene.over}'")


def an_answer_without_a_row(scene: Scene) -> None:
    scene.life.checker.answer(GONE)


def a_row_that_memory_has_otherwise(scene: Scene) -> None:
    scene.set(scene.waits, "priority = 7")


def a_lease_long_after_its_end(scene: Scene) -> None:
    scene.life.pass_time(timedelta(hours=2))


def a_stop_that_never_ends(scene: Scene) -> None:
    scene.set(scene.lease, "state = 'stopping'")


def nothing_promised(scene: Scene) -> None:
    scene.set(scene.waits, "planned_start = NULL")


def _later(scene: Scene, key: str, *, minutes: int = 60, end: bool = False) -> str:
    row = scene.rows[key]
    moment = row.expires_at if end else row.planned_start or row.starts_at
    assert moment is not None
    return (moment + timedelta(minutes=minutes)).isoformat(sep=" ")


def _place(scene: Scene, wrong: Callable[[dict[str, int]], dict[str, int]]) -> None:
    async def planted(*given: Any) -> dict[str, int]:
        return wrong(await positions(*given))

    scene.patch.setattr(views, "positions", planted)


#: What is planted, of which invariant it is a breach, and what is said of it.
AFTER_A_STEP: dict[Plant, tuple[Invariant, str]] = {
    a_unit_held_twice: (Invariant.ONE_LEASE_PER_GPU, "is held 2 times"),
    a_device_held_twice: (Invariant.ONE_LEASE_PER_GPU, "a device is held twice"),
    a_lease_without_units: (Invariant.LEASES_HOLD_WHAT_THEY_ARE_OF, "holds 0 units of 8"),
    units_of_who_waits: (Invariant.LEASES_HOLD_WHAT_THEY_ARE_OF, "units of"),
    units_of_nobody: (Invariant.LEASES_HOLD_WHAT_THEY_ARE_OF, "units of nobody"),
    a_unit_that_the_node_has_not: (Invariant.LEASES_HOLD_WHAT_THEY_ARE_OF, "has no unit 4"),
    other_units_than_placed: (Invariant.LEASES_HOLD_WHAT_THEY_ARE_OF, "placed"),
    units_on_too_many_nodes: (Invariant.LEASES_HOLD_WHAT_THEY_ARE_OF, "is not 4 per node"),
    a_disk_used_twice: (Invariant.ONE_LIVE_PER_DISK, "serves 2"),
    a_server_used_twice: (Invariant.ONE_LIVE_PER_SERVER, "serves 2"),
    a_lease_without_an_end: (Invariant.LEASES_END, "without an end"),
    an_end_before_the_start: (Invariant.LEASES_END, "and ends"),
    an_end_without_a_start: (Invariant.LEASES_END, "starts None"),
    a_promise_moved: (Invariant.NO_DELAY_IN_SILENCE, "in silence"),
    a_first_promise_moved: (Invariant.NO_DELAY_IN_SILENCE, "first promise changed"),
    a_late_start: (Invariant.NO_DELAY_IN_SILENCE, "does not say why"),
    an_end_moved: (Invariant.ENDS_ARE_TOLD, "end moved 1:00:00, told 0:00:00"),
    a_shorter_lease: (Invariant.ENDS_ARE_TOLD, "is shorter than its 2:00:00"),
    a_state_without_a_line: (Invariant.STATES_ARE_TOLD, "is failed, history: queued"),
    a_row_without_history: (Invariant.STATES_ARE_TOLD, "has no history"),
    a_move_that_is_not_allowed: (Invariant.STATES_ARE_TOLD, "went from queued to active"),
    a_move_from_elsewhere: (Invariant.STATES_ARE_TOLD, "history says"),
    a_beginning_as_a_lease: (Invariant.STATES_ARE_TOLD, "begins as preparing"),
    a_line_lost: (Invariant.STATES_ARE_TOLD, "lines of the history are missing"),
    one_that_is_over_changed: (Invariant.OVER_IS_OVER, "has changed"),
    a_place_doubled: (Invariant.PLACES_COUNT_FROM_ONE, "[1, 1]"),
    a_promise_without_a_place: (Invariant.PLACES_COUNT_FROM_ONE, "position"),
    a_server_of_one_that_is_over: (Invariant.NO_SERVER_WITHOUT_A_LEASE, "before its server"),
    a_server_of_nobody: (Invariant.NO_SERVER_WITHOUT_A_LEASE, "before its server"),
    a_row_lost: (Invariant.ACCEPTED_STAYS, "is gone"),
    one_that_is_over_lost: (Invariant.ACCEPTED_STAYS, "is gone"),
    an_answer_without_a_row: (Invariant.ACCEPTED_STAYS, f"{GONE} is gone"),
    a_row_that_memory_has_otherwise: (Invariant.MEMORY_IS_OF_THE_ROWS, "kept in memory"),
}
AT_THE_END: dict[Plant, tuple[Invariant, str]] = {
    a_lease_long_after_its_end: (Invariant.LEASES_END_IN_TIME, "long after"),
    a_stop_that_never_ends: (Invariant.LEASES_END_IN_TIME, "never stops"),
    nothing_promised: (Invariant.ALL_ARE_PROMISED, "waits without"),
    a_guest_whom_nobody_has_invited: (Invariant.INVITED_COME_IN, "is open to ['linus'], and []"),
    a_server_of_nobody: (Invariant.NO_SERVER_WITHOUT_A_LEASE, "still has a server"),
    a_server_that_the_hub_keeps: (Invariant.NO_SERVER_WITHOUT_A_LEASE, "the Hub still runs"),
}


def test_each_invariant_is_planted_against() -> None:
    planted = {which for which, _ in (*AFTER_A_STEP.values(), *AT_THE_END.values())}
    assert planted == set(Invariant)


@pytest.mark.parametrize("plant", AFTER_A_STEP, ids=lambda plant: plant.__name__)
async def test_what_is_wrong_after_a_step_is_noticed(scene: Scene, plant: Plant) -> None:
    plant(scene)
    with pytest.raises(Violation) as noticed:
        await scene.look()
    which, said = AFTER_A_STEP[plant]
    assert (noticed.value.which, said in str(noticed.value)) == (which, True), noticed.value


@pytest.mark.parametrize("plant", AT_THE_END, ids=lambda plant: plant.__name__)
async def test_what_is_left_over_at_the_end_is_noticed(scene: Scene, plant: Plant) -> None:
    await scene.look_at_the_end()
    plant(scene)
    with pytest.raises(Violation) as noticed:
        await scene.look_at_the_end()
    which, said = AT_THE_END[plant]
    assert (noticed.value.which, said in str(noticed.value)) == (which, True), noticed.value


async def test_who_is_forgotten_when_it_is_time_is_not_missed(scene: Scene) -> None:
    """Reservations that ended long ago are removed, and only those."""
    days = scene.life.ctx.settings.history_days
    assert days is not None
    scene.life.pass_time(timedelta(days=days, hours=1))
    await scene.life.sweep()
    left = {row.id for row in await scene.life._rows()}
    assert scene.over not in left
    assert scene.lease in left
    await scene.look()
    await scene.look()


def test_a_violation_has_the_name_of_an_invariant() -> None:
    with pytest.raises(KeyError):
        Violation("something is wrong")
