"""Nodes that are renamed or become another type's between two runs: that the checker of the
simulated lives would find a device given to two."""

import pytest

from gpudev_service.operations import holding
from tests.fixtures.store import Templates

from .replay import Ground, seeds

STEPS = range(1, 121)
#: One in twelve notices it; the first that does is enough.
LIVES = seeds(60, 516)


async def test_a_device_that_is_held_twice_is_found(
    tmp_path_factory: pytest.TempPathFactory,
    templates: Templates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lease is nobody's once its node is called otherwise."""
    monkeypatch.setattr(holding._Elsewhere, "device", lambda *_: None)
    monkeypatch.setattr(holding._Elsewhere, "parts", lambda *_: ())
    ground = Ground(tmp_path_factory.mktemp("nodes"), templates)
    for seed in LIVES:
        failure = await ground.run(seed, STEPS)
        if failure is not None and "a device is held twice" in str(failure.error):
            return
    pytest.fail("no life has noticed")
