"""The pages in a real browser: no errors, no barriers that axe finds, live, at home on a phone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from gpudev_client import words
from gpudev_client.models import CollaboratorRequest, DiskRequest
from gpudev_service.actor import Actor
from gpudev_service.operations import (
    capacity,
    disks,
    extension,
    keys,
    reservations,
    sharing,
    snapshots,
)
from tests.api.matrix import SSH_KEY
from tests.tiers import ROOT

from .conftest import Site
from .visitor import PREFIX

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.browser

ADA = Actor("ada")
ZONE = "Europe/Berlin"
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
ADMIN = ("custom:gpudev:reserve!user=ada", "custom:gpudev:admin")


@pytest.fixture
async def lived_in(site: Site) -> Site:
    """Something of everything that pages can show."""
    world = site.world
    mine = await world.reserve(
        "ada", "h100", hours=8, gpus=4, name="training", disk="work", create_disk=True
    )
    await world.running(mine)
    await world.reserve("grace", "t4-small", hours=5)
    await world.reserve("ada", "t4-small", hours=2, name="evaluation")
    over = await world.reserve("ada", "cpu-x86", hours=1, name="notebook")
    await reservations.cancel(world.ctx, over.id, ADA, "done early")
    await world.sweep()
    for name in ("data", "old"):
        await disks.create(world.ctx, "ada", DiskRequest(name=name), (), ADA)
    await disks.delete(world.ctx, "ada", "old", (), ADA)
    for user, role in (("linus", "use"), ("joan", "view")):
        request = CollaboratorRequest.model_validate({"role": role})
        await sharing.invite(world.ctx, mine.id, user, request, ADA)
    shared = await world.reserve("grace", "t4", hours=3, name="of grace")
    await world.running(shared)
    await sharing.invite(world.ctx, shared.id, "ada", CollaboratorRequest(), Actor("grace"))
    await keys.replace(world.ctx, "ada", [f"{SSH_KEY} ada@laptop"], ADA)
    await snapshots.take(world.ctx, "ada", "data", "before the change", ADA)
    await world.ctx.background.settle()
    await capacity.drain(world.ctx, "t4-2", "a fan is replaced", ADA)
    await capacity.set_maintenance(world.ctx, "cpu-x86", "kernel update", ADA)
    return site


class Screen:
    """A browser window in which ada has logged in; remembers what the page complained of."""

    def __init__(self, site: Site, context: BrowserContext) -> None:
        self.site, self.context = site, context
        self.complaints: list[str] = []

    async def open(self, path: str, *, own_clock: bool = False) -> Page:
        page = await self.context.new_page()
        if own_clock:  # the test moves it; else time passes as it does
            await page.clock.install()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)
        await page.goto(f"{self.site.base}{PREFIX}{path}")
        return page

    def _heard(self, message: Any) -> None:
        if message.type in {"error", "warning"} and "status of 404" not in message.text:
            self.complaints.append(message.text)


@pytest.fixture
async def screens(lived_in: Site, browser: Browser) -> Any:
    async def make(scheme: str = "light", width: int = 1200, scopes: Any = None) -> Screen:
        lived_in.hub.next_login = lived_in.hub.introduce("ada", scopes)
        context = await browser.new_context(
            color_scheme=scheme,  # type: ignore[arg-type]
            viewport={"width": width, "height": 800},
            timezone_id=ZONE,
        )
        return Screen(lived_in, context)

    return make


async def _paths(site: Site) -> list[str]:
    live = [view async for view in reservations.present(site.world.ctx, lambda _: True)]
    mine = next(view.id for view in live if view.name == "training")
    shared = next(view.id for view in live if view.name == "of grace")
    query = f"port=5000&state={'s' * 22}&challenge={'c' * 43}&name=laptop"
    return [
        "",
        f"reservations/{mine}",
        f"reservations/{mine}/cancel",
        f"reservations/{shared}",
        "ssh-keys",
        "disks",
        "disks/data",
        "disks/data/delete",
        "disks/data/contents",
        "fleet",
        "admin",
        f"cli-login?{query}",
        "nowhere",
    ]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
async def test_no_page_complains_overflows_or_bars_anybody(
    lived_in: Site, screens: Any, scheme: str, width: int
) -> None:
    screen = await screens(scheme, width, ADMIN)
    found: dict[str, Any] = {}
    for path in await _paths(lived_in):
        page = await screen.open(path)
        assert await page.locator("html").get_attribute("data-bs-theme") == scheme
        barriers = list(screen.complaints)
        await page.evaluate(AXE.read_text())
        seen = await page.evaluate(
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice']})"
        )
        barriers += [
            f"{one['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
            for one in seen["violations"]
            for node in one["nodes"]
        ]
        width_now = await page.evaluate("document.documentElement.scrollWidth")
        if width_now > width:
            barriers.append(f"{width_now} pixels wide")
        if barriers:
            found[path] = barriers
        await page.close()
        screen.complaints.clear()  # the check itself does what the page's policy forbids
    assert not found, json.dumps(found, indent=1)


async def test_times_are_in_the_viewers_zone_and_pass(lived_in: Site, screens: Any) -> None:
    screen = await screens()
    page = await screen.open("", own_clock=True)
    left = page.locator("article", has_text="training").locator("time").first
    # Ends at 20:00 UTC, 21:00 in Berlin; the service's clock stands at noon, the page's goes on.
    await page.clock.fast_forward("00:31")
    await left.get_by_text("7 h 59 min left, until 21:00").wait_for()
    await page.clock.fast_forward("02:00:00")
    await left.get_by_text("5 h 59 min left, until 21:00").wait_for()


async def test_the_script_has_the_same_words(screens: Any) -> None:
    screen = await screens()
    page = await screen.open("")
    now = datetime(2026, 10, 24, 21, 30, 15, tzinfo=UTC)
    spans = [0, 1, 59, 60, 61, 3599, 3600, 5400, 7261, 86400, 100000, 172800, 200000, 8e6, 4e7]
    moments = [now + timedelta(seconds=sign * span) for span in spans for sign in (1, -1)]
    # An hour that comes twice.
    moments += [datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in range(3)]
    zone = ZoneInfo(ZONE)
    expected = {
        "left": [words.time_left(at, now, zone) for at in moments],
        "start": [words.start_in_words(at, now, zone) for at in moments],
        "moment": [words.moment(at, now, zone) for at in moments],
        "at": [words.at_moment(at, now, zone) for at in moments],
        "ago": [words.ago(at, now) for at in moments],
    }
    told = await page.evaluate(
        "([moments, now]) => Object.fromEntries(['left', 'start', 'moment', 'at', 'ago'].map("
        "kind => [kind, moments.map(at => gpudevWords[kind](at, now))]))",
        [[at.timestamp() * 1000 for at in moments], now.timestamp() * 1000],
    )
    assert told == expected
    sentence = f"{words.mark(moments[0])}, 2026-99-99T10:00Z, {words.mark(moments[-1])}"
    shown = await page.evaluate(
        "([text, now]) => gpudevWords.told(text, now)", [sentence, now.timestamp() * 1000]
    )
    assert shown == words.told(sentence, now, zone)


async def test_a_card_changes_by_itself_and_says_so(lived_in: Site, screens: Any) -> None:
    screen = await screens()
    page = await screen.open("")
    card = page.locator("article", has_text="evaluation")
    assert "queued" in await card.inner_text()
    live = [view async for view in reservations.present(lived_in.world.ctx, lambda _: True)]
    grace = next(view for view in live if (view.user, view.gpu_type) == ("grace", "t4-small"))
    mine = next(view for view in live if view.name == "evaluation")
    await page.wait_for_function("() => true")
    await reservations.cancel(lived_in.world.ctx, grace.id, Actor("grace"))
    await lived_in.world.sweep()
    await card.get_by_text("preparing").wait_for()
    await lived_in.world.running(mine)
    await card.get_by_role("link", name="Open").wait_for()
    said = page.locator("#announcement")
    assert "evaluation: " in str(await said.text_content())
    assert not screen.complaints


async def test_a_new_reservation_appears(lived_in: Site, screens: Any) -> None:
    screen = await screens()
    page = await screen.open("")
    async with page.expect_response(lambda answer: answer.url.endswith("/card")):
        await lived_in.world.reserve("ada", "t4", hours=1, name="from the command line")
    await page.get_by_role("heading", name="from the command line").wait_for()


async def test_nothing_is_taken_from_under_the_fingers(lived_in: Site, screens: Any) -> None:
    screen = await screens()
    live = [view async for view in reservations.present(lived_in.world.ctx, lambda _: True)]
    mine = next(view for view in live if view.name == "training")
    page = await screen.open(f"reservations/{mine.id}")
    await page.locator("#hours").fill("1.25")

    await extension.extend(lived_in.world.ctx, mine.id, ADA, 2)
    await page.locator("#part-history").get_by_text("Extended by 2 h by ada.").wait_for()
    assert await page.locator("#hours").input_value() == "1.25"
    assert await page.evaluate("document.activeElement.id") == "hours"


async def test_everything_can_be_done_with_the_keyboard(lived_in: Site, screens: Any) -> None:
    screen = await screens()
    page = await screen.open("")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
    await page.keyboard.press("Enter")
    for _ in range(40):
        await page.keyboard.press("Tab")
        name = await page.evaluate("document.activeElement.textContent.trim()")
        if name.startswith("Leave the queue"):
            break
    outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Leave the queue").focus()
    await page.keyboard.press("Enter")
    await page.get_by_text("evaluation is cancelled.").wait_for()


async def test_the_theme_is_the_hubs(screens: Any) -> None:
    screen = await screens("light")
    page = await screen.open("")
    await page.get_by_role("button", name="Toggle dark mode").click()
    assert await page.locator("html").get_attribute("data-bs-theme") == "dark"
    assert await page.evaluate("localStorage.getItem('jupyterhub-bs-theme')") == "dark"
    other = await screen.open("fleet")
    assert await other.locator("html").get_attribute("data-bs-theme") == "dark"
