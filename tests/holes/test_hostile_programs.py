"""The same names before a real shell, a real `ssh` and a real browser."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpudev_client import limits, remote
from gpudev_client.ssh import config as ssh
from gpudev_client.ssh.config import Setup

from .hostile import SHELL, page_of, sample

if TYPE_CHECKING:
    from playwright.async_api import Browser

SAMPLE = 40


def shell(words: str) -> list[str]:
    """What a shell makes of a line: its words."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\0' {words}"], capture_output=True, text=True, check=True
    )
    return done.stdout.split("\0")[:-1]


def test_a_shell_takes_each_name_for_one_word(tmp_path: Path) -> None:
    hit = tmp_path / "hit"
    for name in sample(1, SAMPLE, str(hit)):
        if "\0" in name or not name.isprintable():
            continue
        folder = tmp_path / name.replace("/", "_")[:100]
        setup = Setup(folder / "config.json", "https://hub.example.org", None)
        # `ssh` makes one percent sign of two before the shell has the line.
        line = setup.proxy_command("gpudev-abcd", None).replace("%%", "%")
        assert shell(line)[-3:] == ["--config", str(setup.file), "gpudev-abcd"]
        assert shell(remote.quoted_command(["x", name])) == ["x", name]
        assert not hit.exists(), name


@pytest.mark.ssh
def test_ssh_brings_no_hostile_name_before_a_shell(tmp_path: Path) -> None:
    hit = tmp_path / "hit"
    program = shutil.which("ssh") or "ssh"
    for name in sample(2, SAMPLE, str(hit)):
        folder = tmp_path / f"x{name.replace('/', '_')[:60]}"
        if not name.isprintable() or '"' in name:
            continue  # a folder of one's own; a line of configuration cannot say it
        setup = Setup(folder / "config.json", "https://hub.example.org", "jovyan")
        folder.mkdir(exist_ok=True)
        file = tmp_path / "config"
        file.write_text(ssh.block(setup))
        good = _told(program, file, f"gpudev-{'a' * 16}")
        assert f"--config {shlex.quote(str(setup.file)).replace('%', '%%')} --login" in good, name
        host = f"gpudev-{name}"
        if limits.is_reservation_id(name):
            continue
        for line in _told(program, file, host).splitlines():
            if line.startswith("proxycommand "):
                # Only what no shell reads anything into; and it is quoted on top of that.
                assert not SHELL & set(name), name
                assert shell(line.partition(" ")[2].replace("%n", host))[-1] == host
        subprocess.run(
            [program, "-F", str(file), "-o", "BatchMode=yes", "-o", f"HostName={host}", "--", host],
            capture_output=True, timeout=60, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert not hit.exists(), name


def _told(program: str, file: Path, host: str) -> str:
    done = subprocess.run(
        [program, "-G", "-F", str(file), "--", host], capture_output=True, text=True, check=False
    )
    return done.stdout


@pytest.mark.browser
async def test_no_name_runs_a_script(browser: Browser) -> None:
    """Without the pages' policy, which would stop a script that did get in."""
    assert await scripts_run(browser, sample(3, SAMPLE, "HIT")) == []
    # The test can fail: the same names unescaped.
    assert await scripts_run(browser, ["<img src=x onerror=HIT()>"], plain=True) != []


async def scripts_run(browser: Browser, names: Sequence[str], *, plain: bool = False) -> list[str]:
    """Which names ran a script in a page that shows them all."""
    context = await browser.new_context()
    page = await context.new_page()
    hits: list[str] = []
    await page.expose_function("HIT", lambda *_: hits.append("ran"))
    await page.set_content(page_of(names, plain=plain), wait_until="load")
    # Handlers of errors run before this; those of the mouse are asked for.
    await page.evaluate(
        "document.querySelectorAll('*').forEach(e => e.dispatchEvent(new Event('mouseover')))"
    )
    await page.evaluate("new Promise(done => setTimeout(done, 0))")
    more = await page.evaluate("document.querySelectorAll('script, img, [onerror]').length")
    await context.close()
    return hits + [f"{more} elements"] * bool(more)
