"""No module is forgotten when mutants are drawn."""

from pathlib import Path

import gpudev_service
from benchmarks.r7 import AREAS, OTHERS

SERVICE = Path(gpudev_service.__file__).parent


def test_every_module_that_decides_is_in_an_area() -> None:
    drawn = {
        path
        for area in AREAS.values()
        for pattern in area.modules
        for path in SERVICE.glob(pattern)
    }
    others = {SERVICE / "operations" / f"{name}.py" for name in OTHERS}
    modules = {
        path
        for package in ("operations", "planner", "store")
        for path in (SERVICE / package).glob("*.py")
        if path.name != "__init__.py"
    }
    assert modules - drawn == others


def test_every_test_of_the_planner_is_asked() -> None:
    named = {*AREAS["planner"].quick, *AREAS["planner"].slow}
    there = (SERVICE.parent / "tests" / "planner").glob("test_*.py")
    assert {str(path.relative_to(SERVICE.parent)) for path in there} <= named


def test_every_test_of_an_area_is_there() -> None:
    root = SERVICE.parent
    for area in AREAS.values():
        assert [test for test in (*area.quick, *area.slow) if not (root / test).exists()] == []
