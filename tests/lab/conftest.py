"""JupyterLab at a real Hub, and people in front of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import person  # noqa: F401 - the fixture, at the Hub below
from tests.fixtures.hub import RunningHub

from .lab import Lab

if TYPE_CHECKING:
    from playwright.async_api import Browser

#: Leases of any length; a short time for what happens before their end.
SERVICE = """
c.GpuDev.policy = {"min_hours": 0.0005, "default": {"max_hours": 24, "max_extension_hours": 24}}
c.GpuDev.times = {
    "turnover": 6, "reconcile": 2, "crash_grace": 60, "warnings": [], "hook": 6, "saving": 10,
}
"""
#: Nobody is asked whether they want news of JupyterLab, which would come from the network.
QUIET = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
FAILED = pytest.StashKey[bool]()
HUB = 'c.Spawner.environment["JUPYTER_CONFIG_PATH"] = {!r}'


@pytest.fixture(scope="module")
def hub(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningHub]:
    """One Hub with whole JupyterLabs for all tests of a file, whose `SERVICE` is added to the
    service's configuration."""
    config = tmp_path_factory.mktemp("jupyter")
    (config / "labconfig").mkdir()
    (config / "labconfig" / "page_config.json").write_text(json.dumps(QUIET))
    service = SERVICE + getattr(request.module, "SERVICE", "")
    hub = RunningHub(service_config=service, hub_config=HUB.format(str(config)))
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


@pytest.fixture
async def lab(
    browser: Browser, hub: RunningHub, request: pytest.FixtureRequest
) -> AsyncIterator[Lab]:
    """Opens JupyterLab in browser sessions, one for each person."""
    labs = Lab(browser, hub)
    yield labs
    await labs.close(f"failed-{request.node.name}" if request.node.stash.get(FAILED, False) else "")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Lets the fixture above know that the pages are worth a picture."""
    report = yield
    if report.when == "call" and report.failed:
        item.stash[FAILED] = True
    return report
