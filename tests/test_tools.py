"""The tree's own programs: what `make help` says is what there is, and the scripts can be read."""

from __future__ import annotations

import re
import subprocess

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


def test_system_packages_are_listed_without_installing_anything() -> None:
    listed = output("tools/system-packages", "--list").split()
    assert {"chromium", "openssh-server", "postgresql"} <= set(listed)
