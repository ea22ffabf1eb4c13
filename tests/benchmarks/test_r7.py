"""No module is forgotten when mutants are drawn, and no area stands in for another."""

import ast
from operator import itemgetter
from pathlib import Path

import gpudev_service
from benchmarks import r7
from benchmarks.r7 import (
    AREAS,
    FULL,
    GOAL_COVERAGE,
    OTHER_LOOPS,
    OTHERS,
    Covered,
    Result,
    is_full,
)

SERVICE = Path(gpudev_service.__file__).parent


def test_every_module_that_decides_is_in_an_area() -> None:
    drawn = {
        path
        for area in AREAS.values()
        for pattern in area.modules
        for path in SERVICE.glob(pattern)
    }
    others = {SERVICE / "operations" / f"{name}.py" for name in OTHERS}
    others |= {SERVICE / "loops" / f"{name}.py" for name in OTHER_LOOPS}
    modules = {
        path
        for package in ("loops", "operations", "planner", "store")
        for path in (SERVICE / package).glob("*.py")
        if path.name != "__init__.py"
    }
    assert modules - drawn == others


def test_every_test_of_the_planner_is_asked() -> None:
    named = {*AREAS["planner"].quick, *AREAS["planner"].slow}
    there = (SERVICE.parent / "tests" / "planner").glob("test_*.py")
    tests = {str(path.relative_to(SERVICE.parent)) for path in there}
    # In what is compiled no branches are counted, and a mutant would have to be compiled first.
    assert tests - {"tests/planner/test_compiled.py"} <= named


def test_every_test_of_an_area_is_there() -> None:
    root = SERVICE.parent
    for area in AREAS.values():
        assert [test for test in (*area.quick, *area.slow) if not (root / test).exists()] == []


def test_branches_are_counted_by_themselves() -> None:
    """Coverage's own percentage is of statements and branches together: here 97."""
    totals = {
        "covered_lines": 100,
        "num_statements": 100,
        "covered_branches": 16,
        "num_branches": 20,
        "percent_covered": 100 * 116 / 120,
    }
    assert Covered.of(totals) == Covered(branches=80.0, statements=100.0)


def test_each_area_has_to_meet_the_goals() -> None:
    covered = Covered(GOAL_COVERAGE, 100.0)
    assert Result(covered, killed=9, drawn=10).good
    assert not Result(covered, killed=8, drawn=10).good
    assert not Result(covered, killed=0, drawn=0).good
    assert not Result(Covered(94.9, 100.0), killed=10, drawn=10).good


def test_a_part_of_it_is_not_the_whole() -> None:
    assert is_full(list(AREAS), FULL, {"MODULE": "", "SEED": "3"})
    assert not is_full(list(AREAS)[1:], FULL, {})
    assert not is_full(list(AREAS), FULL - 1, {})
    for name, value in (("MODULE", "windows"), ("TESTS", "tests/store"), ("SIZE", "small")):
        assert not is_full(list(AREAS), FULL, {name: value})


def test_mutants_that_change_nothing_are_known_by_their_place() -> None:
    source = """
nothing = a is None
other = a is b
member = a is not State.ACTIVE
thing = a is self.other
opened = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
either = mode | 1
key = start << BITS | node
def run(self, count=60 * 60, *, force=False): ...
def rest(*args, force=False): ...
"""
    same = sorted(r7._same(ast.parse(source)), key=itemgetter(1))
    found = [(names, begin[0]) for names, (begin, _) in same]
    assert found == [
        (r7._IDENTITY, 2),
        (r7._IDENTITY, 4),
        (r7._FLAGS, 6),
        (r7._FLAGS, 6),
        (r7._FLAGS, 8),
        (r7._STAR, 9),
    ]
    [(_, (begin, end))] = list(r7._same(ast.parse("def f(a=2 * 3, *, b): ...")))
    assert "def f(a=2 * 3, *, b): ..."[begin[1] : end[1]] == ", *, "
    [(_, (begin, end))] = list(r7._same(ast.parse("nothing = a is None")))
    assert "nothing = a is None"[begin[1] : end[1]] == " is "


def test_what_nobody_sees_is_not_drawn() -> None:
    source = "@dataclass(frozen=True)\nclass A:\n    b: int = field(default=1)\n"
    found = [
        source.splitlines()[line - 1][at:end]
        for (line, at), (_, end) in r7._unseen(ast.parse(source))
    ]
    assert sorted(found) == ["dataclass(frozen=True)", "int"]
