"""The tree's own programs: what `make help` says is what there is, and the scripts can be read."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tiers import ROOT


def output(*command: str) -> str:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_help_tells_every_target_in_one_line() -> None:
    rules = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*?) \$\(BENCHMARKS\)$", rules, re.MULTILINE)
    assert phony is not None
    benchmarks = {path.stem for path in (ROOT / "benchmarks").glob("[pr][0-9]*.py")}
    lines = output("make", "help").splitlines()
    assert {line.split()[0] for line in lines} == set(phony[1].split()) | benchmarks
    assert all(len(line.split()) > 1 for line in lines)


@pytest.mark.parametrize("script", [".ci/run", "tools/setup", "tools/system-packages"])
def test_a_script_is_readable_and_stops_at_the_first_error(script: str) -> None:
    output("bash", "-n", script)
    assert "\nset -euo pipefail\n" in (ROOT / script).read_text()


#: Stands for the tests: these have failed, and the second run ends as it is told.
FAILED = """test:
\t@mkdir -p .pytest_cache/v/cache; cp last .pytest_cache/v/cache/lastfailed
\t@echo 'FAILED tests/test_x.py::test_0 - because of this'; exit 2
retest:
\t@echo again; exit $(AGAIN)
"""


def failing(folder: Path, names: list[str], again: int) -> subprocess.CompletedProcess[str]:
    """CI where `names` have failed."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", folder / ".ci")
    (folder / "Makefile").write_text(FAILED)
    (folder / "last").write_text(json.dumps(dict.fromkeys(names, True), indent=2))
    return subprocess.run(
        ["bash", folder / ".ci/run"],
        env={"PATH": os.environ["PATH"], "AGAIN": str(again)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["gw1", "tests/test_x.py"])
def test_tests_that_cannot_be_collected_are_not_run_again(tmp_path: Path, name: str) -> None:
    run = failing(tmp_path, [name], again=0)
    assert run.returncode == 1
    assert "again" not in run.stdout


@pytest.mark.parametrize(
    ("failures", "again", "code"), [(2, 0, 0), (2, 1, 2), (40, 0, 0), (41, 0, 1), (0, 0, 1)]
)
def test_a_few_failures_get_one_more_run_alone(
    tmp_path: Path, failures: int, again: int, code: int
) -> None:
    names = [f"tests/test_x.py::test_{at}[a b]" for at in range(failures)]
    run = failing(tmp_path, names, again)
    assert run.returncode == code, run.stderr
    assert ("again" in run.stdout) == (0 < failures <= 40)
    assert ("passed alone" in run.stdout) == (code == 0)
    # Why is said again behind what the second run prints, which may be all that anybody sees.
    assert ("because of this" in run.stdout.partition("again\n")[2]) == (0 < failures <= 40)


def test_system_packages_are_listed_without_installing_anything() -> None:
    listed = output("tools/system-packages", "--list").split()
    assert {"chromium", "openssh-server", "postgresql"} <= set(listed)


#: Stands for the panel's package manager and builder, which empties its output before it writes.
BUILDER = """#!/bin/bash
[[ $1 == build:prod ]] || exit 0
rm -rf gpudev_lab/labextension && mkdir -p gpudev_lab/labextension/static
ls "$TREE/labextension/gpudev_lab/labextension/static" >"$TREE/seen"
if [[ -e $TREE/broken ]]; then exit 1; fi
touch gpudev_lab/labextension/static/{new,style}.js
"""


@pytest.mark.parametrize("broken", [False, True])
def test_the_panel_is_whole_at_every_moment_of_its_build(tmp_path: Path, broken: bool) -> None:
    steps, _, _ = (ROOT / "tools/setup").read_text().partition("\nwhat=")
    panel = tmp_path / "labextension"
    static = panel / "gpudev_lab/labextension/static"
    for folder in (static, panel / "node_modules", panel / "src", tmp_path / "tools"):
        folder.mkdir(parents=True)
    for file in (static / "style.js", static / "old.js", panel / "src/index.ts"):
        file.touch()
    (tmp_path / "tools/steps").write_text(steps)
    (tmp_path / "jlpm").write_text(BUILDER)
    (tmp_path / "jlpm").chmod(0o755)
    if broken:
        (tmp_path / "broken").touch()
    done = subprocess.run(
        ["bash", "-c", ". tools/steps && build_lab_extension"],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "TREE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode != 0) == broken, done.stderr
    assert (tmp_path / "seen").read_text().split() == ["old.js", "style.js"]
    kept = ["old.js", "style.js"] if broken else ["new.js", "style.js"]
    assert sorted(path.name for path in static.iterdir()) == kept
    assert (panel / "node_modules/.setup").exists() != broken
