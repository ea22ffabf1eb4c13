"""The mixin stands on the Hub's own spawner: what it adds must not be what the Hub means by it."""

from __future__ import annotations

import pytest
from jupyterhub.spawner import LocalProcessSpawner, Spawner
from kubespawner.spawner import KubeSpawner
from traitlets import HasTraits

from gpudev_spawner.kube import GpuDevKubeSpawner
from gpudev_spawner.local import GpuDevLocalSpawner
from gpudev_spawner.mixin import GpuDevMixin
from gpudev_spawner.pods import Pods

#: Overridden on purpose: KubeSpawner would stop a pod of the same name, and write a refused one
#: into the log with its token.
_ON_PURPOSE = {"_make_create_pod_request"}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (GpuDevMixin, Spawner),
        (GpuDevMixin, KubeSpawner),
        (GpuDevLocalSpawner, LocalProcessSpawner),
        (Pods, KubeSpawner),
        (GpuDevKubeSpawner, KubeSpawner),
        (GpuDevKubeSpawner, Pods),
    ],
)
def test_no_private_name_of_the_hubs_spawner_is_taken(ours: type, theirs: type) -> None:
    mine = {name for name in vars(ours) if name.startswith("_") and not name.startswith("__")}
    taken = mine & set(dir(theirs)) - set(dir(HasTraits))
    assert sorted(taken - _ON_PURPOSE) == []
