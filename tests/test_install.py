"""The built wheel and sdist, installed outside the tree as a stranger would.

Versions come from the lock file, so that what is tested is what was locked.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.tiers import ROOT

pytestmark = pytest.mark.slow

UV = Path(sys.executable).with_name("uv")
LOCK = ROOT / "requirements" / "lock.txt"
#: What a laptop must not have to install.
HEAVY = ("jupyterhub", "sqlalchemy", "tornado", "jupyterlab", "psycopg")


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """The output of a command that must succeed, in an environment without this tree's paths."""
    kept = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the sdist of the tree as it is."""
    out = tmp_path_factory.mktemp("dist")
    run([UV, "build", "--quiet", "--out-dir", out, ROOT], out)
    return out


def install(folder: Path, what: str) -> Path:
    """A fresh environment with `what` in it; its directory of programs."""
    run([UV, "venv", "--quiet", "--python", sys.executable, folder / "venv"], folder)
    python = folder / "venv" / "bin" / "python"
    # The lock's hashes do not cover our own file, so it serves as constraints.
    pins = folder / "pins.txt"
    pins.write_text(
        "\n".join(
            line.removesuffix("\\").strip()
            for line in LOCK.read_text().splitlines()
            if line and not line.startswith((" ", "#"))
        )
    )
    run([UV, "pip", "install", "--quiet", "--python", python, "-c", pins, what], folder)
    return python.parent


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_the_plain_install_is_light_and_has_the_command(
    built: Path, tmp_path: Path, kind: str
) -> None:
    programs = install(tmp_path, str(next(built.glob(kind))))
    assert "reserve" in run([programs / "gpu-dev", "--help"], tmp_path)
    run([programs / "python", "-c", "import gpudev_client; gpudev_client.GpuDev"], tmp_path)
    listed = run([UV, "pip", "list", "--python", programs / "python"], tmp_path).lower()
    assert not [name for name in HEAVY if name in listed]


def test_the_whole_install_serves_migrates_and_knows_its_files(built: Path, tmp_path: Path) -> None:
    programs = install(tmp_path, f"{next(built.glob('*.whl'))}[service,hub]")
    assert "gpu_types" in run([programs / "gpudev", "--help-all"], tmp_path)
    run([programs / "gpudev", "--generate-config"], tmp_path)
    assert "c.GpuDev.policy" in (tmp_path / "gpudev_config.py").read_text()
    run([programs / "gpudev", "migrate", "--data-dir", "data"], tmp_path)
    assert (tmp_path / "data" / "gpudev.sqlite").exists()
    files = """
import importlib.resources as r
import gpudev_hub_config.local, gpudev_spawner.local
for package, names in {
    "gpudev_spawner": ["templates/form.html", "hub_templates/spawn_pending.html", "static/wait.js"],
    "gpudev_service": ["pages/templates/page.html", "pages/static/live.js"],
}.items():
    for name in names:
        assert r.files(package).joinpath(name).is_file(), (package, name)
"""
    run([programs / "python", "-c", files], tmp_path)
