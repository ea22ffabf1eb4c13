"""Every step of a simulated life compares what is kept in memory with the rows (see `Life._look`):
here it is seen that the comparison takes place, and that it finds a change that nobody noted."""

from collections.abc import Callable

import pytest

from gpudev_service.store import memory
from gpudev_service.store.models import ReservationRow
from tests.fixtures.store import Templates

from .replay import Ground, seeds

STEPS = range(1, 61)
LIVES = seeds(4)


@pytest.fixture
def ground(tmp_path_factory: pytest.TempPathFactory, templates: Templates) -> Ground:
    return Ground(tmp_path_factory.mktemp("remembered"), templates)


def _plans_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that change are not looked at."""
    monkeypatch.setattr(memory, "_differs", lambda row: False)


def _ends_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an extension changes is forgotten."""
    forgotten = {"expires_at", "extension_s"}
    columns = tuple(name for name in memory.PLANNED[ReservationRow] if name not in forgotten)
    monkeypatch.setattr(memory, "PLANNED", dict(memory.PLANNED) | {ReservationRow: columns})


def _kept_through_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a transaction has taken stays, whatever becomes of it."""
    take = memory.Turn.take

    async def greedy(turn: memory.Turn[object], gpu_type: str) -> tuple[object, set[str]]:
        kept, stale = await take(turn, gpu_type)
        if kept is not None:
            turn._memory.kept[gpu_type] = kept
        return kept, stale

    monkeypatch.setattr(memory.Turn, "take", greedy)


@pytest.mark.parametrize("seed", LIVES)
async def test_plans_are_kept_and_compared(ground: Ground, seed: int) -> None:
    failure = await ground.run(seed, STEPS)
    if failure is not None:
        pytest.fail(failure.report(seed), pytrace=False)
    assert ground.remembered > len(STEPS)


@pytest.mark.parametrize("plant", [_plans_unseen, _ends_unseen, _kept_through_rollback])
async def test_a_change_that_nobody_noted_is_found(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    plant(monkeypatch)
    for seed in LIVES:
        failure = await ground.run(seed, STEPS)
        if failure is not None and "kept in memory" in str(failure.error):
            return
    pytest.fail("no life has noticed")
