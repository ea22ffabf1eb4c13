"""A server that lacks something for a while: files, processes, the service."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from gpudev_lab.sshd import endpoint, proxied
from gpudev_lab.sshd.endpoint import Host

from .child import Service
from .site import ID, Site

pytestmark = [pytest.mark.ssh, pytest.mark.timeout(240)]


async def test_the_raw_socket_outlives_what_the_server_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "own" / "socket"
    place.parent.mkdir()
    monkeypatch.setattr(proxied, "socket_path", lambda: place)
    monkeypatch.setattr(proxied, "_PAUSE", 0.01)
    service = Service()
    service.set({"people": {}})
    host = Host(service, tmp_path, tls=False)
    await host.ensure()
    assert host.sessions._daemon is not None
    folder, aside = host.sessions._daemon.folder, tmp_path / "aside"
    proxied.serve(host)

    async def said() -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(place))
        try:
            return await reader.read(4)
        finally:
            writer.close()
            await writer.wait_closed()

    # The keys cannot be written.
    shutil.move(folder, aside)
    assert [await said(), await said()] == [b"", b""]
    shutil.move(aside, folder)
    assert await said() == b"SSH-"
    await host.close()


async def test_the_service_is_told_once_why_there_is_no_ssh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "PAUSE", 0.01)
    service = Service()
    service.set({"people": {}})
    host = Host(service, tmp_path, tls=False)
    with monkeypatch.context() as there:
        # As a container that runs as a number of the operator's choice.
        there.setattr(os, "geteuid", lambda: 54_321)
        host.changed()
        await service.wait_for_reports(1)
        assert service.report is not None
        assert "54321, which has no name" in (service.report.unavailable or "")
    await service.wait_for_reports(2)
    # Nothing has been repeated in between, and what has come right is told too.
    assert service.report.unavailable is None
    assert service.report.host_keys
    await host.close()


def test_a_server_without_ssh_is_refused_at_once(
    fresh_site: Callable[[], Site], tmp_path: Path
) -> None:
    site = fresh_site()
    ada = site.person("ada")
    site.admit(ada)
    why = "This server cannot be reached by SSH: setpriv is not installed in this server."
    site.control(refusal={"status": 409, "code": "no_ssh", "message": why}, refusals_left=-1)
    for done in (
        ada.ssh("true"),
        ada.gpudev("connect", ID),
        ada.gpudev("submit", "--on", ID, str(tmp_path), "--", "true", SSH_AUTH_SOCK="agent"),
    ):
        assert done.returncode != 0
        assert why.encode() in done.stderr
        assert b"Waiting" not in done.stderr


def test_what_fails_after_the_upgrade_ends_the_connection(
    fresh_site: Callable[[], Site], tmp_path: Path
) -> None:
    site = fresh_site()
    ada = site.person("ada")
    site.admit(ada)
    assert ada.ssh("echo in").stdout == b"in\n"
    site.until(lambda: not site.state()["sessions"], "the session has ended")
    pid = site.processes["server"].pid
    [config] = Path(tempfile.gettempdir()).glob(f"gpudev-ssh-{pid}-*/sshd_config")
    server, folder = psutil.Process(pid), config.parent
    shutil.move(folder, tmp_path / "aside")
    before = server.num_fds()
    for _ in range(3):
        failed = ada.ssh("true", fdpass=False)
        assert failed.returncode == 255
        assert failed.stderr.count(b"gpu-dev: ") == 1
    assert server.num_fds() <= before + 2
    assert "Traceback" not in site.log()
    shutil.move(tmp_path / "aside", folder)
    assert ada.ssh("echo again").stdout == b"again\n"


def test_the_host_key_is_published_when_the_service_is_back() -> None:
    """Without any news in between."""
    site = Site()
    try:
        site.start_proxy()
        site.start_server(SSH_TEST_UNREACHABLE="2")
        site.control(people={})
        site.until(lambda: site.state()["published"], "the host key is published")
        assert site.log().count("could not be published") == 1
    finally:
        site.remove()
