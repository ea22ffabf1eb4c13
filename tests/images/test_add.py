"""The Hub's image: what its base has stays, and only what is missing comes from the lock file."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import pytest

from tests.tiers import ROOT

LOCK = ROOT / "requirements" / "hub.txt"
#: Of what Zero to JupyterHub 4.3.5 has in its image: what we ask for too, and what asks for that.
BASE = {
    "certifi": "2026.4.22",
    "jinja2": "3.1.6",
    "jupyterhub": "5.4.6",
    "jupyterhub-kubespawner": "7.0.0",
    "kubernetes-asyncio": "35.0.1",
    "oauthenticator": "17.4.0",
    "pydantic": "2.13.4",
    "sqlalchemy": "2.0.49",
    "sqlalchemy-cockroachdb": "2.0.3",
    "tornado": "6.5.5",
    "typing-extensions": "4.15.0",
}
EXTRAS = ("hub", "kubernetes", "oauth")


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("add", ROOT / "images" / "add.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


add = _loaded()


def lines() -> list[str]:
    """What the project asks for, as the metadata of its wheel says it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = list(project["dependencies"])
    for extra, asked in project["optional-dependencies"].items():
        found += [f'{line} ; extra == "{extra}"' for line in asked]
    return found


def names(*more: str) -> dict[str, str]:
    """The versions that the image gets from the lock file, where its base is `BASE`."""
    wants = [*add.asked(lines(), EXTRAS), *add.asked(more)]
    pins = add.added(wants, add.locked(LOCK.read_text()), BASE)
    return {name: re.split("==| ", pin)[1] for name, pin in pins.items()}


def test_what_the_base_has_stays() -> None:
    found = names()
    assert set(found) & set(BASE) == {"jupyterhub"}
    assert {"httpx", "click", "rich", "platformdirs", "sniffio"} <= set(found)


def test_what_is_too_old_for_us_comes_from_the_lock_file() -> None:
    locked = re.search(r"^jupyterhub==(\S+)", LOCK.read_text(), re.MULTILINE)
    assert locked
    assert names()["jupyterhub"] == locked[1]


def test_what_the_added_need_newer_comes_too() -> None:
    """As anyio, which a base lacks, does of typing-extensions, which it has."""
    assert "typing-extensions" not in names()
    assert "typing-extensions" in names("typing_extensions>=4.16.0 ; python_version < '3.15'")


def test_an_environment_with_all_of_it_is_left_alone() -> None:
    pins = add.locked(LOCK.read_text())
    there = {name: re.split("==| ", pin)[1] for name, pin in pins.items()}
    assert add.added(add.asked(lines(), EXTRAS), pins, there) == {}


def test_each_pin_goes_with_its_hashes_and_no_comment() -> None:
    pins = add.locked(LOCK.read_text())
    assert len(pins) > 50
    for pin in pins.values():
        first, *hashes = pin.splitlines()
        assert first.endswith(" \\")
        assert hashes
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", one) for one in hashes)
        assert not hashes[-1].endswith("\\")


def test_what_another_system_needs_is_left_out() -> None:
    text = LOCK.read_text()
    assert "\npsutil==" in text
    assert "; sys_platform == 'win32'" in text
    assert "psutil" not in add.locked(text)
    assert "pamela" in add.locked(text)


def test_what_a_wheel_asks_for_is_read_from_it(tmp_path: Path) -> None:
    wheel = tmp_path / "gpudev-1-py3-none-any.whl"
    with ZipFile(wheel, "w") as files:
        asked = "".join(f"Requires-Dist: {line}\n" for line in lines())
        files.writestr(
            "gpudev-1.dist-info/METADATA", f"Metadata-Version: 2.4\nName: gpudev\n{asked}"
        )
    assert add.of_wheel(str(wheel)) == lines()
    wanted = {each.name for each in add.asked(add.of_wheel(str(wheel)), EXTRAS)}
    assert {"httpx", "jupyterhub", "jupyterhub-kubespawner", "oauthenticator"} <= wanted
    assert not {"jupyterlab", "alembic"} & wanted


@pytest.mark.slow
def test_what_has_another_hash_is_not_installed(tmp_path: Path) -> None:
    """Run as in the image: in an environment without anything, with a lock file of one package
    beside it."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    wheels = {}
    for name, needs in (("gpudev", "Requires-Dist: thing>=2\n"), ("thing", "")):
        wheels[name] = tmp_path / f"{name}-2-py3-none-any.whl"
        about = f"{name}-2.dist-info"
        with ZipFile(wheels[name], "w") as files:
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 2\n{needs}"
            files.writestr(f"{about}/METADATA", metadata)
            files.writestr(
                f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            files.writestr(f"{about}/RECORD", "")
    right = hashlib.sha256(wheels["thing"].read_bytes()).hexdigest()
    lock = tmp_path / "lock.txt"
    for digest, fits in (("0" * 64, False), (right, True)):
        lock.write_text(f"thing==2 \\\n    --hash=sha256:{digest}\n    # via gpudev\n")
        done = subprocess.run(
            [str(python), str(ROOT / "images/add.py"), str(wheels["gpudev"]), "hub", str(lock)],
            env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) is fits, done.stderr
        there = subprocess.run([str(python), "-m", "pip", "show", "thing"], check=False)
        assert (there.returncode == 0) is fits
