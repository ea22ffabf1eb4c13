from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpudev_service.store.engine import Store
from tests.fixtures.hub import RunningHub

from .site import Site, running


@pytest.fixture
async def site(running_hub: RunningHub, store: Store, tmp_path: Path) -> AsyncIterator[Site]:
    """A service of the test's own; on both databases unless `database_url` is given."""
    async with running(running_hub, store, tmp_path) as started:
        yield started
