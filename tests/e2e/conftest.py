"""Hubs with short times, so that whole leases pass in seconds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from datetime import timedelta

import pytest

from tests.fixtures.hub import RunningHub

from . import crash_points
from .people import Person, people

#: Between two leases on the same GPUs, and part of every promise: more than a stop may take when
#: the service's patience with the Hub (3 s) ends and the server has to be killed.
TURNOVER = timedelta(seconds=6)
#: Leases may be seconds long.
SHORT = f"""
c.GpuDev.policy = {{"min_hours": 0.0005, "default": {{"max_hours": 24, "max_extension_hours": 24}}}}
c.GpuDev.times = {{
    "turnover": {TURNOVER.total_seconds()}, "reconcile": 2, "crash_grace": 60, "warnings": [],
}}
"""
#: JupyterHub's own server without JupyterLab, which takes a third of the time to start.
LIGHT_SERVERS = """
c.Spawner.environment["JUPYTERHUB_SINGLEUSER_APP"] = "jupyter_server.serverapp.ServerApp"
"""
#: Hub and service of which somebody dies at the points that a test arms.
MORTAL_HUB = f"{LIGHT_SERVERS}\n{crash_points.FOR_HUB}"
MORTAL_SERVICE = f"{SHORT}\n{crash_points.FOR_SERVICE}"


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    """One Hub with short times for all tests of a file."""
    with RunningHub(service_config=SHORT) as hub:
        yield hub


@pytest.fixture
def person(hub: RunningHub) -> Iterator[Callable[[str], Person]]:
    """Makes people at the file's Hub; what they still hold goes back after the test."""
    with people(lambda name: Person(hub, name)) as make:
        yield make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the Hub and the service have said last."""
    report = yield
    if report.when == "call" and report.failed:
        for value in getattr(item, "funcargs", {}).values():
            found = getattr(value, "hub", value)
            if isinstance(found, RunningHub):
                lines = [line for line in found.logs().splitlines() if " GET " not in line]
                report.sections.append(("the Hub's log", "\n".join(lines[-60:])))
                break
    return report
