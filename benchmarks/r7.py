"""Tests that bite: branch coverage and mutants killed in planner, store, leases and authorization.

The tests of each area run once over a copy of the tree, with branches counted, and then, for each
mutant, those of them that run its line. Mutants are changes that Cosmic Ray makes up, of which a
seed draws some. Those that change nothing are not drawn: in an annotation, in a `@dataclass`, `==`
for `is` with None or a member of an enum, `^` or `+` for the `|` of flags or behind a `<<`, and
what is made of the `*` that stands alone among parameters. Each area is judged by itself: branches
alone, which is the smaller number, and its own mutants. `AREAS=planner,store`, `MUTANTS` (per
area), `SEED`, `MODULE=windows` (a part of a file's name) and `TESTS` (fewer than the area's) change
it.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec

from benchmarks.campaign import ROOT, SMALL, machine, size, verdict
from benchmarks.covering import Covering
from benchmarks.ssh_peers import here

GOAL_COVERAGE, GOAL_KILLED = 95.0, 90.0
#: Mutants of each area.
FULL = 200
#: What is built and not kept by git, and found in the tree itself.
BUILT = ("node_modules", ".venv", ".venv-hub5")


@dataclass(frozen=True)
class Area:
    """Modules of the service, and the tests that are there for them; in the small size the quick
    ones alone."""

    modules: tuple[str, ...]
    quick: tuple[str, ...]
    slow: tuple[str, ...] = ()

    @property
    def tests(self) -> tuple[str, ...]:
        return self.quick if SMALL else self.quick + self.slow


AREAS = {
    "planner": Area(
        ("planner/*.py",),
        (
            "tests/planner/test_calendar.py",
            "tests/planner/test_examples.py",
            "tests/planner/test_holes.py",
            "tests/planner/test_losses.py",
            "tests/planner/test_world.py",
        ),
        (
            "tests/planner/test_purity.py",
            "tests/simulation/test_promises.py",
            "tests/planner/test_properties.py",
        ),
    ),
    "store": Area(
        ("store/*.py",),
        ("tests/store", "tests/service/test_damage.py"),
        ("tests/simulation/test_remembered.py",),
    ),
    "leases": Area(
        (
            "operations/admission.py",
            "operations/capacity.py",
            "operations/extension.py",
            "operations/facts.py",
            "operations/fullness.py",
            "operations/holding.py",
            "operations/idle.py",
            "operations/impossible.py",
            "operations/kept.py",
            "operations/labels.py",
            "operations/limited.py",
            "operations/overview.py",
            "operations/places.py",
            "operations/placing.py",
            "operations/planning.py",
            "operations/pods.py",
            "operations/positions.py",
            "operations/promises.py",
            "operations/questions.py",
            "operations/quotas.py",
            "operations/reservations.py",
            "operations/rows.py",
            "operations/servers.py",
            "operations/standings.py",
            "operations/transitions.py",
            "operations/verdicts.py",
            "loops/driving.py",
            "loops/expiry.py",
            "loops/failures.py",
            "loops/fleet.py",
            "loops/idle.py",
            "loops/reconcile.py",
            "loops/retention.py",
            "loops/runner.py",
            "loops/shares.py",
            "loops/slept.py",
            "loops/starts.py",
            "loops/surroundings.py",
            "loops/warnings.py",
            "idleness.py",
            "together.py",
        ),
        (
            "tests/operations",
            "tests/loops",
            "tests/fleet",
            "tests/service/test_damage.py",
            "tests/service/test_environment.py",
            "tests/service/test_idleness.py",
            "tests/service/test_other_clocks.py",
            "tests/service/test_together.py",
        ),
        ("tests/simulation/test_simulation.py", "tests/simulation/test_remembered.py"),
    ),
    "authorization": Area(
        (
            "api/access.py",
            "api/auth.py",
            "api/permissions.py",
            "api/tickets.py",
            "operations/sharing.py",
        ),
        (
            "tests/api/test_permissions.py",
            "tests/api/test_access.py",
            "tests/api/test_authorization.py",
            "tests/api/test_logins.py",
            "tests/api/test_browsers.py",
            "tests/api/test_inside_the_lease.py",
            "tests/api/test_tickets.py",
            "tests/operations/test_sharing.py",
        ),
    ),
}
#: Loops that decide neither: one measures disks, one is a pause.
OTHER_LOOPS = ("pace", "sizes")
#: Operations that decide neither over leases nor over who may do what.
OTHERS = (
    "cursors",
    "disks",
    "doubts",
    "keys",
    "lab",
    "listings",
    "notices",
    "sizes",
    "snapshots",
    "status",
    "views",
)


@contextlib.contextmanager
def copy() -> Iterator[Path]:
    """The tree as it stands, to be changed; the working directory meanwhile."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    ).stdout
    folder = Path(tempfile.mkdtemp(prefix="gpudev-mutants-"))
    try:
        for name in filter(None, listed.decode().split("\0")):
            source, target = ROOT / name, folder / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        for name in BUILT:
            if (ROOT / name).exists():
                (folder / name).symlink_to(ROOT / name)
        with contextlib.chdir(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


#: Runs tests until one fails.
PYTEST = ("-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider")
SELECTED = Path("selected.txt")


def files(area: Area) -> list[Path]:
    service, part = Path("gpudev_service"), os.environ.get("MODULE", "")
    found = [path for pattern in area.modules for path in sorted(service.glob(pattern))]
    return [path for path in found if path.name != "__init__.py" and part in path.name]


@dataclass(frozen=True)
class Covered:
    """What an area's tests take of its code; percent."""

    branches: float
    statements: float

    @classmethod
    def of(cls, totals: Mapping[str, float]) -> Covered:
        """From the totals of coverage.py, whose own percentage is of both together."""
        return cls(
            100 * totals["covered_branches"] / max(totals["num_branches"], 1),
            100 * totals["covered_lines"] / max(totals["num_statements"], 1),
        )


@dataclass(frozen=True)
class Result:
    """What came of one area."""

    covered: Covered
    killed: int
    drawn: int

    @property
    def good(self) -> bool:
        enough = 100 * self.killed >= GOAL_KILLED * self.drawn
        return self.covered.branches >= GOAL_COVERAGE and enough and self.drawn > 0

    def __str__(self) -> str:
        return f"{self.covered.branches:.1f}%/{self.killed}-of-{self.drawn}"


def coverage(area: Area) -> tuple[Covered, float]:
    """How much of the area its tests take, and how long they ran; which test runs what is left for
    `Covering`.

    Raises:
        SystemExit: they fail without any mutant; what they said.
    """
    begin = time.monotonic()
    include = ",".join(map(str, files(area)))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "coverage", "run", "--branch", f"--include={include}"),
            *("--concurrency=thread,greenlet", *PYTEST, "-p", "benchmarks.covering"),
            *(os.environ.get("TESTS", "").split() or area.tests),
        ],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stdout[-4_000:])
    took = time.monotonic() - begin
    subprocess.run(
        [sys.executable, "-m", "coverage", "json", "-q", "-o", "coverage.json"], check=True
    )
    found = json.loads(Path("coverage.json").read_text())
    for name, each in sorted(found["files"].items(), key=_percent)[:3]:
        missing = each["missing_branches"][:6]
        print(f"  {name}: {_percent((name, each)):.0f}% of branches, not taken {missing}")
    return Covered.of(found["totals"]), took


def _percent(item: tuple[str, dict[str, dict[str, float]]]) -> float:
    summary = item[1]["summary"]
    if not summary["num_branches"]:
        return 100.0
    return 100 * summary["covered_branches"] / summary["num_branches"]


def draw(area: Area, number: int, seed: int) -> list[MutationSpec]:
    """Some of all mutants."""
    paths = files(area)
    trees = {str(path): ast.parse(path.read_text()) for path in paths}
    hidden = {name: list(_unseen(tree)) for name, tree in trees.items()}
    same = {name: list(_same(tree)) for name, tree in trees.items()}
    with use_db("mutants.sqlite", WorkDB.Mode.create) as database:
        init(paths, database, {})
        every = [item.mutations[0] for item in database.work_items]
    every = [
        mutant
        for mutant in every
        if not _inside(mutant.start_pos, hidden[str(mutant.module_path)])
        and not any(
            mutant.operator_name in names and _inside(mutant.start_pos, [span])
            for names, span in same[str(mutant.module_path)]
        )
    ]
    every.sort(key=lambda m: (str(m.module_path), m.operator_name, m.occurrence))
    print(f"  {len(every)} mutants of {len(paths)} modules, {min(number, len(every))} drawn")
    return random.Random(seed).sample(every, min(number, len(every)))


Span = tuple[tuple[int, int], tuple[int, int]]


#: Mutants that are the same program, where one of both sides is a single object, or both are flags,
#: or one is shifted to make room for the other.
_IDENTITY = {
    "core/ReplaceComparisonOperator_Is_Eq",
    "core/ReplaceComparisonOperator_IsNot_NotEq",
}
_FLAGS = {"core/ReplaceBinaryOperator_BitOr_BitXor", "core/ReplaceBinaryOperator_BitOr_Add"}
#: The star behind which parameters have to be named is taken for an operator.
_STAR = {
    f"core/ReplaceBinaryOperator_Mul_{other}"
    for other in (
        "Add", "Sub", "Div", "FloorDiv", "Mod", "Pow", "RShift", "LShift", "BitOr", "BitAnd",
        "BitXor",
    )
}  # fmt: skip


def _unseen(tree: ast.AST) -> Iterator[Span]:
    """Where annotations stand, which are not evaluated, and what dataclasses are made with: whether
    one is frozen or has slots is seen by those alone who do what the type checker forbids."""
    for node in ast.walk(tree):
        found = [getattr(node, "returns", None), getattr(node, "annotation", None)]
        if isinstance(node, ast.ClassDef):
            found += [
                each
                for each in node.decorator_list
                if isinstance(each, ast.Call)
                and isinstance(each.func, ast.Name)
                and each.func.id == "dataclass"
            ]
        for each in found:
            if isinstance(each, ast.expr):
                end = (each.end_lineno or each.lineno, each.end_col_offset or 0)
                yield (each.lineno, each.col_offset), end


def _same(tree: ast.AST) -> Iterator[tuple[set[str], Span]]:
    """Which mutants change nothing, and where: between the two sides of an operator."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot()], comparators=[right]):
                if _is_single(right):
                    yield _IDENTITY, _between(left, right)
            case ast.BinOp(left=left, right=right) if _is_flag(node):
                yield _FLAGS, _between(left, right)
            case ast.BinOp(left=ast.BinOp(op=ast.LShift()) as left, op=ast.BitOr(), right=right):
                yield _FLAGS, _between(left, right)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                given, named = node.args, node.args.kwonlyargs
                if named and given.vararg is None:
                    before: list[ast.arg | ast.expr] = []
                    before += [*given.posonlyargs, *given.args, *given.defaults]
                    ends = [(each.end_lineno or 0, each.end_col_offset or 0) for each in before]
                    begin = max(ends, default=(node.lineno, node.col_offset))
                    yield _STAR, (begin, (named[0].lineno, named[0].col_offset))


def _is_single(node: ast.expr) -> bool:
    """None, or what is written as members of enums are."""
    match node:
        case ast.Constant(value=value):
            return value is None
        case ast.Attribute(value=ast.Name(id=kind), attr=name):
            return kind[0].isupper() and name.isupper()
    return False


def _is_flag(node: ast.expr) -> bool:
    """A constant of `os` for opening files, or some of them."""
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _is_flag(left) and _is_flag(right)
        case ast.Attribute(value=ast.Name(id="os"), attr=name):
            return name.startswith("O_")
    return False


def _between(left: ast.expr, right: ast.expr) -> Span:
    return (left.end_lineno or left.lineno, left.end_col_offset or 0), (
        right.lineno,
        right.col_offset,
    )


def _inside(position: tuple[int, int], spans: list[Span]) -> bool:
    return any(begin <= position <= end for begin, end in spans)


def findable(tests: Collection[str]) -> None:
    """A test that is not found ends pytest as one that fails does, and would kill any mutant.

    Raises:
        SystemExit: what pytest says.
    """
    SELECTED.write_text("\n".join(tests))
    done = subprocess.run(
        [sys.executable, *PYTEST, "--collect-only", f"@{SELECTED}"],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit((done.stdout + done.stderr)[-4_000:])


def survivors(mutants: list[MutationSpec], covering: Covering) -> list[str]:
    """The mutants that the tests which run them do not notice."""
    found = []
    for mutant in mutants:
        tests = covering.tests(Path(mutant.module_path), mutant.start_pos[0])
        if tests and _killed(mutant, tests, covering.seconds(tests)):
            continue
        found.append(
            f"  survived {len(tests)} tests: {mutant.module_path}:{mutant.start_pos[0]}"
            f" {mutant.operator_name.removeprefix('core/')} in {mutant.definition_name}"
        )
        print(found[-1], flush=True)
    return found


def _killed(mutant: MutationSpec, tests: list[str], seconds: float) -> bool:
    SELECTED.write_text("\n".join(tests))
    command = " ".join([sys.executable, *PYTEST, f"@{SELECTED}"])
    # Counting branches made the tests about twice as slow: some mutants loop for ever.
    result = mutate_and_test([mutant], command, 1.5 * seconds + 30)
    if result.worker_outcome != "normal":
        raise SystemExit(f"{mutant}: {result.output}")
    return result.test_outcome == "killed"


def main() -> int:
    here()
    print(machine())
    names = (os.environ.get("AREAS") or ("planner" if SMALL else ",".join(AREAS))).split(",")
    number, seed = size("MUTANTS", FULL, 6), int(os.environ.get("SEED", "1"))
    found: dict[str, Result] = {}
    with copy():
        for name in names:
            area = AREAS[name]
            print(f"{name}:")
            covered, seconds = coverage(area)
            mutants = draw(area, number, seed)
            covering = Covering()
            findable(covering.all)
            alive = survivors(mutants, covering)
            found[name] = Result(covered, len(mutants) - len(alive), len(mutants))
            print(
                f"{name}: {covered.branches:.1f}% of branches, {covered.statements:.1f}% of"
                f" statements, {len(mutants) - len(alive)} of {len(mutants)} mutants killed; its"
                f" tests take {seconds:.0f} s"
            )
    good = all(each.good for each in found.values())
    full = is_full(names, number, os.environ)
    shown = " ".join(f"{name}={each}" for name, each in found.items())
    print(
        f"R7 branches/mutants {shown} (seed {seed}) goal {GOAL_COVERAGE:.0f}%,{GOAL_KILLED:.0f}% in"
        f" each area"
        f" {verdict(good=good, full=full)}"
    )
    return 0


def is_full(names: Collection[str], number: int, given: Mapping[str, str]) -> bool:
    """Whether all was asked for: every area with all of its modules and tests, and mutants enough.

    Args:
        given: the environment.
    """
    narrowed = any(given.get(name) for name in ("MODULE", "TESTS"))
    small = given.get("SIZE") == "small"
    return set(names) == set(AREAS) and number >= FULL and not narrowed and not small


if __name__ == "__main__":
    sys.exit(main())
