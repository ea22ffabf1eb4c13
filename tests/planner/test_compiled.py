"""The planner as the service's image has it, compiled: what holds of its source holds of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from benchmarks.planner_queues import NOW, queue
from gpudev_service.planner import plan
from tests.tiers import ROOT
from tools import compiled

pytestmark = [pytest.mark.compiler, pytest.mark.slow]

#: What the planner, its tests and their fixtures need of the tree.
_PARTS = (
    *("gpudev_client", "gpudev_hub_config", "gpudev_service", "tests", "tools", "benchmarks"),
    "pyproject.toml",
)
#: What is about sources.
_OF_SOURCES = ("tests/planner/test_compiled.py", "tests/planner/test_purity.py")
_PLAN = """
from gpudev_service.planner import windows
from tests.planner import test_compiled
print(windows.__file__, test_compiled.digest())
"""


def digest() -> str:
    """Of a whole plan, with every rule, for a queue that is the same everywhere."""
    given = queue(2000, 200)
    made = plan(given.nodes, given.holds, given.demands, given.rules, NOW)
    return sha256(
        repr((sorted(made.slots.items()), sorted(made.impossible.items()))).encode()
    ).hexdigest()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with the planner compiled in it."""
    folder = tmp_path_factory.mktemp("compiled")
    for name in _PARTS:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "node_modules")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy2(source, folder / name)
    compiled.compile_in(folder)
    # Nothing else is left that a test could run.
    for made in (folder / compiled.PACKAGE).glob("*.so"):
        made.with_name(f"{made.name.partition('.')[0]}.py").unlink()
    return folder


def python(tree: Path, *arguments: str) -> str:
    said = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def test_the_same_plan(tree: Path) -> None:
    module, made = python(tree, "-c", _PLAN).split()
    assert module.endswith(".so")
    assert made == digest()


@pytest.mark.parametrize("tests", ["tests/planner", "tests/simulation/test_promises.py"])
def test_what_holds_of_the_source(tree: Path, tests: str) -> None:
    ignored = [f"--ignore={name}" for name in _OF_SOURCES]
    python(tree, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *ignored, tests)
