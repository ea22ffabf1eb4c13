"""Two people in two browsers: the owner extends and invites; whom they invited sees, may not, and
is out at once when they are removed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from gpudev_client.models import Reservation
from tests.e2e.people import Person
from tests.fixtures.hub import RunningHub

from .lab import PANEL, STATUS, Lab, base, minutes, picture, running

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.hub]

#: Seconds within which a removed collaborator's connections are closed (goal R12).
OUT_WITHIN = 5.0


async def text(page: Page) -> str:
    return await page.inner_text(PANEL)


async def test_owner_extends_invites_and_removes(
    person: Callable[[str], Person], lab: Lab, hub: RunningHub
) -> None:
    ada, bob = person("ada"), person("bob")
    lease = running(
        ada, gpu_type="t4", gpus=2, hours=2, name="Training run 7", disk="work", create_disk=True
    )
    page = await lab.open(ada, lease)
    await page.wait_for_selector(STATUS)
    assert minutes(await page.inner_text(STATUS)) in (118, 119)
    await lab.panel(page)
    await page.wait_for_selector(f"{PANEL} meter")
    seen = await text(page)
    for told in ("Training run 7", "2 x t4 (simulated)", "Simulated figures", "Disk work"):
        assert told in seen
    assert f"gpu-dev connect {lease.id}" in seen
    await picture(page, "panel")

    await page.get_by_role("button", name="Extend by 8 h").click()
    await page.wait_for_function(
        "document.querySelector('#gpudev-status button').innerText.startsWith('9 h')"
    )
    assert ada.look(lease.id).extended_hours == 8

    await page.get_by_label("Name at the Hub").fill("bob")
    await page.get_by_label("For how long").select_option("for 4 h")
    await page.get_by_role("button", name="Invite").click()
    await page.get_by_role("button", name="Remove bob").wait_for()
    (invited,) = ada.look(lease.id).collaborators
    assert invited.user == "bob"
    assert invited.until is not None
    assert abs(invited.until - invited.since - timedelta(hours=4)) < timedelta(minutes=1)
    assert "works here until " in await text(page)
    await picture(page, "invited")

    theirs = await lab.open(bob, lease)
    await lab.panel(theirs)
    seen = await text(theirs)
    assert "Only ada can extend the lease" in seen
    assert await theirs.locator(f"{PANEL} button:has-text('+')").count() == 0
    await picture(theirs, "collaborator")
    refused = await theirs.evaluate(
        """async (url) => {
            const config = JSON.parse(document.getElementById('jupyter-config-data').textContent);
            const answer = await fetch(url, {method: 'POST', body: '{"hours": 1}',
                headers: {Authorization: 'token ' + config.token}});
            return [answer.status, await answer.json()];
        }""",
        f"{base(hub, lease)}/gpudev/extension",
    )
    assert refused[0] in (403, 404), refused
    assert ada.look(lease.id).extended_hours == 8

    await _open_sockets(theirs)
    await page.get_by_role("button", name="Remove bob").click()
    removed = time.monotonic()
    closed = await theirs.evaluate("Promise.all(window.gpudevClosed)")
    assert time.monotonic() - removed < OUT_WITHIN
    assert len(closed) == 3
    await page.get_by_text("Nobody else has been invited.").wait_for()
    assert _status(hub, lease, bob) in (302, 403)


def _status(hub: RunningHub, lease: Reservation, person: Person) -> int:
    answer = httpx.get(
        f"{base(hub, lease)}/api/status",
        headers={"Authorization": f"token {person.token}"},
        trust_env=False,
    )
    return answer.status_code


async def _open_sockets(page: Page) -> None:
    """A kernel's, a terminal's and the event bus' WebSocket, and when each is closed."""
    await page.evaluate(
        """async () => {
            const config = JSON.parse(document.getElementById('jupyter-config-data').textContent);
            const headers = {Authorization: 'token ' + config.token};
            const post = async (path, body) => (await fetch(config.baseUrl + path,
                {method: 'POST', headers, body: JSON.stringify(body)})).json();
            const kernel = await post('api/kernels', {});
            const terminal = await post('api/terminals', {});
            const root = config.baseUrl.replace(/^http/, 'ws');
            const ws = location.origin.replace(/^http/, 'ws') + config.baseUrl;
            const paths = ['api/kernels/' + kernel.id + '/channels',
                'terminals/websocket/' + terminal.name, 'api/events/subscribe'];
            const opened = [];
            window.gpudevClosed = paths.map(path => new Promise(closed => {
                const socket = new WebSocket(ws + path);
                opened.push(new Promise(done => socket.onopen = done));
                socket.onclose = event => closed(event.code);
            }));
            await Promise.all(opened);
        }"""
    )
