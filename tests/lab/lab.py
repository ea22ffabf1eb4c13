"""People in front of JupyterLab: sessions of a real browser, logged in at the Hub."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from gpudev_client.models import Reservation
from gpudev_client.states import State
from tests.e2e.people import Person
from tests.fixtures.hub import RunningHub
from tests.tiers import ROOT

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page, Request, Response

#: Milliseconds for a page to be there on a busy machine.
PATIENCE = 45_000
#: Where pictures are kept for people to look at.
PICTURES = ROOT / ".artifacts" / "lab"
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"

STATUS = "#gpudev-status button"
PANEL = "#gpudev-lease"


def base(hub: RunningHub, reservation: Reservation) -> str:
    """The address of a reservation's server."""
    return f"{hub.url}/user/{reservation.user}/{reservation.server_name}"


def running(person: Person, **values: Any) -> Reservation:
    """A lease of the person, with a server that can be reached."""
    return person.until_state(person.reserve(**values).id, State.ACTIVE)


def change_setting(person: Person, reservation: Reservation, plugin: str, value: Any) -> None:
    """A setting of the person's JupyterLab, as its settings editor writes it."""
    answer = httpx.put(
        f"{base(person.hub, reservation)}/lab/api/settings/{plugin}",
        json={"raw": json.dumps(value)},
        headers={"Authorization": f"token {person.token}"},
        trust_env=False,
        timeout=60.0,
    )
    answer.raise_for_status()


class Lab:
    """Browser sessions by person."""

    def __init__(self, browser: Browser, hub: RunningHub) -> None:
        self._browser, self._hub = browser, hub
        self._contexts: dict[str, BrowserContext] = {}
        #: What went wrong between pages and servers, for a test that fails.
        self._trouble: list[str] = []

    async def session(self, person: Person) -> Page:
        """A new page of the person's session, which is logged in at the Hub."""
        if person.name in self._contexts:
            return await self._contexts[person.name].new_page()
        context = await self._browser.new_context(viewport={"width": 1280, "height": 860})
        context.set_default_timeout(PATIENCE)
        context.on("requestfailed", self._failed)
        context.on("response", self._answered)
        self._contexts[person.name] = context
        page = await context.new_page()
        await page.goto(f"{self._hub.url}/hub/login")
        await page.fill("#username_input", person.name)
        await page.fill("#password_input", "password")
        await page.click("#login_submit")
        await page.wait_for_url(lambda url: "/hub/login" not in url)
        return page

    async def open(self, person: Person, reservation: Reservation, path: str = "lab") -> Page:
        """JupyterLab of a reservation, when it can be used."""
        page = await self.session(person)
        await page.goto(f"{base(self._hub, reservation)}/{path}")
        await self.confirm(page)
        await self.ready(page)
        return page

    async def confirm(self, page: Page) -> None:
        """Whoever opens somebody else's server for the first time is asked by the Hub."""
        if "/oauth2/authorize" in page.url:
            await page.get_by_role("button", name="Authorize").click()

    async def ready(self, page: Page) -> None:
        await page.wait_for_selector("#jupyterlab-splash", state="detached")
        await page.wait_for_selector("#jp-main-dock-panel")

    async def panel(self, page: Page) -> None:
        """Opens our panel, the way people do."""
        await page.click(STATUS)
        await page.wait_for_selector(f"{PANEL} .gpudev-left")

    def _failed(self, request: Request) -> None:
        self._note(f"{request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._note(f"{response.request.method} {response.url}: {response.status}")

    def _note(self, trouble: str) -> None:
        self._trouble.append(f"{datetime.now(UTC):%H:%M:%S.%f} {trouble}")

    async def close(self, name: str = "") -> None:
        """Ends all sessions; with a name, pictures of what was to be seen are kept, and it is said
        which requests had no answer."""
        if name:
            print("\n".join(self._trouble))  # noqa: T201 - shown with what the test says
        for person, context in self._contexts.items():
            for number, page in enumerate(context.pages if name else []):
                await picture(page, re.sub(r"[^\w-]+", "-", f"{name}-{person}-{number}"))
            await context.close()


async def picture(page: Page, name: str) -> Path:
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.png"
    await page.screenshot(path=path)
    return path


async def barriers(page: Page) -> list[str]:
    """What axe finds wrong with our own parts of the page."""
    await page.add_script_tag(path=AXE)
    found: dict[str, Any] = await page.evaluate(
        """axe.run({include: [['#gpudev-lease'], ['#gpudev-status'], ['.gpudev-live']]},
            {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice'],
             rules: {region: {enabled: false}}})"""
    )
    return [
        f"{one['id']}: {one['help']} {[node['html'][:120] for node in one['nodes']]}"
        for one in found["violations"]
    ]


def minutes(text: str) -> int:
    """The minutes in "2 h 10 min left"."""
    hours = re.search(r"(\d+) h", text)
    found = re.search(r"(\d+) min", text)
    return 60 * int(hours[1] if hours else 0) + int(found[1] if found else 0)
