"""Live co-editing on a lease, where jupyter-collaboration is installed beside us."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from gpudev_client.states import State
from tests import tiers
from tests.e2e.people import Person
from tests.e2e.waiting import until
from tests.fixtures.hub import RunningHub

from .conftest import HUB, QUIET, SERVICE
from .lab import Lab, running
from .test_end import NOTEBOOK, newest_snapshot, put, written

pytestmark = [pytest.mark.browser, pytest.mark.hub5]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A Hub of the second environment, which has jupyter-collaboration."""
    config = tmp_path_factory.mktemp("jupyter")
    (config / "labconfig").mkdir()
    (config / "labconfig" / "page_config.json").write_text(json.dumps(QUIET))
    hub = RunningHub(
        python=tiers.hub5_python(), service_config=SERVICE, hub_config=HUB.format(str(config))
    )
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


async def test_two_edit_together_and_an_early_end_keeps_it(
    person: Callable[[str], Person], lab: Lab, hub: RunningHub
) -> None:
    """The document is the server's, not a page's: no page has anything to save at the end."""
    ada, bob = person("co-ada"), person("co-bob")
    lease = running(ada, hours=1.0, disk="work", create_disk=True)
    put(ada, lease, "notes.ipynb", {"type": "notebook", "format": "json", "content": NOTEBOOK})
    assert ada.call("PUT", f"/reservations/{lease.id}/collaborators/co-bob", {}).is_success
    hers = await lab.open(ada, lease, "lab/tree/notes.ipynb")
    await hers.wait_for_selector(".jp-Notebook .jp-Cell")
    his = await lab.open(bob, lease, "lab/tree/notes.ipynb")
    await his.wait_for_selector(".jp-Notebook .jp-Cell")

    await hers.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    await hers.keyboard.type("# together")
    await his.locator(".jp-Notebook").get_by_text("together").wait_for()
    await his.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    await his.keyboard.press("End")
    await his.keyboard.type(" at the last moment")
    await hers.locator(".jp-Notebook").get_by_text("together at the last moment").wait_for()

    ada.cancel(lease.id)
    ada.until_over(lease.id, State.CANCELLED)
    until(lambda: newest_snapshot(hub, ada, "work")["state"] == "ready", "the snapshot is taken")
    kept = written(hub, "notes.ipynb")
    assert kept
    assert all("together at the last moment" in text for text in kept)
