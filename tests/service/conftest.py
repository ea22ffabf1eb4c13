from pathlib import Path

import pytest

from gpudev_service.store.engine import Store
from tests.fixtures.world import World, make_world


@pytest.fixture
def world(store: Store, tmp_path: Path) -> World:
    return make_world(store, tmp_path)
