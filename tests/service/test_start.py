"""A service that cannot start ends, and says why: as a process, for whoever started it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.fixtures.store import Templates

TYPES = 'c.GpuDev.gpu_types = {"t4": {"gpus_per_node": 1, "cpus": 8, "memory_gb": 32}}\n'
NODES = 'c.GpuDev.nodes = [{"name": "n1", "gpu_type": "t4", "simulated": True}]\n'
#: Nothing answers there; the service would have to come that far.
HUB = {"JUPYTERHUB_API_TOKEN": "t" * 32, "JUPYTERHUB_API_URL": "http://127.0.0.1:9/hub/api"}


def start(folder: Path, *more: str, **hub: str) -> subprocess.CompletedProcess[str]:
    config = folder / "gpudev_config.py"
    data = f"c.GpuDev.data_dir = {str(folder / 'data')!r}\n"
    config.write_text("".join((TYPES, NODES, data, *more)))
    environment = {name: value for name, value in os.environ.items() if "JUPYTERHUB" not in name}
    return subprocess.run(
        [sys.executable, "-m", "gpudev_service", f"--config={config}"],
        env=environment | HUB | hub, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def said(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The last line, of a process that ended with this code and without a traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.fixture
def database(tmp_path: Path, templates: Templates) -> Path:
    (tmp_path / "data").mkdir(mode=0o700)
    path = tmp_path / "data" / "gpudev.sqlite"
    templates.fill(make_url(f"sqlite:///{path}"))
    return path


@pytest.mark.parametrize("damage", ["overwritten", "cut"])
def test_a_damaged_database(tmp_path: Path, database: Path, damage: str) -> None:
    if damage == "overwritten":
        database.write_bytes(b"not a database at all " * 1000)
    else:
        os.truncate(database, database.stat().st_size // 2)
    before = database.read_bytes()
    line = said(start(tmp_path), 1)
    assert line.startswith("gpudev: The database cannot be used: ")
    assert "damaged; restore a backup" in line
    assert database.read_bytes() == before, "it is left for whoever wants to save what it has"


def test_a_database_of_a_newer_version(tmp_path: Path, database: Path) -> None:
    with sqlite3.connect(database) as rows:
        rows.execute("UPDATE alembic_version SET version_num = '9999_from_tomorrow'")
    rows.close()
    line = said(start(tmp_path), 1)
    assert "newer" in line


def test_a_data_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    line = said(start(tmp_path), 1)
    assert f"{tmp_path / 'data'} cannot be written: a file is in its place." in line


def test_a_configuration_that_cannot_work(tmp_path: Path) -> None:
    line = said(start(tmp_path, "c.GpuDev.no_such_thing = 1\n"), 2)
    assert line.startswith("gpudev: GpuDev.no_such_thing is not known. Known: ")
    line = said(start(tmp_path, "c.GpuDev.db_url = 'mysql://somewhere/gpudev'\n"), 2)
    assert "sqlite" in line
    assert "JUPYTERHUB_API_TOKEN is not set" in said(start(tmp_path, JUPYTERHUB_API_TOKEN=""), 2)
