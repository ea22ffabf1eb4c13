"""A copy of the tree into which holes are planted, and the tests that are run in it.

Servers which such tests start import from the copy too: it stands first on their PYTHONPATH, before
what is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.tiers import ROOT

from .catalogue import Hole

#: What is not under version control and is needed all the same; linked, never written to.
_BUILT = ("node_modules", ".venv-hub5", "labextension/gpudev_lab/labextension")
#: How a failure begins whose reason is what the test asks for, and not some accident before it.
_ASSERTED = ("AssertionError", "assert ", "Failed: ")
PATIENCE = 600


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one case of a test ended: "passed", "failed", "error", "skipped"; `reason` is the first
    line of why."""

    test: str
    how: str
    reason: str = ""

    @property
    def noticed(self) -> bool:
        """It failed because something is not as the test asks."""
        return self.how == "failed" and self.reason.startswith(_ASSERTED)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one hole. `wrong` says what is not as it must be, for each test."""

    hole: Hole
    wrong: tuple[str, ...]
    skipped: tuple[str, ...]

    @property
    def caught(self) -> bool:
        return not self.wrong and not self.skipped


class Copy:
    """A copy of the tree as it is now, in a directory of its own that `with` removes."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="gpudev-holes-"))
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in filter(None, listing.stdout.split("\0")):
            if (ROOT / name).is_file():
                target = self.place / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)
        for name in _BUILT:
            if (ROOT / name).exists():
                (self.place / name).symlink_to(ROOT / name)

    def __enter__(self) -> Copy:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.place, ignore_errors=True)

    @contextmanager
    def planted(self, hole: Hole) -> Iterator[None]:
        """While it lasts, the copy has the hole."""
        file = self.place / hole.file
        text = file.read_text("utf-8")
        try:
            self._write(file, hole.planted(text))
            yield
        finally:
            self._write(file, text)

    def run(self, tests: Iterable[str]) -> list[Outcome]:
        """Runs exactly these tests.

        Raises:
            RuntimeError: pytest could not run them.
        """
        report = self.place / ".holes.xml"
        report.unlink(missing_ok=True)
        paths = os.pathsep.join([str(self.place), str(self.place / "labextension")])
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider",
             f"--junitxml={report}", *tests],
            cwd=self.place, capture_output=True, text=True, errors="replace", timeout=PATIENCE,
            check=False, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        if not report.exists():
            raise RuntimeError(f"pytest did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return list(_outcomes(report))

    def _write(self, file: Path, text: str) -> None:
        file.write_text(text, "utf-8")
        # A hole of the same length within the same second would be taken for what was compiled.
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            compiled.unlink()


def _outcomes(report: Path) -> Iterator[Outcome]:
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest's own report
        name = f"{case.get('classname')}::{case.get('name')}"
        for how in ("error", "failure", "skipped"):
            found = case.find(how)
            if found is not None:
                reason = (found.get("message") or "").partition("\n")[0]
                yield Outcome(name, "failed" if how == "failure" else how, reason)
                break
        else:
            yield Outcome(name, "passed")


def judge(hole: Hole, copy: Copy) -> Verdict:
    """Plants the hole and runs its tests: each must have a case that fails with an assertion, and
    none that ends in any other way than that or passing."""
    with copy.planted(hole):
        outcomes = copy.run(hole.tests)
    wrong, skipped = [], []
    for test in hole.tests:
        own = [one for one in outcomes if _is_of(one, test)]
        if not own:
            wrong.append(f"{test} did not run: {_reasons(outcomes)}")
        elif not any(one.noticed for one in own) and all(one.how == "skipped" for one in own):
            skipped.append(f"{test}: {own[0].reason}")
        elif not any(one.noticed for one in own):
            wrong.append(f"{test} does not notice it: {_reasons(own)}")
        elif accidents := [one for one in own if one.how == "error"]:
            wrong.append(f"{test} breaks before it can notice: {_reasons(accidents)}")
    return Verdict(hole, tuple(wrong), tuple(skipped))


def _is_of(outcome: Outcome, test: str) -> bool:
    """Whether it is a case of the test that a node id names."""
    path, _, function = test.partition("::")
    module = path.removesuffix(".py").replace("/", ".")
    full = f"{module}.{function}".replace("::", ".")
    case = outcome.test.replace("::", ".")
    return case == full or case.startswith(f"{full}[")


def _reasons(outcomes: list[Outcome]) -> str:
    return "; ".join(f"{one.how} {one.reason}".strip() for one in outcomes[:3])
