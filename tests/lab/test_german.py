"""The panel in a JupyterLab that somebody has set to German, beside JupyterLab's own German."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.e2e.people import Person

from .lab import PANEL, STATUS, Lab, barriers, change_setting, picture, running
from .test_translations import CATALOGUES

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.hub]

#: English sentences that are German ones too.
SAME = re.compile(r"^(GPU|Disk|%\d|[\d\s.,:–+%-])*( (h|min|s|x))*$")  # noqa: RUF001 - a dash


async def texts(page: Page) -> set[str]:
    """Every piece of text in the panel and the status item, seen or spoken."""
    found: list[str] = await page.evaluate(
        """() => [...document.querySelectorAll('#gpudev-lease, #gpudev-status')].flatMap(root => {
            const texts = [];
            const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
            while (walk.nextNode()) texts.push(walk.currentNode.data);
            for (const one of root.querySelectorAll('[aria-label], [title], [placeholder]'))
                texts.push(one.ariaLabel, one.title, one.getAttribute('placeholder'));
            return texts;
        }).filter(Boolean)"""
    )
    return {text.strip() for text in found} - {""}


async def cut_off(page: Page) -> list[str]:
    """What of the panel does not have the room for its words."""
    found: list[str] = await page.evaluate(
        """() => [...document.querySelectorAll('#gpudev-lease *')]
            .filter(one => one.scrollWidth > one.clientWidth + 1 && one.clientWidth
                && getComputedStyle(one).display !== 'inline' && !one.closest('.gpudev-copy, svg'))
            .map(one => `${one.tagName}: ${one.innerText.slice(0, 60)}`)"""
    )
    return found


def english() -> dict[str, re.Pattern[str]]:
    """The panel's English sentences that are not German ones too, with anything for a value."""
    [german] = [path for path in CATALOGUES if path.parent.parent.name == "de_DE"]
    known = json.loads(german.read_text())
    return {
        name: re.compile(re.sub(r"%\\?\d", ".+", re.escape(name)))
        for name, forms in known.items()
        if name and name not in forms and not SAME.match(name)
    }


async def test_the_panel_is_in_german(person: Callable[[str], Person], lab: Lab) -> None:
    ada = person("gerda")
    lease = running(ada, hours=1, disk="arbeit", create_disk=True)
    change_setting(ada, lease, "@jupyterlab/translation-extension:plugin", {"locale": "de_DE"})
    page = await lab.open(ada, lease)
    # JupyterLab's own words: the language has come.
    await page.get_by_role("menuitem", name="Datei").wait_for()
    status = page.locator(STATUS)
    await status.get_by_text(re.compile(r"^noch \d+ min$")).wait_for()
    await lab.panel(page)
    await page.locator(PANEL).get_by_role("heading", name="Personen").wait_for()
    await page.get_by_role("button", name="Jetzt einen Schnappschuss machen").click()
    await page.get_by_text("Letzter Schnappschuss: gerade eben.").wait_for()
    await picture(page, "german")
    left = {
        text: name
        for text in await texts(page)
        for name, pattern in english().items()
        if pattern.fullmatch(text) and text != lease.name
    }
    assert left == {}
    assert await cut_off(page) == []
    assert await barriers(page) == []
    await page.get_by_role("button", name="GPUs zurückgeben …").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_text("GPUs zurückgeben?").wait_for()
    await picture(page, "german-dialog")
    await dialog.get_by_role("button", name="Reservierung behalten").click()
