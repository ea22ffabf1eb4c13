"""Tiers: tests that need something which not every machine has.

A test joins a tier by its marker. Where the tier cannot run, the test is skipped with a reason in
plain words, and a section at the end of the run says how much of each tier ran. With
`GPUDEV_REQUIRE_TIERS=postgres,browser` a tier named there fails instead of being skipped.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools import compiled
from tools.cluster import requirements
from tools.cluster.cluster import Cluster
from tools.cluster.place import Place, default_place

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = "GPUDEV_REQUIRE_TIERS"
#: Names the `.artifacts/cluster` of another tree whose running cluster the tests are to use.
CLUSTER = "GPUDEV_CLUSTER"
_OLDEST_NODE = 20
_PROPERTY = "tier"
_SYSTEM = "`make test SYSTEM=1` installs it on Debian, as root"


def chromium() -> str | None:
    """The path of a Chromium on this machine."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def postgres_bin() -> Path | None:
    """The directory with `initdb` and `postgres`: Debian keeps them off PATH, newest last."""
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(debian, key=lambda path: int(path.parts[-3]), default=None)
    found = newest or shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def postgres_user() -> str | None:
    """Whom the server runs as when the tests run as root, which PostgreSQL refuses to be."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


def hub5_python() -> Path:
    """The interpreter of the environment with JupyterHub 5; `make test` sets it up."""
    return ROOT / ".venv-hub5" / "bin" / "python"


def _postgres() -> str | None:
    if postgres_bin() is None:
        return f"PostgreSQL is not installed ({_SYSTEM})"
    if shutil.which("setpriv") is None:
        return "setpriv of util-linux is not on PATH"
    if os.geteuid() == 0 and postgres_user() is None:
        return "PostgreSQL does not run as root and there is no user to run it as"
    return None


def _browser() -> str | None:
    if chromium() is None:
        return f"Chromium is not installed ({_SYSTEM})"
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed (make setup)"
    return _hub()


def _hub() -> str | None:
    if importlib.util.find_spec("jupyterhub") is None:
        return "JupyterHub is not installed (make setup)"
    if shutil.which("configurable-http-proxy") is None:
        return "configurable-http-proxy is not installed (make setup)"
    node = shutil.which("node")
    if node is None:
        return "Node.js is not installed (make setup)"
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    version = answer.stdout.strip().removeprefix("v")
    if int(version.partition(".")[0]) < _OLDEST_NODE:
        return f"Node.js {version} is older than {_OLDEST_NODE} (make setup)"
    return None


def _gpu() -> str | None:
    from gpudev_service.fleet.nvml import find_gpus

    return None if find_gpus() else "there is no NVIDIA GPU with a working driver"


def _hub5() -> str | None:
    if not hub5_python().exists():
        return "the environment with JupyterHub 5 is not set up (tools/setup hub5)"
    return _hub()


def _mount() -> str | None:
    with tempfile.TemporaryDirectory() as top:
        command = ["mount", "-t", "tmpfs", "tmpfs", top]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return "file systems cannot be mounted, which takes root"
        subprocess.run(["umount", top], check=True)
    return None


def _ssh() -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    for program in ("ssh", "sshd", "ssh-keygen", "ssh-agent", "rsync", "setpriv"):
        if shutil.which(program, path=path) is None:
            return f"{program} is not installed ({_SYSTEM})"
    return _hub()


def _chart() -> str | None:
    from tests.chart import programs

    return programs.obstacle()


def _cluster() -> str | None:
    elsewhere = os.environ.get(CLUSTER)
    if elsewhere:
        there = Cluster(Place(Path(elsewhere)))
        return None if there.is_up else f"no cluster runs in {CLUSTER}={elsewhere}"
    return requirements.obstacle(default_place())


_CHECKS: dict[str, Callable[[], str | None]] = {
    "browser": _browser,
    "chart": _chart,
    "cluster": _cluster,
    "compiler": compiled.obstacle,
    "gpu": _gpu,
    "hub": _hub,
    "hub5": _hub5,
    "mount": _mount,
    "postgres": _postgres,
    "ssh": _ssh,
}

_FIXTURES = {
    "browser": "browser",
    "cluster": "cluster",
    "postgres_server": "postgres",
    "sharing": "mount",
    "small": "mount",
}


@functools.cache
def obstacle(tier: str) -> str | None:
    """Why the tier cannot run here, in words for people; None when it can."""
    return _CHECKS[tier]()


def required() -> frozenset[str]:
    """The tiers that must run, from the environment.

    Raises:
        pytest.UsageError: a name that is no tier; it would otherwise require nothing.
    """
    names = {name.strip() for name in os.environ.get(REQUIRED, "").split(",")} - {""}
    if unknown := names - _CHECKS.keys():
        raise pytest.UsageError(f"{REQUIRED}: no such tier: {', '.join(sorted(unknown))}")
    return frozenset(names)


def pytest_configure(config: pytest.Config) -> None:
    required()
    # Servers that tests start find the tree's own programs, also without `make`.
    own = [str(Path(sys.executable).parent), str(ROOT / "node_modules" / ".bin")]
    os.environ["PATH"] = os.pathsep.join([*own, os.environ.get("PATH", "")])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for a tier's fixture is of that tier, whether or not its author said so."""
    for item in items:
        for fixture, tier in _FIXTURES.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(tier)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for tier in _CHECKS:
        if item.get_closest_marker(tier) is None:
            continue
        item.user_properties.append((_PROPERTY, tier))
        reason = obstacle(tier)
        if reason is not None and tier in required():
            pytest.fail(f"the tier {tier} must run here, but {reason}", pytrace=False)
        if reason is not None:
            pytest.skip(f"tier {tier}: {reason}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = {tier: Counter(_outcomes(terminalreporter, tier)) for tier in _CHECKS}
    terminalreporter.section("tiers")
    for tier, found in counts.items():
        parts = [f"{number} {word}" for word, number in found.items()]
        line = ", ".join(parts) or "no test selected"
        reason = obstacle(tier) if found["skipped"] or found["failed"] else None
        terminalreporter.write_line(f"{tier:<9} {line}" + (f": {reason}" if reason else ""))


def _outcomes(reporter: pytest.TerminalReporter, tier: str) -> Iterator[str]:
    words = {"passed": "ran", "failed": "failed", "error": "failed", "skipped": "skipped"}
    for category, word in words.items():
        for report in reporter.stats.get(category, ()):
            properties = getattr(report, "user_properties", ())
            # Not its keywords: they hold the names of its folders, too.
            if any(tuple(pair) == (_PROPERTY, tier) for pair in properties):
                yield word
