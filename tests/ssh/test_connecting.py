"""Coming in: shells, commands, files, forwards, by every way over the WebSocket."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest

from gpudev_client import Client
from gpudev_client.ssh import config, frames
from gpudev_client.ssh.wire import Address, Connection
from tests.tiers import ROOT

from .laptop import GPUDEV
from .middlebox import behind
from .site import HOST, ID, Person, Site, TlsSite

pytestmark = [pytest.mark.ssh, pytest.mark.timeout(240)]

WAYS = [
    pytest.param({"fdpass": True}, id="socket-passed"),
    pytest.param({"fdpass": False}, id="relayed"),
    pytest.param({"fdpass": True, "frames": True}, id="frames-behind"),
    pytest.param({"fdpass": False, "frames": True}, id="frames"),
]


@pytest.mark.parametrize("way", WAYS)
def test_a_command_its_output_and_its_exit_code(ada: Person, way: dict[str, Any]) -> None:
    done = ada.ssh("cat; echo error >&2; exit 7", stdin=b"in\0put", **way)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"in\0put", b"error\n")


@pytest.mark.parametrize("way", WAYS)
def test_every_byte_of_a_lot_each_way(ada: Person, way: dict[str, Any]) -> None:
    data = bytes(range(256)) * 40_000
    done = ada.ssh("cat", stdin=data, **way)
    assert done.stdout == data


def test_a_session_is_where_the_server_is(ada: Person, site: Site) -> None:
    done = ada.ssh("pwd; echo $HOME $GPUDEV_RESERVATION $CUDA_VISIBLE_DEVICES; which python")
    home, rest, python = done.stdout.decode().splitlines()
    assert home == str(site.disk)
    assert rest == f"{site.disk} {ID} 0,1"
    assert python.startswith("/")


def test_a_beginning_of_the_id_is_enough(ada: Person) -> None:
    assert ada.ssh("echo in", host=HOST[:12]).stdout == b"in\n"
    refused = ada.ssh("echo in", host="gpudev-zzzz")
    assert b"no live reservation" in refused.stderr


def test_who_has_no_key_there_does_not_come_in(site: Site, ada: Person) -> None:
    other = site.person("other")
    site.control(people={"ada": ada.entry, "other": {**other.entry, "keys": [ada.public_key]}})
    done = other.ssh("true")
    assert done.returncode == 255
    assert b"Permission denied (publickey)" in done.stderr


def test_a_server_with_another_host_key_is_refused(site: Site, ada: Person) -> None:
    """By ssh itself, with the configuration that `gpu-dev ssh-config` writes."""
    file = ada.folder / "ssh-config"
    config.install(config.Setup(ada.config, site.service), file)

    def connect() -> subprocess.CompletedProcess[bytes]:
        options = ("-v", "-o", "BatchMode=yes", "-i", str(ada.key), "-o", "IdentitiesOnly=yes")
        return ada.run("ssh", "-F", str(file), *options, HOST, f"echo in; touch {reached}")

    reached = site.disk / "reached"
    came = connect()
    assert came.stdout == b"in\n"
    assert b"cipher: aes128-gcm@openssh.com" in came.stderr
    reached.unlink()
    site.control(host_keys=[ada.new_key(ada.folder / "another")])
    try:
        refused = connect()
        assert (refused.returncode, refused.stdout) == (255, b"")
        assert b"REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr
        assert b"Host key verification failed." in refused.stderr
        assert not reached.exists()
    finally:
        site.control(host_keys=None)
    assert connect().stdout == b"in\n"


@pytest.fixture(scope="module", params=["at-the-proxy", "also-inside"])
def secure(request: pytest.FixtureRequest) -> Iterator[Person]:
    """The owner of a server behind TLS; with `also-inside` its own socket is TLS as well."""
    site = TlsSite(inside=request.param == "also-inside")
    try:
        site.start()
        ada = site.person("ada")
        site.admit(ada)
        yield ada
    finally:
        site.remove()


@pytest.mark.parametrize("way", WAYS)
def test_every_byte_with_tls(secure: Person, way: dict[str, Any]) -> None:
    data = bytes(range(256)) * 20_000
    done = secure.ssh("cat; exit 8", stdin=data, **way)
    assert (done.returncode, done.stderr) == (8, b"")
    assert done.stdout == data


def test_a_certificate_that_nobody_trusts_is_said(secure: Person) -> None:
    done = secure.run("env", "-u", "SSL_CERT_FILE", *secure.command(HOST, "true"))
    assert done.returncode == 255
    assert b"is not trusted" in done.stderr


def test_the_command_and_ssh_trust_the_same(secure: Person, tmp_path: Path) -> None:
    certificate = Path(secure.extra["SSL_CERT_FILE"])
    shutil.copy(certificate, tmp_path / "our.pem")
    subprocess.run(["openssl", "rehash", str(tmp_path)], check=True)
    for named in ({"SSL_CERT_FILE": str(certificate)}, {"SSL_CERT_DIR": str(tmp_path)}, {}):
        found = {"GPUDEV_CONFIG": str(secure.config), "PYTHONPATH": str(ROOT), **named}
        own = ["env", "-u", "SSL_CERT_FILE", *(f"{name}={value}" for name, value in found.items())]
        listed = secure.run(*own, *GPUDEV, "list")
        entered = secure.run(*own, *secure.command(HOST, "true"))
        assert (listed.returncode == 0) == (entered.returncode == 0) == bool(named), listed.stderr


def test_a_python_without_certificates_takes_those_of_certifi(
    secure: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = secure.extra["SSL_CERT_FILE"]
    nowhere = ssl.get_default_verify_paths()._replace(cafile="", capath="")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nowhere)
    monkeypatch.setattr(certifi, "where", lambda: certificate)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    Connection(Address(secure.site.service)).close()
    with Client(secure.site.service, secure.token) as client:
        assert [one.id for one in client.reservations()] == [ID]


@pytest.mark.parametrize("how", ["holds", "closes", "resets", "words"])
def test_what_does_not_let_endless_frames_through_lets_others(how: str) -> None:
    with behind(how, frames.RAW) as site:
        ada = site.person("ada")
        site.admit(ada)
        for fdpass in (True, False):
            done = ada.ssh("cat; exit 7", stdin=b"in", fdpass=fdpass)
            assert (done.returncode, done.stdout, done.stderr) == (7, b"in", b"")
        assert site.middlebox.done == 2


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_what_lets_no_websocket_through_is_said_in_one_line(how: str) -> None:
    with behind(how, "gpudev.ssh.") as site:
        ada = site.person("ada")
        site.admit(ada)
        for fdpass in (True, False):
            done = ada.ssh("true", fdpass=fdpass)
            assert done.returncode == 255
            assert b"Traceback" not in done.stderr
            [ours] = [line for line in done.stderr.splitlines() if line.startswith(b"gpu-dev: ")]
            assert b"WebSocket" in ours
