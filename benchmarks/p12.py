"""The Lab panel: bytes and time of a load, requests, the server's CPU, typing beside busy kernels.

`SIZE=small` measures fewer rounds. A real Hub, JupyterLab and Chromium; the panel is taken away and
put back for A and B. A difference whose interval is wider than its goal is "cannot say".
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.lab_page import PEER, PEER_PATH, Site, site, without_panel

SMALL = os.environ.get("SIZE") == "small"
PAIRS = 6 if SMALL else 40
#: Seconds of counting requests, calls for one figure of CPU, keys for one figure of typing.
COUNTING = 65 if SMALL else 180
CALLS = 100 if SMALL else 300
KEYS, TYPING_ROUNDS = (60, 2) if SMALL else (200, 4)
KERNELS = 8
#: Of the peer, as its two pollers ask while its page is visible.
PEER_PER_MINUTE = 24
GOAL_BYTES, GOAL_LOAD_MS, GOAL_VISIBLE, GOAL_CPU, GOAL_TYPING = 60_000, 50.0, 2.0, 0.1, 1.02

_CHATTY = "import time\nwhile True:\n    print('x' * 60)\n    time.sleep(0.05)"
_MEASURE_KEYS = """
window.gpudevKeys = [];
document.addEventListener('keydown', event => {
    const begin = event.timeStamp;
    const drawn = () => window.gpudevKeys.push(performance.now() - begin);
    requestAnimationFrame(() => setTimeout(drawn));
}, true);
"""


def interval(values: list[float], of: Callable[[list[float]], float]) -> tuple[float, float, float]:
    """A statistic with its 95% interval by resampling, the same in every run."""
    dice = random.Random(12)
    found = sorted(of(dice.choices(values, k=len(values))) for _ in range(2000))
    return of(values), found[50], found[1949]


def loads(lab: Site) -> list[float]:
    """Differences in milliseconds between loads with and without the panel, in turn."""
    lab.load()
    differences = []
    for _ in range(PAIRS):
        with without_panel():
            bare = lab.load()
        differences.append(lab.load() - bare)
    return differences


def typing(lab: Site) -> tuple[list[float], list[float]]:
    """p99 of each round of typing into a notebook beside busy kernels: with the panel, without."""
    names = [f"chatty-{number}.ipynb" for number in range(KERNELS)]
    for name in names:
        lab.put(f"api/contents/{name}", _notebook(_CHATTY))
    lab.put("api/contents/typing.ipynb", _notebook(""))
    with_panel, bare = [], []
    for _ in range(TYPING_ROUNDS):
        with_panel.append(_typed(lab, names, panel=True))
        with without_panel():
            bare.append(_typed(lab, names, panel=False))
    return with_panel, bare


def _typed(lab: Site, names: list[str], *, panel: bool) -> float:
    page = lab.page
    lab.load()
    page.evaluate(
        """async ([names, first]) => {
            const commands = window.jupyterapp.commands;
            for (const name of names) {
                const opened = await commands.execute('docmanager:open', {path: name});
                await opened.context.ready;
                await opened.sessionContext.ready;
                void commands.execute('notebook:run-all-cells');  // without an end
            }
            const opened = await commands.execute('docmanager:open', {path: first});
            await opened.context.ready;
        }""",
        [names, "typing.ipynb"],
    )
    if panel:
        lab.open_panel()
    page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .cm-content").first.click()
    page.evaluate(_MEASURE_KEYS)
    for number in range(KEYS):
        page.keyboard.press("abcdefgh"[number % 8])
        page.wait_for_timeout(40)
    taken = sorted(page.evaluate("window.gpudevKeys"))
    page.evaluate("window.jupyterapp.serviceManager.kernels.shutdownAll()")
    return float(taken[int(len(taken) * 0.99) - 1])


def _notebook(source: str) -> dict[str, object]:
    cell = {"id": "a", "cell_type": "code", "source": source, "metadata": {}, "outputs": []}
    kernel = {"name": "python3", "display_name": "Python 3"}
    content = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": kernel},
        "cells": [{**cell, "execution_count": None}],
    }
    return {"type": "notebook", "format": "json", "content": json.loads(json.dumps(content))}


def verdict(value: float, low: float, high: float, goal: float, width: float) -> str:
    if high - low > width:
        return "cannot say"
    return "met" if value <= goal else "missed"


def main() -> int:
    work = Path(tempfile.mkdtemp(prefix="gpudev-p12-"))
    with site(work) as (lab, has_peer):
        lab.load()
        requests, size = lab.bytes_of_load()
        print(f"load: {requests} requests, {size} bytes over the wire for the panel's own files")
        script = statistics.median(lab.script_time() for _ in range(5))
        print(f"load: {script:.1f} ms of the main thread in the panel's scripts (profile, median)")
        added, low, high = interval(loads(lab), statistics.median)
        print(f"load: {added:+.0f} ms, 95% interval {low:+.0f} to {high:+.0f}, {PAIRS} pairs")

        lab.load()
        lab.open_panel()
        visible = lab.requests(COUNTING, hidden=False) * 60 / COUNTING
        lab.load()
        lab.page.wait_for_selector("#gpudev-status button")
        hidden = lab.requests(COUNTING, hidden=True)
        print(f"requests: {visible:.1f} a minute with the panel open, {hidden} in a hidden page")

        ours = lab.server_cpu("gpudev/lease", CALLS)
        print(f"CPU: {ours:.2f} ms for one look at the lease; figures of GPUs are simulated here")
        ratio = float("nan")
        if has_peer:
            theirs = lab.server_cpu(PEER_PATH, CALLS)
            ratio = ours * visible / (theirs * PEER_PER_MINUTE)
            print(f"CPU: {theirs:.2f} ms for one look of {PEER}, {PEER_PER_MINUTE} a minute")

        with_panel, bare = typing(lab)
        ratios = [a / b for a, b in zip(with_panel, bare, strict=True)]
        typed, typed_low, typed_high = interval(ratios, statistics.median)
        print(
            f"typing beside {KERNELS} busy kernels: p99 {statistics.median(with_panel):.0f} ms,"
            f" without the panel {statistics.median(bare):.0f} ms, ratio {typed:.2f}"
            f" ({typed_low:.2f} to {typed_high:.2f})"
        )
    results = {
        "bytes": "met" if size <= GOAL_BYTES else "missed",
        "load": verdict(added, low, high, GOAL_LOAD_MS, GOAL_LOAD_MS),
        "requests": "met" if visible <= GOAL_VISIBLE and hidden == 0 else "missed",
        "cpu": "not measured" if not has_peer else "met" if ratio <= GOAL_CPU else "missed",
        "typing": verdict(typed, typed_low, typed_high, GOAL_TYPING, 2 * (GOAL_TYPING - 1)),
    }
    all_in_all = (
        "missed"
        if "missed" in results.values()
        else ("missed (within, in this size)" if SMALL else "met")
        if set(results.values()) == {"met"}
        else "met where it can be said"
    )
    told = ", ".join(f"{name} {result}" for name, result in results.items())
    print(
        f"P12 bytes={size / 1000:.1f}KB load={added:+.0f}ms visible={visible:.1f}/min"
        f" hidden={hidden} cpu={ratio:.3f}x typing={typed:.2f}x"
        f" goal 60KB,50ms,2/min,0,0.1x,1.02x {all_in_all} ({told})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
