"""Every move of the table, every refused one, and that nobody else writes a state."""

import ast
import itertools
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

import gpudev_service
from gpudev_client.states import FINAL, LEASED, LIVE, WAITING, State
from gpudev_service.operations.transitions import (
    ALLOWED,
    ForbiddenTransition,
    begin,
    begun,
    note,
    transition,
)
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import START

PAIRS = list(itertools.product(State, State))
#: All moves, in words of their own: a move that the table gains or loses is noticed here.
MOVES = {
    "scheduled": "queued preparing cancelled failed",
    "queued": "preparing cancelled failed",
    "preparing": "active stopping queued",
    "active": "stopping",
    "stopping": "expired cancelled failed",
    "expired": "",
    "cancelled": "",
    "failed": "",
}
EARLIER, LATER = START - timedelta(hours=2), START + timedelta(hours=2)


def lease(state: State) -> ReservationRow:
    """One that has a value in whatever a move may change."""
    return ReservationRow(
        id="a" * 16,
        state=state,
        target=State.ACTIVE,
        reason="as it was",
        starts_at=EARLIER,
        expires_at=LATER,
        server_handle="handle",
        planned_start=EARLIER,
        planned_nodes=["n1"],
        warned=[30],
    )


def times(row: ReservationRow) -> dict[str, object]:
    """What a move may change beside state, target and reason."""
    names = ("starts_at", "expires_at", "server_handle", "warned", "planned_start", "planned_nodes")
    return {name: getattr(row, name) for name in (*names, "active_at", "stopping_at", "ended_at")}


@pytest.fixture
def session() -> AsyncSession:
    """Without a database: what is added to it shows what would be stored."""
    return AsyncSession()


def test_the_table_has_these_moves_and_no_others() -> None:
    assert {str(a): {str(b) for b in found} for a, found in ALLOWED.items()} == {
        before: set(after.split()) for before, after in MOVES.items()
    }


def test_the_table_knows_every_state() -> None:
    assert set(ALLOWED) == set(State)
    assert WAITING | LEASED == LIVE
    assert set(State) == LIVE | FINAL
    assert not LIVE & FINAL


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=str)
def test_moves(session: AsyncSession, before: State, after: State) -> None:
    row = ReservationRow(id="a" * 16, state=before, target=before, reason="as it was")
    target = State.EXPIRED if after is State.STOPPING else None
    if after in ALLOWED[before]:
        entry = transition(session, row, after, reason="why", actor="ada", now=START, target=target)
        assert (row.state, row.reason) == (after, "why")
        assert (entry.state, entry.reason, entry.actor, entry.at) == (
            after,
            "why",
            "ada",
            START,
        )
        assert entry.data["from"] == before
        assert row.target == (target or (after if after in FINAL else State.ACTIVE))
    else:
        with pytest.raises(ForbiddenTransition):
            transition(session, row, after, reason="why", actor="ada", now=START, target=target)
        assert (row.state, row.reason) == (before, "as it was")


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=str)
def test_what_a_move_changes_beside_the_state(
    session: AsyncSession, before: State, after: State
) -> None:
    row = lease(before)
    kept = times(row)
    target = State.EXPIRED if after is State.STOPPING else None
    if str(after) in MOVES[before].split():
        transition(session, row, after, reason="why", actor="ada", now=START, target=target)
        changed: dict[str, object] = {}
        if after is State.QUEUED:
            changed = {"starts_at": None, "expires_at": None, "server_handle": None, "warned": []}
        elif after in FINAL:
            changed = {"ended_at": START, "planned_start": None, "planned_nodes": None}
        elif after is not State.PREPARING:
            changed = {"active_at" if after is State.ACTIVE else "stopping_at": START}
        assert times(row) == kept | changed
    else:
        with pytest.raises(ForbiddenTransition) as refused:
            transition(session, row, after, reason="why", actor="ada", now=START, target=target)
        assert refused.value.code == "wrong_state"
        assert refused.value.message == (
            f"The reservation is {before}; it cannot become {after} from there."
        )
        assert (times(row), row.target) == (kept, State.ACTIVE)
        assert not session.new


@pytest.mark.parametrize("before", [State.PREPARING, State.ACTIVE], ids=str)
@pytest.mark.parametrize("target", [None, *sorted(LIVE)], ids=str)
def test_stopping_needs_to_know_what_follows(
    session: AsyncSession, before: State, target: State | None
) -> None:
    row = lease(before)
    with pytest.raises(ValueError, match="final state"):
        transition(
            session, row, State.STOPPING, reason="why", actor="ada", now=START, target=target
        )
    assert (row.state, row.target, row.reason) == (before, State.ACTIVE, "as it was")
    assert not session.new


@pytest.mark.parametrize("target", sorted(FINAL), ids=str)
def test_what_follows_the_stopping_is_the_target(session: AsyncSession, target: State) -> None:
    row = lease(State.ACTIVE)
    entry = transition(
        session, row, State.STOPPING, reason="why", actor="ada", now=START, target=target
    )
    assert entry.data == {"from": State.ACTIVE, "target": target}
    assert row.target == target


@pytest.mark.parametrize("state", State, ids=str)
def test_a_reservation_begins_waiting_and_in_no_other_way(
    session: AsyncSession, state: State
) -> None:
    row = ReservationRow(id="a" * 16)
    if state in {State.SCHEDULED, State.QUEUED}:
        begin(session, row, state)
        assert (row.state, row.target) == (state, State.ACTIVE)
        assert list(session.new) == [row]
        entry = begun(session, row, actor="ada", now=START)
        word = "Booked" if state is State.SCHEDULED else "Submitted"
        assert (entry.kind, entry.reason) == ("transition", f"{word} by ada.")
        assert (entry.state, entry.actor, entry.at) == (state, "ada", START)
    else:
        with pytest.raises(ForbiddenTransition):
            begin(session, row, state)
        assert not row.state
        assert not session.new


def test_a_note_is_kept(session: AsyncSession) -> None:
    row = lease(State.ACTIVE)
    noted = note(session, row, "reminder", "why", actor="ada", now=START, data={"a": 1})
    assert list(session.new) == [noted]
    assert (noted.reservation_id, noted.kind, noted.data) == ("a" * 16, "reminder", {"a": 1})
    assert (noted.state, noted.reason, noted.at) == (State.ACTIVE, "why", START)
    assert note(session, row, "reminder", "why", actor="ada", now=START).data == {}


def test_no_other_code_assigns_a_reservations_state() -> None:
    """Looks at every assignment to an attribute `state` or `target` of anything called row."""
    root = Path(gpudev_service.__file__).parent
    offenders = []
    for path in root.rglob("*.py"):
        if path.name == "transitions.py" or "migrations" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AugAssign | ast.AnnAssign)
                else []
            )
            flat = [t for target in targets for t in ast.walk(target)]
            offenders += [
                f"{path.relative_to(root)}:{t.lineno}"
                for t in flat
                if isinstance(t, ast.Attribute) and t.attr in {"state", "target"}
            ]
    # Snapshots have a state of their own, written in one module.
    assert {o.split(":")[0] for o in offenders} <= {"operations/snapshots.py"}, offenders
