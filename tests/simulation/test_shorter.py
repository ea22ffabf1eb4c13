"""A failure is told in the fewest steps, stays what it was, and is seen again as is printed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import delete, select

from gpudev_client.models import Reservation, ReservationRequest
from gpudev_service.actor import Actor
from gpudev_service.context import Context
from gpudev_service.operations import reservations
from gpudev_service.store.invariants import Invariant
from gpudev_service.store.models import (
    HistoryRow,
    LeaseUnitRow,
    NodeDrainRow,
    PlacementRow,
    ReservationRow,
)
from tests.fixtures.store import Templates

from .doubles import Trouble
from .failures import Failure, Kill, parse
from .invariants import Violation
from .replay import Ground, seeds
from .shorter import Run, shorter

ALL = range(1, 121)
GONE, SILENT = Invariant.ACCEPTED_STAYS, Invariant.ENDS_ARE_TOLD


def broken(which: Invariant) -> Violation:
    return Violation(which.broken("planted"))


def _here() -> None:
    raise ValueError("planted")


def _there() -> None:
    raise ValueError("planted")


def raised(work: Callable[[], None]) -> ValueError:
    with pytest.raises(ValueError, match="planted") as found:
        work()
    return found.value


class Lives:
    """Lives that fail once all of `needed` were lived, at once or `at_end`, and otherwise with what
    `else_` says."""

    def __init__(self, *needed: int, at_end: bool = False, else_: Exception | None = None) -> None:
        self._needed, self._at_end, self._else = set(needed), at_end, else_
        self.runs = 0

    async def run(self, steps: Sequence[int], kill: Kill | None = None) -> Failure | None:
        self.runs += 1
        done = list(steps)
        if not self._needed <= set(done):
            return None if self._else is None else Failure(done, self._else, [])
        if not self._at_end:
            del done[max(map(done.index, self._needed)) + 1 :]
        return Failure(done, broken(GONE), [])


async def fewest(run: Run, steps: Sequence[int] = ALL) -> list[int]:
    failure = await run(steps, None)
    assert failure is not None
    return list((await shorter(failure, run, lambda: True)).steps)


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("needed", [(1,), (120,), (3, 4), (17, 63, 101), (2, 30, 31, 77, 110)])
async def test_only_the_steps_that_are_needed_are_left(
    needed: tuple[int, ...], at_end: bool
) -> None:
    lives = Lives(*needed, at_end=at_end)
    assert await fewest(lives.run) == list(needed)
    assert lives.runs < 100


async def test_no_step_is_left_where_none_is_needed() -> None:
    assert await fewest(Lives(at_end=True).run) == []


async def test_another_invariant_does_not_take_its_place() -> None:
    assert await fewest(Lives(17, 63, else_=broken(SILENT)).run) == [17, 63]


async def test_an_error_that_is_raised_elsewhere_does_not_take_its_place() -> None:
    """One invariant's name, or the same type of error in the same line."""

    here, there = (raised(each) for each in (_here, _there))

    async def run(steps: Sequence[int], kill: Kill | None) -> Failure | None:
        both = {5, 9} <= set(steps)
        return Failure(list(steps), here if both else there, [])

    assert await fewest(run) == [5, 9]
    group = ExceptionGroup("loops", [Trouble(), ExceptionGroup("more", [here])])
    assert Failure([], group, []).kind == Failure([], here, []).kind


async def test_the_end_is_cut_off_first() -> None:
    lives = Lives(7, at_end=True)
    seen: list[Sequence[int]] = []

    async def run(steps: Sequence[int], kill: Kill | None) -> Failure | None:
        seen.append(list(steps))
        return await lives.run(steps, kill)

    await fewest(run)
    assert [len(steps) for steps in seen[:4]] == [120, 60, 30, 15]


async def test_the_search_ends_when_it_has_to() -> None:
    lives = Lives(17, 63, 101)
    failure = await lives.run(ALL)
    assert failure is not None
    found = await shorter(failure, lives.run, lambda: lives.runs < 12)
    assert lives.runs == 12
    assert {17, 63, 101} <= set(found.steps) < set(ALL)


async def test_a_kill_stays_at_its_commit() -> None:
    """Each step makes as many commits as its number says; the third one of step 8 is the kill's."""

    async def run(steps: Sequence[int], kill: Kill | None) -> Failure | None:
        assert kill is not None
        before = sum(steps[: list(steps).index(8)])
        if kill != (before + 3, True):
            return None
        return Failure(list(steps), broken(GONE), [], kill, list(steps))

    failure = await run(range(1, 11), (sum(range(1, 8)) + 3, True))
    assert failure is not None
    found = await shorter(failure, run, lambda: True)
    assert (found.steps, found.kill) == ([8], (3, True))


@pytest.mark.parametrize("kill", [None, (7, False), (7, True)])
@pytest.mark.parametrize("steps", [[], [4], [3, 17, 40]])
def test_what_is_printed_is_understood(steps: list[int], kill: Kill | None) -> None:
    assert parse(Failure(steps, broken(GONE), [], kill).again(259857)) == (259857, steps, kill)


# --- in the simulation ----------------------------------------------------------------------------


async def _forget(ctx: Context, key: str) -> None:
    async with ctx.store.transaction() as session:
        for table in (HistoryRow, LeaseUnitRow, PlacementRow):
            await session.execute(delete(table).where(table.reservation_id == key))
        await session.execute(delete(ReservationRow).where(ReservationRow.id == key))


@pytest.fixture
def loses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is accepted while a node is drained and the Hub is away, is lost."""
    submit = reservations.submit

    async def losing(
        ctx: Context, actor: Actor, request: ReservationRequest, groups: tuple[str, ...]
    ) -> Reservation:
        made = await submit(ctx, actor, request, groups)
        async with ctx.store.reading() as session:
            drained = (await session.scalars(select(NodeDrainRow))).first()
        if drained is not None and getattr(ctx.hub, "away", False):
            await _forget(ctx, made.id)
        return made

    monkeypatch.setattr(reservations, "submit", losing)


@pytest.mark.usefixtures("loses_one")
async def test_a_planted_fault_is_found_shortened_and_repeated(
    tmp_path_factory: pytest.TempPathFactory, templates: Templates
) -> None:
    ground = Ground(tmp_path_factory.mktemp("shorter"), templates)
    for seed in seeds(40, 300):
        failure = await ground.run(seed, range(1, 31))
        if failure is not None:
            break
    else:
        pytest.fail("no life has lost anybody")
    assert failure.kind == GONE.name
    before = ground.runs
    shortest = await ground.shorten(seed, failure)
    assert ground.runs - before < 100
    did = sorted(line.partition(": ")[2] for line in shortest.log if line[0].isdigit())
    assert did == ["drain", "hub", "submit"]
    printed = re.search(r"SIMULATION=(\S+)", shortest.report(seed))
    assert printed is not None
    again = await ground.run(*parse(printed[1]))
    assert again is not None
    assert (str(again.error), again.log) == (str(shortest.error), shortest.log)
