"""A lease that nobody uses, in a real JupyterLab: told with its reasons, kept by a press."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gpudev_client.states import State
from tests.e2e.people import Person
from tests.e2e.waiting import until

from .lab import PANEL, Lab, barriers, picture, running

pytestmark = [pytest.mark.browser, pytest.mark.hub]

#: Idle after three seconds without use.
SERVICE = """
c.GpuDev.times["idle"] = 0.5
c.GpuDev.policy["default"]["idle"] = {
    "action": "release", "after_minutes": 0.05, "grace_minutes": 30, "keep_hours": 2, "keeps": 1,
}
"""


async def test_an_idle_lease_is_told_and_kept(person: Callable[[str], Person], lab: Lab) -> None:
    ada = person("ivy")
    lease = running(ada, hours=1)
    page = await lab.open(ada, lease)
    await lab.panel(page)
    panel = page.locator(PANEL)
    await panel.get_by_text("Nobody has used it since").wait_for()
    assert await panel.get_by_text("it is given back at").count() == 1
    assert await panel.get_by_text("No use of kernels since the server is up.").count() == 1
    assert await barriers(page) == []
    await picture(page, "idle")
    told = [entry.reason for entry in ada.history(lease.id) if entry.kind == "idle"]
    assert told[0].startswith("Nobody has used your lease on 1 x t4-small for ")

    await panel.get_by_role("button", name="Keep it, I am working").click()
    await panel.get_by_text("Kept on request until").wait_for()
    await picture(page, "kept")
    assert await panel.get_by_role("button", name="Keep it").count() == 0
    assert ada.look(lease.id).state is State.ACTIVE
    idle = ada.look(lease.id).idle
    assert idle is not None
    assert (idle.state, idle.keeps_left) == ("kept", 0)
    until(
        lambda: ada.history(lease.id)[-1].reason == "Kept on request for 2 h.",
        "the history says who kept it",
    )
