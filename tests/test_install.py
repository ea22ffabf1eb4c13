"""The built wheel and sdist, installed outside the tree as a stranger would.

Versions come from the lock file, so that what is tested is what was locked.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.tiers import ROOT

pytestmark = pytest.mark.slow

UV = Path(sys.executable).with_name("uv")
LOCK = ROOT / "requirements" / "lock.txt"
#: What a laptop must not have to install.
HEAVY = ("jupyterhub", "sqlalchemy", "tornado", "jupyterlab", "psycopg")


def run(command: Sequence[str | Path], cwd: Path, **extra: str) -> str:
    """What a command that must succeed says, in an environment without this tree's paths."""
    kept = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}} | extra
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the sdist of the tree as it is."""
    out = tmp_path_factory.mktemp("dist")
    lock = ROOT / ".artifacts" / "setup.lock"
    lock.parent.mkdir(exist_ok=True)
    # As `make wheel`: the panel stays as it is until it is packed.
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
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


def test_a_single_user_server_has_the_panel_and_its_server_extension(
    built: Path, tmp_path: Path
) -> None:
    programs = install(tmp_path, f"{next(built.glob('*.whl'))}[lab]")
    # Nothing of this machine's configuration, so what is listed came with the wheel.
    clean = {"HOME": str(tmp_path), "JUPYTER_NO_CONFIG": "1", "NO_COLOR": "1"}
    panels = run([programs / "jupyter", "labextension", "list"], tmp_path, **clean)
    assert "gpudev-lab" in panels
    (line,) = [line for line in panels.splitlines() if "gpudev-lab" in line]
    assert "enabled" in line
    assert "OK" in line
    assert "(python, gpudev)" in line
    del clean["JUPYTER_NO_CONFIG"]
    servers = run([programs / "jupyter", "server", "extension", "list"], tmp_path, **clean)
    assert any("gpudev_lab" in line and "OK" in line for line in servers.splitlines())


def test_wheel_and_sdist_carry_the_panel_as_it_was_built(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        share = [name for name in wheel.namelist() if "/labextensions/gpudev-lab/" in name]
        package = [name for name in wheel.namelist() if name.startswith("gpudev_lab/")]
        described = next(name for name in share if name.endswith("gpudev-lab/package.json"))
        manifest = json.loads(wheel.read(described))
    entry = manifest["jupyterlab"]["_build"]["load"]
    assert any(name.endswith(f"/{entry}") for name in share)
    assert not [name for name in package if "labextension" in name]
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = [member.name.split("/", 1)[-1] for member in sdist.getmembers()]
    assert f"labextension/gpudev_lab/labextension/{entry}" in names
    assert "labextension/yarn.lock" in names
    assert not [name for name in names if "node_modules/" in name or "/.yarn/" in name]


def test_a_checkout_installs_its_client_without_nodejs(tmp_path: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    tree = tmp_path / "tree"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    assert not (tree / "labextension/gpudev_lab/labextension").exists()
    run([UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    without = {"PATH": str(python.parent), "SKIP_JUPYTER_BUILDER": "1"}
    run([UV, "pip", "install", "--quiet", "--python", python, str(tree)], tmp_path, **without)
    assert "reserve" in run([python.with_name("gpu-dev"), "--help"], tmp_path)
