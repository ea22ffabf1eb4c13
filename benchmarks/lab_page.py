"""A real JupyterLab at a real Hub in Chromium, with and without the panel, for `p12`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from gpudev_client.ids import MARK
from gpudev_client.models import Reservation
from tests import tiers
from tests.e2e.people import Person
from tests.fixtures.hub import RunningHub
from tests.lab.lab import base, running

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession, Page

#: The peer; it is not among the project's dependencies and is put aside for a run.
PEER = "jupyter-resource-usage==1.3.0"
PEER_PATH = "api/metrics/v1"
OURS = "/lab/extensions/gpudev-lab/"
#: What the panel asks its own server for.
CALLS = "/gpudev/"

_EXTENSIONS = Path(sys.prefix) / "share" / "jupyter" / "labextensions"
_HIDE = """
Object.defineProperty(document, 'hidden', {get: () => true, configurable: true});
Object.defineProperty(document, 'visibilityState', {get: () => 'hidden', configurable: true});
document.dispatchEvent(new Event('visibilitychange'));
"""


def put_peer(folder: Path) -> bool:
    """Installs the peer into a folder of its own; False where it cannot be had."""
    uv = Path(sys.executable).with_name("uv")
    where = ["--python", sys.executable, "--target", str(folder)]
    command = [str(uv), "pip", "install", "--quiet", "--no-deps", *where, PEER]
    done = subprocess.run(command, check=False, capture_output=True)
    return done.returncode == 0


def hub_with(peer: Path | None) -> RunningHub:
    """A Hub whose servers have the peer too, if it is there."""
    lines = ['c.Spawner.args.append("--LabApp.expose_app_in_browser=True")']
    if peer is not None:
        lines += [
            f'c.Spawner.environment["JUPYTER_CONFIG_PATH"] = "{peer}/etc/jupyter"',
            f'c.Spawner.environment["PYTHONPATH"] += ":{peer}"',
        ]
    return RunningHub(
        hub_config="\n".join(lines), service_config="c.GpuDev.times = {'warnings': []}"
    )


class Site:
    """One person, one lease, one browser."""

    def __init__(self, hub: RunningHub, page: Page) -> None:
        self.hub, self.page = hub, page
        self.person = Person(hub, "ada")
        self.lease: Reservation = running(
            self.person, hours=2, disk="work", create_disk=True, gpu_type="t4", gpus=4
        )
        self.base = base(hub, self.lease)
        self.cdp: CDPSession = page.context.new_cdp_session(page)
        self._http = httpx.Client(
            trust_env=False, timeout=60.0, headers={"Authorization": f"token {self.person.token}"}
        )

    def log_in(self) -> None:
        self.page.goto(f"{self.hub.url}/hub/login")
        self.page.fill("#username_input", self.person.name)
        self.page.fill("#password_input", "password")
        self.page.click("#login_submit")
        self.page.wait_for_url(lambda url: "/hub/login" not in url)

    def load(self) -> float:
        """Loads JupyterLab; milliseconds from the beginning of the navigation to a usable page."""
        self.page.goto(f"{self.base}/lab?reset", wait_until="commit")
        self.page.wait_for_selector("#jp-main-dock-panel")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")
        return float(self.page.evaluate("performance.now()"))

    def open_panel(self) -> None:
        self.page.click("#gpudev-status button")
        self.page.wait_for_selector("#gpudev-lease .gpudev-left")

    def call(self, path: str) -> None:
        self._http.get(f"{self.base}/{path}").raise_for_status()

    def post(self, path: str, body: Any) -> Any:
        answer = self._http.post(f"{self.base}/{path}", json=body)
        answer.raise_for_status()
        return answer.json()

    def put(self, path: str, body: Any) -> None:
        self._http.put(f"{self.base}/{path}", json=body).raise_for_status()

    # --- what is measured ---------------------------------------------------------------------

    def bytes_of_load(self) -> tuple[int, int]:
        """(Requests, bytes over the wire) of the panel's own files in one cold load."""
        urls: dict[str, str] = {}
        sizes: dict[str, int] = {}
        self.cdp.send("Network.enable")
        self.cdp.send("Network.setCacheDisabled", {"cacheDisabled": True})
        self.cdp.on(
            "Network.requestWillBeSent",
            lambda e: urls.update({e["requestId"]: e["request"]["url"]}),
        )
        self.cdp.on(
            "Network.loadingFinished",
            lambda e: sizes.update({e["requestId"]: int(e["encodedDataLength"])}),
        )
        self.load()
        self.page.wait_for_selector("#gpudev-status button")
        self.cdp.send("Network.setCacheDisabled", {"cacheDisabled": False})
        self.cdp.send("Network.disable")
        ours = [sizes[key] for key, url in urls.items() if OURS in url and key in sizes]
        return len(ours), sum(ours)

    def script_time(self) -> float:
        """Milliseconds of the main thread in the panel's own scripts during one load."""
        self.cdp.send("Profiler.enable")
        self.cdp.send("Profiler.setSamplingInterval", {"interval": 200})
        self.cdp.send("Profiler.start")
        self.load()
        self.page.wait_for_selector("#gpudev-status button")
        profile = self.cdp.send("Profiler.stop")["profile"]
        self.cdp.send("Profiler.disable")
        ours = {n["id"] for n in profile["nodes"] if OURS in n["callFrame"]["url"]}
        spent = zip(profile["samples"], profile["timeDeltas"], strict=True)
        return float(sum(delta for node, delta in spent if node in ours)) / 1000

    def requests(self, seconds: float, *, hidden: bool) -> int:
        """How often the page asks the panel's endpoints while nothing happens."""
        seen: list[str] = []
        if hidden:
            self.page.evaluate(_HIDE)
        self.page.on("request", lambda request: seen.append(request.url))
        self.page.wait_for_timeout(seconds * 1000)
        return sum(CALLS in url and OURS not in url for url in seen)

    def server_cpu(self, path: str, calls: int) -> float:
        """CPU milliseconds of the server for one call of an endpoint."""
        process = self._server()
        for _ in range(20):
            self.call(path)
        before = process.cpu_times()
        for _ in range(calls):
            self.call(path)
        after = process.cpu_times()
        spent = after.user + after.system - before.user - before.system
        return float(spent * 1000 / calls)

    def _server(self) -> psutil.Process:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                mine = process.environ().get(MARK) == self.lease.id
                if mine and any("jupyterhub-singleuser" in part for part in process.cmdline()):
                    return process
        raise RuntimeError("the reservation's server is not there")


@contextlib.contextmanager
def without_panel() -> Iterator[None]:
    """JupyterLab reads its extensions for every page, so that moving the folder is enough."""
    place, aside = _EXTENSIONS / "gpudev-lab", Path(sys.prefix) / "gpudev-lab.aside"
    place.rename(aside)
    try:
        yield
    finally:
        aside.rename(place)


@contextlib.contextmanager
def site(work: Path) -> Iterator[tuple[Site, bool]]:
    """A running site, and whether the peer is there."""
    from playwright.sync_api import sync_playwright

    peer = work / "peer"
    has_peer = put_peer(peer)
    hub = hub_with(peer if has_peer else None)
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    try:
        hub.start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=tiers.chromium(), args=options)
            context = browser.new_context(viewport={"width": 1280, "height": 860})
            found = Site(hub, context.new_page())
            found.log_in()
            yield found, has_peer
            browser.close()
    finally:
        hub.remove()
        shutil.rmtree(work, ignore_errors=True)
