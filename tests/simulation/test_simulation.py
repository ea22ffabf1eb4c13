"""Random lives of the service with crashes at its commits; a failure names the seed.

`SIMULATION_SIZE=100` runs a hundred seeds, `SIMULATION_STEPS` steps each; `SIMULATION=seed:1,2,3`
repeats a failure, and the failure says how. `make r1` runs many, and adds up.
"""

import os
from pathlib import Path

import pytest

from tests.fixtures.store import Templates

from .failures import parse
from .replay import Ground, seeds

SIZE = int(os.environ.get("SIMULATION_SIZE", "5"))
STEPS = int(os.environ.get("SIMULATION_STEPS", "120"))
FIRST = int(os.environ.get("SIMULATION_FIRST", "1"))
AGAIN = os.environ.get("SIMULATION")


@pytest.fixture
def ground(tmp_path: Path, templates: Templates) -> Ground:
    return Ground(tmp_path, templates)


@pytest.mark.parametrize("seed", seeds(SIZE, FIRST))
@pytest.mark.skipif(AGAIN is not None, reason="one failure is repeated")
async def test_a_random_life_breaks_no_promise(ground: Ground, seed: int) -> None:
    failure = await ground.run(seed, range(1, STEPS + 1))
    if failure is not None:
        shorter = await ground.shorten(seed, failure)
        pytest.fail(shorter.report(seed), pytrace=False)


@pytest.mark.skipif(AGAIN is not None, reason="one failure is repeated")
async def test_a_kill_at_any_commit_breaks_no_promise(ground: Ground) -> None:
    """A short life, killed before and after each ninth of its commits; `make r1` takes all."""
    [seed] = seeds(1, FIRST)
    failure, lives = await ground.everywhere(seed, range(1, 3), stride=9)
    if failure is not None:
        pytest.fail((await ground.shorten(seed, failure)).report(seed), pytrace=False)
    assert lives > 4
    assert len(ground.struck) > 2


@pytest.mark.skipif(AGAIN is None, reason="nothing to repeat: SIMULATION is not set")
async def test_again(ground: Ground) -> None:
    seed, steps, kill = parse(AGAIN or "")
    failure = await ground.run(seed, steps, kill)
    if failure is not None:
        raise AssertionError(failure.report(seed)) from failure.error
