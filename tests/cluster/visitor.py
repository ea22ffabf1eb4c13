"""Somebody with a browser and no token, at a Hub whose authenticator is the dummy one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # half a second that only the tests with a browser need
    from playwright.async_api import Browser, Page

#: Milliseconds for a server and JupyterLab to come up on a busy machine.
_PATIENCE = 300_000


async def logged_in(browser: Browser, url: str, name: str) -> Page:
    context = await browser.new_context(viewport={"width": 1200, "height": 1000})
    context.set_default_timeout(_PATIENCE)
    page = await context.new_page()
    await page.goto(f"{url}/hub/login")
    await page.fill("#username_input", name)
    await page.fill("#password_input", "password")
    await page.click("#login_submit")
    await page.wait_for_url(lambda where: "/hub/login" not in where)
    return page


async def reserves(page: Page, url: str, gpu_type: str, hours: str) -> None:
    """Fills the Hub's form, and waits until JupyterLab is there."""
    await page.goto(f"{url}/hub/spawn")
    await page.check(f"input[name=gpu_type][value={gpu_type}]")
    await page.check("#gpudev-h-other", force=True)
    await page.fill("input[name=hours_other]", hours)
    await page.check("#gpudev-d-none")
    await page.click("button.btn-primary:has-text('Reserve and start')")
    await page.wait_for_url("**/user/*/lab**")
    await page.wait_for_selector("#jp-main-dock-panel")


async def extends(page: Page, url: str) -> None:
    """By the card of the only lease, on the service's own page."""
    await page.goto(f"{url}/services/gpudev/")
    await page.locator("select[name=hours]").select_option(index=0)
    await page.locator("button:has-text('Extend')").click()
    await page.wait_for_url("**/services/gpudev/reservations/*")


async def gives_back(page: Page, url: str) -> None:
    await page.goto(f"{url}/services/gpudev/")
    await page.click("article[data-state=active] a:has-text('…')")
    await page.click("button.btn-danger")
    await page.wait_for_load_state()
