"""What an end that was cut short has left is taken away by the next."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.cluster import remains

pytestmark = pytest.mark.cluster


def test_what_a_second_mount_hides_is_unmounted_too(tmp_path: Path) -> None:
    folder = tmp_path / "pods"
    inner = folder / "volume"
    inner.mkdir(parents=True)
    for mount in (
        ["--bind", folder, folder],
        ["-t", "tmpfs", "hidden", inner],
        ["--bind", folder, folder],
    ):
        subprocess.run(["mount", *map(str, mount)], check=True)
    assert len(remains.mounts(tmp_path)) >= 3
    remains.unmount_all(tmp_path)
    assert remains.mounts(tmp_path) == []
