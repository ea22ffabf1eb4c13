from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpudev_service.store.engine import Store
from tests.fixtures.world import World, make_world


@pytest.fixture
async def world(store: Store, tmp_path: Path) -> AsyncIterator[World]:
    made = make_world(store, tmp_path)
    yield made
    # What a test has left under way would hold a connection that the store cannot close.
    await made.ctx.background.close()
