"""The panel in a real JupyterLab: warnings, dark mode, keyboard, barriers, a session that ended."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.e2e.people import Person
from tests.fixtures.hub import RunningHub

from .lab import PANEL, PATIENCE, STATUS, Lab, barriers, base, change_setting, picture, running

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.hub]


FORBIDDEN = 403
#: The status bar's classes by how near the end is.
IS = "gpudev-is-"
#: The answer of a server to this page's session.
ANSWER = """async url => {
    const xsrf = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/);
    const headers = {'X-XSRFToken': xsrf ? decodeURIComponent(xsrf[1]) : ''};
    return (await fetch(url, {headers})).status;
}"""


async def contrast(page: Page) -> list[str]:
    await page.wait_for_selector(f"{PANEL} meter")
    return await barriers(page)


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
async def test_the_panel_has_no_barriers_in_any_theme(
    person: Callable[[str], Person], lab: Lab, theme: str
) -> None:
    ada = person(f"eve-{theme[-4:].strip().lower()}")
    lease = running(ada, hours=1, disk="work", create_disk=True)
    change_setting(ada, lease, "@jupyterlab/apputils-extension:themes", {"theme": theme})
    page = await lab.open(ada, lease)
    dark = theme.endswith("Dark")
    await page.wait_for_selector(
        f"body[data-jp-theme-light={'false' if dark else 'true'}]", state="attached"
    )
    await lab.panel(page)
    assert await contrast(page) == []
    await picture(page, "dark" if dark else "light")
    for how in ("soon", "urgent", "over"):
        await page.locator(STATUS).evaluate("(button, how) => button.classList.add(how)", IS + how)
        assert await barriers(page) == [], how
        await page.locator(STATUS).evaluate(
            "(button, how) => button.classList.remove(how)", IS + how
        )


async def test_a_warning_comes_in_time_and_extends(
    person: Callable[[str], Person], lab: Lab
) -> None:
    ada = person("fay")
    lease = running(ada, hours=0.5)
    change_setting(ada, lease, "gpudev-lab:panel", {"warnings": [29.9, 5]})
    page = await lab.open(ada, lease)
    toast = page.locator(".Toastify__toast", has_text="Your GPU lease ends in")
    await toast.wait_for()
    await page.locator(".gpudev-live", has_text="Your GPU lease ends in").wait_for(state="attached")
    assert await page.locator(f"{STATUS}.gpudev-is-soon").count() == 1
    await picture(page, "warning")
    await toast.get_by_role("button", name="Extend by").click()
    await page.locator(".Toastify__toast", has_text="The lease is extended").wait_for()
    await toast.wait_for(state="detached")
    await page.wait_for_selector(f"{STATUS}.gpudev-is-calm")
    assert ada.look(lease.id).extended_hours > 0


async def test_what_has_happened_to_the_server_is_said_until_it_is_dismissed(
    person: Callable[[str], Person], lab: Lab, hub: RunningHub
) -> None:
    ada = person("hal")
    lease = running(ada, hours=1)
    page = await lab.open(ada, lease)
    await lab.panel(page)
    why = "The server was killed. It was started again in its place."
    said = {"status": "note", "message": why}
    path = f"/reservations/{lease.id}/server"
    assert hub.call("PUT", path, hub.spawner_token, said).is_success
    at = re.compile(rf"\d\d:\d\d: {re.escape(why)}")
    toast = page.locator(".Toastify__toast", has_text=at)
    await toast.wait_for()
    await page.locator(".gpudev-live", has_text=at).wait_for(state="attached")
    panel = page.locator(PANEL)
    await panel.get_by_text(why, exact=True).wait_for()
    assert await barriers(page) == []
    await picture(page, "happened")
    await panel.get_by_role("button", name="Dismiss").click()
    await toast.wait_for(state="detached")
    await panel.get_by_text(why, exact=True).wait_for(state="detached")
    await page.reload()
    await lab.ready(page)
    await page.wait_for_selector(STATUS)
    assert await page.get_by_text(why).count() == 0


async def test_everything_works_from_the_keyboard(
    person: Callable[[str], Person], lab: Lab
) -> None:
    ada = person("gil")
    lease = running(ada, hours=1, disk="work", create_disk=True)
    page = await lab.open(ada, lease)
    # JupyterLab gives it the focus when it comes, late on a busy machine.
    await page.wait_for_selector(".jp-LauncherCard")
    await page.locator(STATUS).focus()
    await page.keyboard.press("Enter")
    await page.wait_for_selector(f"{PANEL} .gpudev-left")
    reached = []
    for _ in range(14):
        await page.keyboard.press("Tab")
        reached.append(
            await page.evaluate(
                "document.activeElement.closest('#gpudev-lease')"
                " && (document.activeElement.ariaLabel || document.activeElement.innerText)"
            )
        )
    names = [name for name in reached if name]
    for wanted in ("Extend by 8 h", "Name at the Hub", "Invite", "Take a snapshot now"):
        assert wanted in names, reached
    await page.get_by_role("button", name="Take a snapshot now").focus()
    await page.keyboard.press("Enter")
    await page.get_by_text("Last snapshot: just now.").wait_for()
    await _copies_without_the_browsers_clipboard(page)

    await page.keyboard.press("Control+Shift+C")
    await page.keyboard.type("extend the gpu")
    await page.keyboard.press("Enter")
    await page.get_by_role("dialog").get_by_text("Extend the lease by").wait_for()
    await page.keyboard.press("Escape")
    assert ada.look(lease.id).extended_hours == 0


async def _copies_without_the_browsers_clipboard(page: Page) -> None:
    """As where the Hub is reached without TLS."""
    await page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    copy = page.get_by_role("button", name="Copy gpu-dev connect")
    command = (await copy.get_attribute("aria-label") or "").removeprefix("Copy ")
    await copy.focus()
    await page.keyboard.press("Enter")
    await page.locator(f"{PANEL} .gpudev-done", has_text="Copied.").wait_for()
    assert await copy.evaluate("button => button === document.activeElement")
    assert await page.get_by_role("button", name="Extend by 8 h").is_enabled()
    await page.get_by_label("Name at the Hub").focus()
    await page.keyboard.press("Control+V")
    assert await page.get_by_label("Name at the Hub").input_value() == command


async def test_a_page_whose_session_ended_offers_to_reload(
    person: Callable[[str], Person], lab: Lab, hub: RunningHub
) -> None:
    ada = person("hal")
    lease = running(ada, hours=1)
    page = await lab.open(ada, lease)
    await page.wait_for_selector(STATUS)
    reload = page.locator(".Toastify__toast").get_by_role("button", name="Reload")
    status = f"{base(hub, lease)}/api/status"
    async with asyncio.timeout(3 * PATIENCE / 1_000):
        while not await reload.count():
            # Something that the page loads may log it in again, silently: then that login ends too.
            for token in hub.api("GET", f"users/{quote(ada.name)}/tokens")["api_tokens"]:
                if token["oauth_client"] != "JupyterHub":
                    hub.revoke(ada.name, token["id"])
            # The server believes the Hub's last word for some seconds; then any news will do.
            if await page.evaluate(ANSWER, status) == FORBIDDEN:
                extended = ada.call("POST", f"/reservations/{lease.id}/extension", {"hours": 0.1})
                assert extended.is_success
            await page.wait_for_timeout(1_000)
    await reload.click()
    await lab.ready(page)
    await page.wait_for_selector(STATUS)


async def test_a_service_that_is_away_is_said_and_it_recovers(
    person: Callable[[str], Person], lab: Lab, hub: RunningHub
) -> None:
    ada = person("ida")
    lease = running(ada, hours=1)
    page = await lab.open(ada, lease)
    await lab.panel(page)
    service = hub.process("service")
    keeper = service.parent()
    assert keeper is not None
    # Else it would be back in a moment: the keeper starts it again, or, without one, the Hub.
    keeper.suspend()
    service.kill()
    trouble = page.locator(f"{PANEL} .gpudev-trouble")
    await trouble.filter(has_text="does not answer").wait_for()
    await picture(page, "away")
    keeper.resume()
    await trouble.wait_for(state="detached", timeout=2 * PATIENCE)
    assert "left" in await page.inner_text(f"{PANEL} .gpudev-left")
