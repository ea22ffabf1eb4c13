"""The end of a lease with something unsaved in a real browser, and the next lease on the disk."""

from __future__ import annotations

import json
from collections.abc import Callable
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
    from playwright.async_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.hub]

SENTENCE = "{} never saved this"
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


async def type_into(page: Page, text: str) -> None:
    await page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    await page.keyboard.type(f"# {text}")
    await page.wait_for_selector(".lm-DockPanel-tabBar .jp-mod-dirty")


def newest_snapshot(hub: RunningHub, person: Person, disk: str) -> dict[str, Any]:
    items = hub.call("GET", f"/disks/{disk}/snapshots", person.token).json()["items"]
    newest: dict[str, Any] = max(items, key=lambda one: one["taken_at"])
    return newest


def written(hub: RunningHub, name: str) -> list[str]:
    """The contents of all files of this name in snapshots."""
    found = (hub.data_dir / "disks").rglob(name)
    return [path.read_text() for path in found if "snapshots" in path.parts]


@pytest.mark.parametrize("early", [False, True], ids=["in time", "given back"])
async def test_unsaved_edits_are_in_the_snapshot_and_reopen(
    person: Callable[[str], Person], lab: Lab, hub: RunningHub, early: bool
) -> None:
    ada = person("cleo" if early else "carl")
    sentence = SENTENCE.format(ada.name)
    lease = running(ada, hours=1.0 if early else 0.02, disk="work", create_disk=True)
    put(ada, lease, "notes.ipynb", {"type": "notebook", "format": "json", "content": NOTEBOOK})
    put(ada, lease, "plain.txt", {"type": "file", "format": "text", "content": "saved"})
    page = await lab.open(ada, lease, "lab/tree/notes.ipynb")
    await page.wait_for_selector(".jp-Notebook .jp-Cell")
    await type_into(page, sentence)
    assert sentence not in json.dumps(written(hub, "notes.ipynb"))
    if early:
        await page.click("#gpudev-status button")
        await page.get_by_role("button", name="Give the GPUs back").click()
        await picture(page, "give-back")
        await page.get_by_role("button", name="Give them back").click()
    over = ada.until_over(lease.id, State.CANCELLED if early else State.EXPIRED)

    told = [entry.reason for entry in ada.history(over.id) if entry.kind == "closing"]
    assert told == ["Before the end 1 document saved."]
    until(
        lambda: newest_snapshot(hub, ada, "work")["state"] == "ready", "the last snapshot is taken"
    )
    assert any(sentence in text for text in written(hub, "notes.ipynb"))
    await page.close()

    again = running(ada, hours=1.0, disk="work")
    reopened = await lab.open(ada, again)
    await reopened.get_by_text(sentence).wait_for()
    assert await reopened.locator(".lm-DockPanel-tabBar").get_by_text("notes.ipynb").count() == 1
