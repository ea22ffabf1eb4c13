"""Which tests run a line: a plugin of pytest that writes it down, and the answer.

Most tests of an area never come to the line that a mutant changes, so they cannot notice it. As a
plugin (`-p benchmarks.covering`, under coverage.py) each test is a context of its own, and how long
each took is kept beside it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Iterator
from pathlib import Path

import coverage
import pytest
from coverage import CoverageData

TOOK = Path("took.json")
_took: dict[str, float] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    counting = coverage.Coverage.current()
    assert counting is not None, "run under coverage.py"
    counting.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        counting.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _took[report.nodeid] = _took.get(report.nodeid, 0.0) + report.duration


def pytest_sessionfinish() -> None:
    TOOK.write_text(json.dumps(_took))


class Covering:
    """What a run with the plugin left in the working directory."""

    def __init__(self) -> None:
        self._data = CoverageData()
        self._data.read()
        self._took: dict[str, float] = json.loads(TOOK.read_text())
        self._contexts: dict[Path, dict[int, list[str]]] = {}

    @property
    def all(self) -> Collection[str]:
        return self._took.keys()

    def tests(self, path: Path, line: int) -> list[str]:
        """The tests that run the statement on this line, the shortest first. What runs when the
        module is imported belongs to every test that runs anything of the module; of a module that
        only declares, to all."""
        if path not in self._contexts:
            self._contexts[path] = self._data.contexts_by_lineno(str(path.absolute()))
        contexts = self._contexts[path]
        at = {test for each in statement(path, line) for test in contexts.get(each, ())}
        if "" in at:
            at = {test for tests in contexts.values() for test in tests} - {""}
            at = at or set(self._took)
        return sorted(at & self._took.keys(), key=lambda test: (self._took[test], test))

    def seconds(self, tests: Collection[str]) -> float:
        return sum(self._took[test] for test in tests)


def statement(path: Path, line: int) -> range:
    """The lines of the innermost statement that has this one, without a body of its own."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.stmt):
            continue
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(each.lineno for each in decorators)])
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
        if first <= line <= max(last, node.lineno):
            found = range(first, max(last, node.lineno) + 1)
    return found
