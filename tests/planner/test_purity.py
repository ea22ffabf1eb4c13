"""The planner is a function of what it is given: it knows the standard library and itself only."""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpudev_service.planner
from gpudev_service.planner import Demand, Extension, Hold, Node, Plan, Rules

MODULES = sorted(Path(gpudev_service.planner.__file__).parent.rglob("*.py"))


def foreign(source: str) -> Iterator[str]:
    """What a module of the planner imports from elsewhere than itself or the standard library."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.ImportFrom) and node.level > 1:
            names = ["." * node.level + (node.module or "")]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] not in sys.stdlib_module_names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_the_standard_library_and_the_planner_only(path: Path) -> None:
    assert list(foreign(path.read_text())) == []


@pytest.mark.parametrize(
    "line", ["import numpy as np", "from sqlalchemy.orm import Session", "from ..store import rows"]
)
def test_an_import_from_elsewhere_would_be_found(line: str) -> None:
    assert len(list(foreign(f"import heapq\nfrom .model import Slot\n{line}"))) == 1


@pytest.mark.parametrize("kind", [Demand, Extension, Hold, Node, Plan, Rules])
def test_what_goes_in_and_comes_out_cannot_be_changed(kind: type[Demand]) -> None:
    """A plan is compared with the one before it, and may share parts with it."""
    made = kind.__new__(kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(kind)[0].name, 1)
