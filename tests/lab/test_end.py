"""The end of a lease with something unsaved in a real browser, and the next lease on the disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from gpudev_client.models import Reservation
from gpudev_client.states import State
from tests.e2e.people import Person
from tests.e2e.waiting import until
from tests.fixtures.hub import RunningHub

from .lab import Lab, base, picture, running

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.hub]

SENTENCE = "{} never saved this"
#: What the owner's own programs do at the end: the hook, and a cell that runs until then.
HOOK = """#!/bin/sh
echo "$GPUDEV_SECONDS_LEFT s left for $GPUDEV_RESERVATION"
[ ! -e checkpoint ] || cp checkpoint kept-by-the-hook
"""
CELL = """import gpudev_lab
from pathlib import Path

def keep(ending):
    Path("checkpoint").write_text(f"{gpudev_lab.lease().id}: {ending}")

gpudev_lab.before_end(keep, minutes=0.4)
print("the cell", "has begun")
async for ending in gpudev_lab.endings(0.4):
    print("heard that", ending)"""
#: Seconds that a short lease must have left for the next step, and in the end for the word that the
#: cell wants.
LEFT, AHEAD = 45, 28
NOTEBOOK: dict[str, Any] = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    "cells": [
        {"id": "a", "cell_type": "code", "source": "", "metadata": {}, "outputs": [],
         "execution_count": None},
    ],
}  # fmt: skip


def put(person: Person, reservation: Reservation, path: str, model: dict[str, Any]) -> None:
    answer = httpx.put(
        f"{base(person.hub, reservation)}/api/contents/{path}",
        json=model,
        headers={"Authorization": f"token {person.token}"},
        trust_env=False,
        timeout=60.0,
    )
    answer.raise_for_status()


def with_a_cell(source: str) -> dict[str, Any]:
    """The notebook, and a second cell."""
    cell = {**NOTEBOOK["cells"][0], "id": "b", "source": source}
    return {**NOTEBOOK, "cells": [*NOTEBOOK["cells"], cell]}


def home(hub: RunningHub, text: str) -> Path:
    """The home directory whose plain.txt says `text`."""
    files = (hub.data_dir / "disks").rglob("plain.txt")
    [found] = [f.parent for f in files if "snapshots" not in f.parts and f.read_text() == text]
    return found


def put_hook(home: Path) -> None:
    hook = home / ".gpudev" / "before-expiry"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(HOOK)
    hook.chmod(0o700)


def tab(page: Page, name: str) -> Locator:
    return page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text=name)


async def type_into(page: Page, name: str, text: str) -> None:
    """Types into the editor that is there first, of the tab `name`."""
    await tab(page, name).click()
    await page.locator(".jp-MainAreaWidget:visible .cm-content").first.click()
    await page.keyboard.type(f"# {text}")
    await tab(page, name).and_(page.locator(".jp-mod-dirty")).wait_for()


async def run_second_cell(page: Page) -> None:
    # What is run before the kernel is there is lost.
    await page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    await page.locator(".jp-Notebook .jp-Cell .cm-content").nth(1).click()
    await page.keyboard.press("Control+Enter")
    await page.get_by_text("the cell has begun").wait_for()


def newest_snapshot(hub: RunningHub, person: Person, disk: str) -> dict[str, Any]:
    items = hub.call("GET", f"/disks/{disk}/snapshots", person.token).json()["items"]
    newest: dict[str, Any] = max(items, key=lambda one: one["taken_at"])
    return newest


def written(hub: RunningHub, name: str) -> list[str]:
    """The contents of all files of this name in snapshots."""
    found = (hub.data_dir / "disks").rglob(name)
    return [path.read_text() for path in found if "snapshots" in path.parts]


def outputs(notebook: str) -> str:
    """What the second cell of a saved notebook has said."""
    said: list[str] = [part["text"] for part in json.loads(notebook)["cells"][1]["outputs"]]
    return "".join("".join(text) for text in said)


@pytest.mark.parametrize("early", [False, True], ids=["in time", "given back"])
async def test_unsaved_edits_are_in_the_snapshot_and_reopen(
    person: Callable[[str], Person], lab: Lab, hub: RunningHub, early: bool
) -> None:
    """Of a notebook and of a text file whose tab is hidden, with what a cell has said that runs at
    the end; and the owner's hook runs."""
    ada = person("cleo" if early else "carl")
    sentence, plain = SENTENCE.format(ada.name), f"saved by {ada.name}"
    lease = running(ada, hours=1.0 if early else 0.02, disk="work", create_disk=True)
    content = with_a_cell(CELL)
    put(ada, lease, "notes.ipynb", {"type": "notebook", "format": "json", "content": content})
    put(ada, lease, "plain.txt", {"type": "file", "format": "text", "content": plain})
    put_hook(home(hub, plain))
    ada.at_least(lease.id, LEFT)
    page = await lab.open(ada, lease, "lab/tree/notes.ipynb")
    await page.wait_for_selector(".jp-Notebook .jp-Cell")
    ada.at_least(lease.id, LEFT)
    await page.locator(".jp-DirListing-item", has_text="plain.txt").dblclick()
    await type_into(page, "plain.txt", sentence)
    await type_into(page, "notes.ipynb", sentence)
    ada.at_least(lease.id, LEFT)
    await run_second_cell(page)
    assert sentence not in json.dumps(written(hub, "notes.ipynb"))
    if early:
        await page.click("#gpudev-status button")
        await page.get_by_role("button", name="Give the GPUs back").click()
        await picture(page, "give-back")
        await page.get_by_role("button", name="Give them back").click()
    else:
        ada.at_least(lease.id, AHEAD)
    over = ada.until_over(lease.id, State.CANCELLED if early else State.EXPIRED)

    [told] = [entry.reason for entry in ada.history(over.id) if entry.kind == "closing"]
    assert (
        told
        == "Before the end 2 documents saved. Your hook: ~/.gpudev/before-expiry ran to its end."
    )
    until(
        lambda: newest_snapshot(hub, ada, "work")["state"] == "ready", "the last snapshot is taken"
    )
    saved = next(text for text in written(hub, "notes.ipynb") if sentence in text)
    assert "the cell has begun" in outputs(saved)
    assert any(sentence in text for text in written(hub, "plain.txt"))
    assert any(f"s left for {lease.id}" in text for text in written(hub, "before-expiry.log"))
    if not early:
        # A word that comes seconds before the end: the checkpoint was there for the hook.
        assert "heard that the lease ends in" in outputs(saved)
        kept = written(hub, "kept-by-the-hook")
        assert any(f"{lease.id}: the lease ends in" in text for text in kept)
    await page.close()

    again = running(ada, hours=1.0, disk="work")
    reopened = await lab.open(ada, again)
    for name in ("plain.txt", "notes.ipynb"):
        await tab(reopened, name).click()
        await reopened.get_by_text(sentence).locator("visible=true").wait_for()
