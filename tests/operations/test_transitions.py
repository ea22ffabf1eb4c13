"""Every move of the table, every refused one, and that nobody else writes a state."""

import ast
import itertools
from pathlib import Path

import pytest

import gpudev_service
from gpudev_client.states import FINAL, LEASED, LIVE, WAITING, State
from gpudev_service.operations.transitions import ALLOWED, ForbiddenTransition, transition
from gpudev_service.store.models import ReservationRow
from tests.fixtures.world import START, World

PAIRS = list(itertools.product(State, State))


def test_the_table_knows_every_state() -> None:
    assert set(ALLOWED) == set(State)
    assert WAITING | LEASED == LIVE
    assert set(State) == LIVE | FINAL
    assert not LIVE & FINAL


@pytest.mark.parametrize(("before", "after"), PAIRS, ids=str)
async def test_moves(world: World, before: State, after: State) -> None:
    row = ReservationRow(id="a" * 16, state=before, target=before, reason="as it was")
    target = State.EXPIRED if after is State.STOPPING else None
    async with world.ctx.store.reading() as session:
        if after in ALLOWED[before]:
            entry = transition(
                session, row, after, reason="why", actor="ada", now=START, target=target
            )
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
        session.expunge_all()


async def test_stopping_needs_to_know_what_follows(world: World) -> None:
    row = ReservationRow(id="a" * 16, state=State.ACTIVE, target=State.ACTIVE)
    async with world.ctx.store.reading() as session:
        with pytest.raises(ValueError, match="final state"):
            transition(session, row, State.STOPPING, reason="why", actor="ada", now=START)


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
