"""The tiers: skipped with a reason where they cannot run, failed where they must."""

from __future__ import annotations

import pytest

from tests import tiers

MARKED = """
import pytest

@pytest.mark.browser
def test_page():
    pass

def test_plain():
    pass
"""


@pytest.fixture
def bare_run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A run of its own on a machine without a browser: nothing but the tree is on PATH."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("PYTHONPATH", str(tiers.ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # quicker
    monkeypatch.delenv(tiers.REQUIRED, raising=False)
    pytester.makeconftest("pytest_plugins = ('tests.tiers',)")
    pytester.makeini("[pytest]\nmarkers =\n    browser: b\n")
    pytester.makepyfile(MARKED)
    return pytester


def test_a_tier_that_cannot_run_is_skipped_with_its_reason(bare_run: pytest.Pytester) -> None:
    result = bare_run.runpytest_subprocess("-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*tier browser: Chromium is not installed*"])


def test_a_tier_that_must_run_fails(
    bare_run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tiers.REQUIRED, "postgres, browser")
    result = bare_run.runpytest_subprocess()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*browser must run here, but Chromium is not installed*"])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_run_ends_with_what_ran_of_each_tier(bare_run: pytest.Pytester, workers: int) -> None:
    result = bare_run.runpytest_subprocess("-p", "xdist.plugin", "-n", str(workers))
    result.stdout.fnmatch_lines(
        [
            "*= tiers =*",
            "browser * 1 skipped: Chromium is not installed*",
            "postgres * no test selected",
            "*1 passed, 1 skipped*",
        ]
    )


def test_a_required_tier_that_does_not_exist_is_an_error(
    bare_run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tiers.REQUIRED, "postgre")
    result = bare_run.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*no such tier: postgre"])
