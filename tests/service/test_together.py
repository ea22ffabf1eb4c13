"""Callers who wait for the same turn, and what one of them does for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gpudev_service.together import MOST, Apart, Together


class Work:
    """Doubles numbers; keeps the first call waiting until `go`, so that others come meanwhile."""

    def __init__(self) -> None:
        self.go, self.begun = asyncio.Event(), asyncio.Event()
        self.batches: list[list[int]] = []
        self.bad: set[int] = set()
        self.broken = False
        self.refused: set[int] = set()

    async def __call__(self, asked: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(asked))
        self.begun.set()
        await self.go.wait()
        if self.broken:
            raise ConnectionError
        if self.bad & set(asked):
            error = ValueError(f"not with {self.bad & set(asked)}")
            raise error if len(asked) == 1 else Apart from error
        return [LookupError(str(n)) if n in self.refused else 2 * n for n in asked]


@pytest.fixture
async def work() -> Work:
    return Work()


async def begin(together: Together[int, int], work: Work, *asked: int) -> list[asyncio.Task[int]]:
    """Callers in this order; the first is being done, the others wait."""
    tasks = [asyncio.create_task(together.do(number, work)) for number in asked]
    await asyncio.wait_for(work.begun.wait(), 10)
    return tasks


async def test_who_is_alone_is_done_alone(work: Work) -> None:
    work.go.set()
    assert await Together[int, int]().do(4, work) == 8
    assert work.batches == [[4]]


async def test_who_waits_is_done_together_in_order(work: Work) -> None:
    tasks = await begin(Together(), work, *range(1, 6))
    work.go.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    # The first had begun alone, or all were there by then: nobody twice, everybody in order.
    assert [number for batch in work.batches for number in batch] == [1, 2, 3, 4, 5]
    assert len(work.batches) <= 2


async def test_no_more_than_so_many_at_once(work: Work) -> None:
    work.go.set()
    together = Together[int, int]()
    got = await asyncio.gather(*(together.do(number, work) for number in range(3 * MOST)))
    assert got == [2 * number for number in range(3 * MOST)]
    assert max(map(len, work.batches)) <= MOST


async def test_what_one_is_refused_concerns_nobody_else(work: Work) -> None:
    work.refused = {3}
    tasks = await begin(Together(), work, 1, 2, 3, 4)
    work.go.set()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert [got[0], got[1], got[3]] == [2, 4, 8]
    assert isinstance(got[2], LookupError)


async def test_after_a_failure_of_several_each_is_done_alone(work: Work) -> None:
    work.bad = {3}
    tasks = await begin(Together(), work, 1, 2, 3, 4)
    work.go.set()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert [got[0], got[1], got[3]] == [2, 4, 8]
    assert isinstance(got[2], ValueError)
    assert all(len(batch) == 1 for batch in work.batches[2:])


async def test_what_may_have_happened_is_not_done_again(work: Work) -> None:
    tasks = await begin(Together(), work, 1, 2, 3)
    work.broken = True
    work.go.set()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(one, ConnectionError) for one in got)
    done = [number for batch in work.batches for number in batch]
    assert len(done) == len(set(done))


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_who_is_called_off_takes_nobody_along(work: Work, which: int) -> None:
    together = Together[int, int]()
    tasks = await begin(together, work, 1, 2, 3)
    tasks[which].cancel()
    await asyncio.sleep(0)
    work.go.set()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(got.pop(which), asyncio.CancelledError)
    assert got == [2 * n for n in (1, 2, 3) if n != which + 1]
    done = [number for batch in work.batches for number in batch]
    assert len(done) == len(set(done))
    assert await together.do(9, work) == 18


async def test_a_turn_that_does_not_come_is_given_up(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpudev_service.together.LIMIT", 0.01)
    together = Together[int, int]()
    first = asyncio.create_task(together.do(1, work))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await together.do(2, work)
    work.go.set()
    assert await first == 2


class Patience:
    """Lets a test say when somebody's time to wait is over, instead of waiting for it."""

    def __init__(self) -> None:
        self._limits: list[asyncio.Timeout] = []

    def timeout(self, _: float) -> asyncio.Timeout:
        self._limits.append(asyncio.timeout_at(None))
        return self._limits[-1]

    async def ends(self, number: int) -> None:
        """For the one who came as this number, and they have learned of it."""
        self._limits[number].reschedule(0)
        for _ in range(5):
            await asyncio.sleep(0)
        assert self._limits[number].expired()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    patience = Patience()
    monkeypatch.setattr(asyncio, "timeout", patience.timeout)
    return patience


async def underway(together: Together[int, int], work: Work) -> list[asyncio.Task[int]]:
    """Two, of whom the first does just now what both ask for."""
    first, *others = await begin(together, work, 1, 2, 3)
    work.begun.clear()
    work.go.set()
    await first
    work.go.clear()
    await asyncio.wait_for(work.begun.wait(), 10)
    assert work.batches[-1] == [2, 3]
    return others


@pytest.mark.parametrize("outcome", ["done", "refused", "broken"])
async def test_who_is_being_done_waits_for_the_outcome(
    work: Work, patience: Patience, outcome: str
) -> None:
    """Whoever gave up then would be told that nothing has happened, and ask for it again."""
    tasks = await underway(Together(), work)
    await patience.ends(2)
    work.refused, work.broken = ({3} if outcome == "refused" else set()), outcome == "broken"
    work.go.set()
    got = (await asyncio.gather(*tasks, return_exceptions=True))[1]
    match outcome:
        case "done":
            assert got == 6
        case "refused":
            assert isinstance(got, LookupError)
        case _:
            assert isinstance(got, ConnectionError)
    done = [number for batch in work.batches for number in batch]
    assert len(done) == len(set(done))


async def test_who_was_undone_with_others_and_has_waited_for_too_long_gives_up(
    work: Work, patience: Patience
) -> None:
    together = Together[int, int]()
    tasks = await underway(together, work)
    await patience.ends(2)
    work.bad = {3}
    work.go.set()
    assert await tasks[0] == 4
    with pytest.raises(TimeoutError):
        await tasks[1]
    assert work.batches[-1] == [2], "nobody has done it after all"
    assert await together.do(9, work) == 18


async def test_who_gives_up_is_not_done_later(work: Work, patience: Patience) -> None:
    tasks = await begin(Together(), work, 1, 2, 3)
    await patience.ends(1)
    with pytest.raises(TimeoutError):
        await tasks[1]
    work.go.set()
    assert await tasks[0] == 2
    assert await tasks[2] == 6
    assert 2 not in [number for batch in work.batches for number in batch]
