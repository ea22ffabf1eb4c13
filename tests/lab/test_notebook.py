"""`gpudev_lab` in a real notebook: the lease as data, and the widget with its buttons."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gpudev_client.models import Reservation
from tests.e2e.people import Person
from tests.e2e.waiting import until

from .lab import Lab, base, picture, running

pytestmark = [pytest.mark.browser, pytest.mark.hub]

CODE = """import gpudev_lab
lease = gpudev_lab.lease()
print("on", lease.gpus, lease.gpu_type, "until", lease.expires_at.tzinfo)
try:
    from gpudev_client import GpuDev
    GpuDev().reservation(lease.id).extend(1)
except Exception as error:
    print("refused:", type(error).__name__)
gpudev_lab.widget()"""


def notebook(*sources: str) -> dict[str, Any]:
    cells: list[dict[str, Any]] = [
        {"id": f"c{index}", "cell_type": "code", "source": source, "metadata": {}, "outputs": [],
         "execution_count": None}
        for index, source in enumerate(sources)
    ]  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": cells}


def put(person: Person, lease: Reservation, path: str, content: dict[str, Any]) -> None:
    answer = httpx.put(
        f"{base(person.hub, lease)}/api/contents/{path}",
        json={"type": "notebook", "format": "json", "content": json.loads(json.dumps(content))},
        headers={"Authorization": f"token {person.token}"},
        trust_env=False,
        timeout=60.0,
    )
    answer.raise_for_status()


async def test_a_notebook_sees_its_lease_and_its_reader_extends_it(
    person: Callable[[str], Person], lab: Lab
) -> None:
    ada = person("nina")
    lease = running(ada, hours=1, gpu_type="t4", gpus=2)
    put(ada, lease, "lease.ipynb", notebook(CODE))
    page = await lab.open(ada, lease, "lab/tree/lease.ipynb")
    await page.wait_for_selector(".jp-Notebook .jp-Cell")
    # What is run before the kernel is there is lost.
    await page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    await page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    await page.keyboard.press("Shift+Enter")
    await page.get_by_text("on 2 t4 until UTC").wait_for()
    # The kernel itself may only look: whoever works in the server has its token.
    await page.get_by_text("refused: NotAllowed").wait_for()
    widget = page.locator(".gpudev-widget")
    await widget.get_by_text(" left, until ").wait_for()
    assert "2 x t4 (simulated)" in await widget.inner_text()
    before = ada.look(lease.id).expires_at
    await widget.get_by_role("button", name="Extend the lease by 1 h").click()
    until(lambda: ada.look(lease.id).extended_hours == 1, "the lease is extended")
    await widget.get_by_text("1 h ").first.wait_for()
    await picture(page, "widget")
    assert before is not None
