"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from tests.tiers import ROOT

LONGEST_MODULE = 500
LONGEST_FUNCTION = 60
PACKAGES = (
    "gpudev_client",
    "gpudev_service",
    "gpudev_spawner",
    "gpudev_hub_config",
    "labextension/gpudev_lab",
)
# Where packages come from is the machine's business: pip, uv and npm are configured there.
REGISTRY = re.compile(
    r"files\.pythonhosted\.org|pypi\.org/simple|registry\.(npmjs|yarnpkg)\.(org|com)|--(extra-)?index-url"
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tracked() -> list[Path]:
    """The files under version control; outside a checkout (an unpacked sdist) there are none."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / part for part in listing.stdout.split("\0") if part]


@pytest.mark.parametrize("path", modules(*PACKAGES), ids=name)
def test_a_module_says_what_it_is_and_stays_readable(path: Path) -> None:
    source = path.read_text()
    tree = ast.parse(source)
    if source.strip():
        assert ast.get_docstring(tree), "a module begins with what it is for"
    assert len(source.splitlines()) <= LONGEST_MODULE
    long = [
        f"{node.name}: {length} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert not long


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_of_a_package_says_what_belongs_in_it(package: str) -> None:
    silent = []
    # A folder of numbered files that alembic reads by path is no package.
    folders = {path.parent for path in modules(package) if path.parent.name != "versions"}
    for folder in folders:
        init = folder / "__init__.py"
        if not init.exists() or not ast.get_docstring(ast.parse(init.read_text())):
            silent.append(name(init))
    assert not silent


def test_no_tracked_file_names_a_package_registry() -> None:
    found = []
    for path in tracked():
        if path == Path(__file__) or not path.is_file():
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # a picture
        found += [f"{name(path)}: {match}" for match in REGISTRY.findall(text)]
    assert not found


def test_the_version_stands_once() -> None:
    version = PROJECT["project"]["version"]
    assert metadata.version("gpudev") == version
    # What JupyterLab shows; npm wants it in its own file.
    assert json.loads((ROOT / "labextension/package.json").read_text())["version"] == version
    literal = re.compile(rf"""["']{re.escape(version)}["']""")
    assert not [name(path) for path in modules(*PACKAGES) if literal.search(path.read_text())]


@pytest.mark.parametrize("lock", ["lock.txt", "hub5.txt"])
def test_the_lock_pins_every_dependency_that_the_project_names(lock: str) -> None:
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    for requirements in project["optional-dependencies"].values():
        wanted += requirements
    names = {re.split(r"[^A-Za-z0-9_.-]", line)[0] for line in wanted} - {"gpudev"}
    pinned = set(
        re.findall(r"^([\w.-]+)==\S+", (ROOT / "requirements" / lock).read_text(), re.MULTILINE)
    )
    assert {wanted.lower().replace("_", "-") for wanted in names} <= pinned


def test_the_lock_of_the_oldest_hub_is_for_the_oldest_hub() -> None:
    text = (ROOT / "requirements" / "hub5.txt").read_text()
    assert re.search(r"^jupyterhub==5\.5\.", text, re.MULTILINE)
