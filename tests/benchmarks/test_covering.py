"""A mutant is given to the tests that run its line."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.covering import Covering, statement

MODULE = """
LIMIT = 3


def under(number):
    if (
        number
        < LIMIT
    ):
        return True
    return False


def unused():
    return 1
"""
TESTS = """
import pytest
import declared
import module


def test_under():
    assert module.under(1)


@pytest.mark.parametrize("number", [3, 4])
def test_over(number):
    assert not module.under(number)


def test_nothing():
    pass
"""
BOTH = ["test_module.py::test_over[3]", "test_module.py::test_over[4]"]
ALL = ["test_module.py::test_under", *BOTH]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("covering")
    (folder / "module.py").write_text(MODULE)
    (folder / "declared.py").write_text("WIDTH = 63\n")
    (folder / "test_module.py").write_text(TESTS)
    root = Path(__file__).parents[2]
    subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "coverage",
                "run",
                "--branch",
                "--include=module.py,declared.py",
            ),
            *("--concurrency=thread,greenlet", "-m", "pytest", "-q", "-n", "0"),
            *("-p", "benchmarks.covering", "-p", "no:cacheprovider", "test_module.py"),
        ],
        cwd=folder,
        check=True,
        env={"PYTHONPATH": f"{root}:{folder}", "PATH": ""},
    )
    return folder


@pytest.mark.parametrize(
    ("line", "tests"),
    [
        pytest.param(8, ALL, id="a-line-inside-a-condition"),
        pytest.param(10, ALL[:1], id="one-branch"),
        pytest.param(11, BOTH, id="the-other"),
        pytest.param(15, [], id="what-no-test-runs"),
        pytest.param(2, ALL, id="what-an-import-runs"),
    ],
)
def test_the_tests_of_a_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, line: int, tests: list[str]
) -> None:
    monkeypatch.chdir(folder)
    covering = Covering()
    assert sorted(covering.tests(Path("module.py"), line)) == sorted(tests)
    assert len(covering.all) == 4
    assert covering.seconds(tests) < covering.seconds(covering.all)


def test_what_only_declares_is_of_all_tests(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    covering = Covering()
    assert sorted(covering.tests(Path("declared.py"), 1)) == sorted(covering.all)


def test_a_statement_ends_where_its_body_begins(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(MODULE)
    assert statement(module, 8) == range(6, 10)
    assert statement(module, 11) == range(11, 12)
    assert statement(module, 5) == range(5, 6)
