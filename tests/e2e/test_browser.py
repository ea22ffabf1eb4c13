"""The main job in a real browser: the Hub's form, the waiting page, JupyterLab, extension, expiry.

The Hub of these tests allows leases of seconds, so that a whole life fits into a test; what is
compared are the times in the histories, never the clock of the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.fixtures import visitor
from tests.fixtures.hub import RunningHub

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.hub]

QUICK = """
c.GpuDev.policy = {"min_hours": 0.001, "default": {"max_hours": 24}}
c.GpuDev.times = {"turnover": 8, "crash_grace": 30, "reconcile": 3}
"""
#: Milliseconds for a server and JupyterLab to come up on a busy machine.
PATIENCE = 120_000


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    hub = RunningHub(service_config=QUICK)
    try:
        hub.start()
        yield hub
    finally:
        hub.remove()


async def person(browser: Browser, hub: RunningHub, name: str) -> Page:
    """A browser session of one person, logged in."""
    hub.user(name)
    return await visitor.logged_in(browser, hub.url, name, PATIENCE)


async def fill_form(page: Page, hub: RunningHub, gpu_type: str, hours: str, disk: str) -> None:
    await page.goto(f"{hub.url}/hub/spawn")
    await page.check(f"input[name=gpu_type][value={gpu_type}]")
    await page.check("#gpudev-h-other", force=True)
    await page.fill("input[name=hours_other]", hours)
    if disk:
        await page.check("#gpudev-d-new")
        await page.fill("input[name=new_disk]", disk)
    else:
        await page.check("#gpudev-d-none")


async def lab_opens(page: Page) -> None:
    await page.wait_for_url("**/user/*/lab**")
    await page.wait_for_selector("#jp-main-dock-panel")


def only(hub: RunningHub, token: str, *states: str) -> dict[str, Any]:
    """The one reservation of the token's owner that is in one of `states`."""
    query = "&".join(f"state={state}" for state in states)
    items = hub.call("GET", f"/reservations?{query}", token).json()["items"]
    assert len(items) == 1, items
    found: dict[str, Any] = items[0]
    return found


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_reserve_in_the_form_work_in_lab_extend_and_give_back(
    browser: Browser, hub: RunningHub
) -> None:
    page = await person(browser, hub, "ada")
    token = hub.token("ada")
    await fill_form(page, hub, "t4", "0.5", "work")
    start = page.locator("#gpudev-start")
    await start.wait_for(state="visible")
    assert "Starts now" in await start.inner_text()
    await page.click("button.btn-primary:has-text('Reserve and start')")
    await lab_opens(page)
    got = only(hub, token, "active")
    assert (got["gpu_type"], got["gpus"], got["disk"], got["hours"]) == ("t4", 1, "work", 0.5)

    await page.goto(f"{hub.service}/")
    card = page.locator(f"#r-{got['id']}")
    await card.locator("select[name=hours]").select_option(index=0)
    await card.locator("button:has-text('Extend')").click()
    await page.wait_for_url(f"**/reservations/{got['id']}")
    longer = only(hub, token, "active")
    assert moment(longer["expires_at"]) > moment(got["expires_at"])
    assert "left, until" in await page.locator("main").inner_text()

    await page.goto(f"{hub.service}/")
    await page.click(f"#r-{got['id']} a:has-text('…')")
    await page.click("button.btn-danger")
    await page.wait_for_load_state()
    await page.goto(f"{hub.service}/reservations/{got['id']}")
    await page.get_by_text("Snapshot taken").first.wait_for()


async def test_who_waits_sees_the_promise_starts_by_it_and_ends_on_time(
    browser: Browser, hub: RunningHub
) -> None:
    linus, grace = hub.user("linus"), hub.user("grace")
    first = hub.call(
        "POST", "/reservations", linus, {"gpu_type": "t4-small", "hours": 15 / 3600}
    ).json()
    page = await person(browser, hub, "grace")
    await fill_form(page, hub, "t4-small", "0.01", "")
    await page.click("button.btn-primary:has-text('Reserve and start')")
    await page.locator("#gpudev-leave").wait_for()
    assert "spawn-pending" in page.url
    waiting = only(hub, grace, "queued", "preparing")
    assert waiting["first_promised_start"] is not None
    message = await page.locator("#gpudev-message").inner_text()
    assert "at the latest" in message or "start" in message.lower(), message

    await lab_opens(page)
    got = only(hub, grace, "active", "stopping", "expired")
    assert moment(got["starts_at"]) <= moment(waiting["first_promised_start"])
    assert moment(got["starts_at"]) >= moment(first["expires_at"])

    await page.goto(f"{hub.service}/reservations/{got['id']}")
    # The page follows by itself: nobody reloads it.
    await page.get_by_text("given back").first.wait_for()
    over = hub.call("GET", f"/reservations/{got['id']}", grace).json()
    history = hub.call("GET", f"/reservations/{got['id']}/history", grace).json()["items"]
    gone = next(e for e in history if "given back" in e["reason"])
    late = (moment(gone["at"]) - moment(over["expires_at"])).total_seconds()
    assert 0 <= late <= 5, history


async def test_the_form_comes_back_with_what_was_typed_and_a_sentence(
    browser: Browser, hub: RunningHub
) -> None:
    page = await person(browser, hub, "edsger")
    await fill_form(page, hub, "t4", "a while", "my disk!")
    await page.fill("#gpudev-name", 'the "name" <b>typed</b>')
    await page.click("button.btn-primary:has-text('Reserve and start')")
    fault = page.locator(".invalid-feedback").first
    await fault.wait_for()
    assert await page.input_value("input[name=hours_other]") == "a while"
    assert await page.input_value("input[name=new_disk]") == "my disk!"
    assert await page.input_value("#gpudev-name") == 'the "name" <b>typed</b>'
    assert hub.call("GET", "/reservations", hub.token("edsger")).json()["items"] == []
