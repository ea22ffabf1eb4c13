"""Invariants have the names of constraints and docs, and each check notices what it is for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, PrimaryKeyConstraint
from sqlalchemy.dialects import sqlite

from gpudev_client.states import State
from gpudev_service.store.invariants import (
    PUNCTUAL,
    Invariant,
    Promise,
    Unit,
    ends,
    is_late,
    lost,
    shared,
    units,
)
from gpudev_service.store.models import Base
from tests.fixtures.world import START
from tests.tiers import ROOT

PAGE = ROOT / "docs" / "contributing" / "invariants.md"
LATER = START + timedelta(hours=1)


def lease(key: str = "a", state: State = State.ACTIVE, **values: Any) -> dict[str, Any]:
    return {
        "id": key, "state": state.value, "nodes": 1, "units_per_node": 2, "disk_id": None,
        "user": "ada", "server_name": key, **values,
    }  # fmt: skip


def held(*places: int, by: str = "a") -> list[Unit]:
    return [Unit("n1", place, by) for place in places]


def constraints() -> set[str]:
    """All that refuse something, by the names that they have in a database."""
    preparer = sqlite.dialect().identifier_preparer
    found = set()
    for table in Base.metadata.tables.values():
        found |= {str(index.name) for index in table.indexes if index.unique}
        found |= {
            str(preparer.format_constraint(constraint))
            for constraint in table.constraints
            if isinstance(constraint, CheckConstraint | PrimaryKeyConstraint)
        }
    return found


def test_the_constraints_that_hold_them_are_there() -> None:
    named = {name for one in Invariant for name in one.constraints}
    assert named
    assert named <= constraints()


def test_the_page_says_what_the_code_says() -> None:
    rows = [
        f"| `{one.name}` | {one.says} | {_names(one.constraints)} | {_names(one.kept_by)} |"
        for one in Invariant
    ]
    text = PAGE.read_text()
    assert [line for line in text.splitlines() if line.startswith("| `")] == rows


def test_who_keeps_one_says_so_and_nobody_else() -> None:
    service = ROOT / "gpudev_service"
    said = {
        (one, str(path.relative_to(service)))
        for path in service.rglob("*.py")
        for one in Invariant
        if f"`{one.name}`" in path.read_text("utf-8")
    }
    assert said == {(one, module) for one in Invariant for module in one.kept_by}


def _names(which: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in which)


def test_sound_rows_have_nothing_wrong() -> None:
    rows = [
        lease(), lease("b", State.STOPPING), lease("c", State.QUEUED), lease("d", State.EXPIRED),
    ]  # fmt: skip
    assert list(units(rows, held(0, 1))) == []
    assert list(units(rows, [*held(0, 1), *held(2, 3, by="b")])) == []
    assert list(shared([*rows, lease("d", disk_id="home")])) == []


@pytest.mark.parametrize(
    ("rows", "has", "which"),
    [
        ([lease(), lease("b")], [*held(0, 1), *held(1, 2, by="b")], "ONE_LEASE_PER_GPU"),
        ([lease()], held(0), "LEASES_HOLD_WHAT_THEY_ARE_OF"),
        ([lease(state=State.PREPARING)], [], "LEASES_HOLD_WHAT_THEY_ARE_OF"),
        ([lease(state=State.STOPPING)], held(0), "LEASES_HOLD_WHAT_THEY_ARE_OF"),
        ([lease(state=State.QUEUED)], held(0, 1), "LEASES_HOLD_WHAT_THEY_ARE_OF"),
        ([lease(state=State.FAILED)], held(0, 1), "LEASES_HOLD_WHAT_THEY_ARE_OF"),
        ([lease(nodes=2)], held(0, 1), "LEASES_HOLD_WHAT_THEY_ARE_OF"),
        ([], held(0), "LEASES_HOLD_WHAT_THEY_ARE_OF"),
    ],
)
def test_units_that_do_not_fit_are_noticed(
    rows: list[dict[str, Any]], has: list[Unit], which: str
) -> None:
    [said] = units(rows, has)
    assert said.startswith(f"{which}: ")


def test_a_disk_and_a_server_that_serve_two_are_noticed() -> None:
    [disk] = shared([lease(disk_id="x"), lease("b", State.QUEUED, disk_id="x")])
    assert disk == "ONE_LIVE_PER_DISK: x serves 2"
    [server] = shared([lease(), lease("b", server_name="a")])
    assert server == "ONE_LIVE_PER_SERVER: ('ada', 'a') serves 2"


def test_a_lease_without_an_end_and_one_that_ends_before_it_starts_are_noticed() -> None:
    def told(**values: Any) -> list[str]:
        return list(ends([lease(**{"starts_at": START, "expires_at": LATER} | values)]))

    assert told() == told(state=State.QUEUED, starts_at=None, expires_at=None) == []
    for state in (State.PREPARING, State.ACTIVE, State.STOPPING):
        assert told(state=state, expires_at=None) == [f"LEASES_END: a is {state} without an end"]
    assert told(expires_at=START)[0].startswith("LEASES_END: a starts")
    assert told(state=State.EXPIRED, starts_at=None)[0].startswith("LEASES_END: a starts None")


def test_who_was_accepted_and_is_gone_is_noticed() -> None:
    assert list(lost(["a", "b"], {"b", "c"})) == ["ACCEPTED_STAYS: a is gone"]


def test_a_start_is_late_after_the_time_that_it_takes() -> None:
    assert not is_late(START, START + PUNCTUAL)
    assert is_late(START, START + PUNCTUAL + timedelta(microseconds=1))


def said(
    promise: Promise,
    state: State,
    planned: datetime | None = None,
    begun: datetime | None = None,
) -> list[str]:
    return list(promise.kept(state, planned, begun))


def test_a_promise_that_is_kept_or_becomes_better_is_no_news() -> None:
    assert said(Promise(LATER), State.QUEUED, LATER) == []
    assert said(Promise(LATER), State.QUEUED, START) == []
    assert said(Promise(START), State.ACTIVE, begun=START + PUNCTUAL) == []


def test_a_start_that_moves_in_silence_is_noticed() -> None:
    assert "in silence" in said(Promise(START), State.QUEUED, LATER)[0]
    assert "does not say why" in said(Promise(START), State.ACTIVE, begun=LATER)[0]
    assert "without a promised" in said(Promise(None), State.QUEUED)[0]


def test_what_is_told_excuses_what_it_tells_and_no_more() -> None:
    promise = Promise(START)
    assert promise.told(START, LATER)
    assert said(promise, State.ACTIVE, begun=LATER) == []
    assert said(promise, State.ACTIVE, begun=LATER + timedelta(minutes=1)) != []
    assert not Promise(START).told(LATER, LATER), "it had moved before in silence"


def test_a_promise_that_is_taken_back_binds_nobody() -> None:
    back, again = Promise(START), Promise(START)
    assert back.told(START, None)
    again.placed_again()
    for promise in (back, again):
        assert said(promise, State.QUEUED) == []
        assert said(promise, State.ACTIVE, begun=LATER) == []
        assert promise.told(None, LATER)
        assert said(promise, State.QUEUED) != [], "it has one again"
