"""The panel's own tests, which run in Node.js: what its TypeScript decides without a browser."""

from __future__ import annotations

import subprocess

from tests.tiers import ROOT


def test_the_panels_logic_by_its_own_tests() -> None:
    done = subprocess.run(
        ["jlpm", "test", "--ci"],
        cwd=ROOT / "labextension",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
