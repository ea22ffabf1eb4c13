"""The mixin stands on the Hub's own spawner: what it adds must not be what the Hub means by it."""

from __future__ import annotations

import pytest
from jupyterhub.spawner import LocalProcessSpawner, Spawner
from traitlets import HasTraits

from gpudev_spawner.local import GpuDevLocalSpawner
from gpudev_spawner.mixin import GpuDevMixin


@pytest.mark.parametrize(
    ("ours", "theirs"), [(GpuDevMixin, Spawner), (GpuDevLocalSpawner, LocalProcessSpawner)]
)
def test_no_private_name_of_the_hubs_spawner_is_taken(ours: type, theirs: type) -> None:
    mine = {name for name in vars(ours) if name.startswith("_") and not name.startswith("__")}
    assert sorted(mine & set(dir(theirs)) - set(dir(HasTraits))) == []
