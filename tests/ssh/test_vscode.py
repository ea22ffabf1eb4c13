"""VS Code's own server on a lease, its editor in a browser, and SSH between them.

Not for every day: building the server takes minutes. Where npm and a compiler are, with a Node.js
that its version asks for:

    npm install --ignore-scripts code-server@4.96.4 && cd node_modules/code-server/lib/vscode
    rm npm-shrinkwrap.json && npm pkg set 'dependencies.@vscode/proxy-agent=^0.27.0'
    npm pkg delete devDependencies scripts && npm install --omit=dev --ignore-scripts
    npm rebuild node-pty @vscode/spdlog native-watchdog @parcel/watcher @vscode/deviceid
    GPUDEV_VSCODE_SERVER=$PWD pytest tests/ssh/test_vscode.py

(One of its dependencies is named by a Git address; the registry has the same version.)
"""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.tiers import ROOT
from tools.ports import free_ports

from .site import HOST, Person, Site

if TYPE_CHECKING:
    from playwright.async_api import Page

SERVER = os.environ.get("GPUDEV_VSCODE_SERVER", "")
PICTURES = ROOT / ".artifacts" / "vscode"

pytestmark = [
    pytest.mark.ssh,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not SERVER, reason="GPUDEV_VSCODE_SERVER names no VS Code server"),
]


@contextmanager
def served(ada: Person, port: int) -> Iterator[None]:
    """VS Code's server, started as its extension does: it outlives the connection."""
    server = [
        *("node", f"{SERVER}/out/server-main.js", "--host", "127.0.0.1", "--port", str(port)),
        *("--without-connection-token", "--accept-server-license-terms"),
        *("--telemetry-level", "off", "--server-data-dir", "$HOME/.vscode-server"),
    ]
    begin = " ".join(word if word.startswith("$") else shlex.quote(word) for word in server)
    said = ada.ssh(f"setsid nohup {begin} > server.log 2>&1 < /dev/null & echo $!")
    assert said.returncode == 0, said.stderr
    try:
        yield
    finally:
        ada.ssh(f"kill {int(said.stdout)}")


@contextmanager
def forwarded(ada: Person, here: int, there: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        ada.command(
            *("-o", "ExitOnForwardFailure=yes", "-N"),
            *("-L", f"127.0.0.1:{here}:127.0.0.1:{there}", HOST),
        ),
        env=ada.environment,
        stdin=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


async def appears(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - another program makes it
        await asyncio.sleep(0.2)


async def type_in_terminal(page: Page, command: str) -> None:
    await page.locator(".terminal-wrapper.active .xterm-helper-textarea").focus()
    await page.keyboard.type(f"{command}\n")


async def test_an_editor_with_files_and_a_terminal_that_reconnects(
    ada: Person, site: Site, page: Page
) -> None:
    page.set_default_timeout(120_000)
    (site.disk / "hello.txt").write_text("from the lease")
    here, there = free_ports(2)
    PICTURES.mkdir(parents=True, exist_ok=True)
    with served(ada, there):
        with forwarded(ada, here, there):
            await reachable(page, f"http://127.0.0.1:{here}/?folder={site.disk}")
            await page.locator(".explorer-folders-view").get_by_text("hello.txt").dblclick()
            await page.locator(".view-lines").get_by_text("from the lease").wait_for()
            await page.get_by_role("button", name="Yes, I trust the authors").click()
            await page.keyboard.press("Control+Backquote")
            await page.locator(".terminal-wrapper.active .xterm-screen").wait_for()
            await type_in_terminal(page, "touch typed-in-the-editor")
            await appears(site.disk / "typed-in-the-editor")
            await page.screenshot(path=PICTURES / "editor.png")
        with forwarded(ada, here, there):
            # The page comes back by itself, with the same terminal.
            await type_in_terminal(page, "touch typed-after-the-break")
            await appears(site.disk / "typed-after-the-break")
            await page.screenshot(path=PICTURES / "reconnected.png")


async def reachable(page: Page, address: str) -> None:
    """Opens the editor as soon as its server answers."""
    from playwright.async_api import Error

    while True:
        try:
            await page.goto(address)
        except Error:
            await asyncio.sleep(0.5)
        else:
            return
