"""The command's verbs around SSH, as a person runs them."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

import pytest

from .site import HOST, ID, Person, Site

pytestmark = [pytest.mark.ssh, pytest.mark.timeout(240)]


@pytest.fixture
def key(ada: Person) -> list[str]:
    """What makes `ssh` use ada's key and no other."""
    return ["-o", f"IdentityFile={ada.key}", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]


def test_connect_runs_a_command(ada: Person, key: list[str]) -> None:
    done = ada.gpudev("connect", ID[:6], "--", *key, "cat; exit 3", stdin=b"through")
    assert (done.returncode, done.stdout) == (3, b"through")


def test_connect_without_an_id_takes_the_only_one(ada: Person, key: list[str]) -> None:
    assert ada.gpudev("connect", "--", *key, "echo here").stdout == b"here\n"


def test_connect_says_in_json_where_it_is(ada: Person, site: Site) -> None:
    told = json.loads(ada.gpudev("connect", "--json").stdout)
    assert told == {"id": ID, "url": f"{site.url}/user/ada/{ID}/", "ssh_host": HOST}


def test_the_configuration_is_all_that_ssh_needs(
    ada: Person, key: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "config"
    file.write_text(f"Host *\n  IdentityFile {ada.key}\n  IdentitiesOnly yes\n  BatchMode yes\n")
    before = file.read_bytes()
    assert b"includes" in ada.gpudev("ssh-config", "--file", str(file)).stdout
    text = (ada.folder / "ssh" / "config").read_text()
    assert ada.token not in text
    assert f"User {getpass.getuser()}" in text
    done = ada.run("ssh", "-F", str(file), HOST, "echo $HOME; exit 4")
    assert (done.returncode, done.stdout.decode()) == (4, f"{ada.site.disk}\n")
    assert b"as it was" in ada.gpudev("ssh-config", "--remove", "--file", str(file)).stdout
    assert file.read_bytes() == before


def test_another_account_than_the_configuration_says(ada: Person, tmp_path: Path) -> None:
    done = ada.run(
        "ssh", *ada.options(fdpass=False)[:2],
        "-o", ada.options(fdpass=False)[3].replace(" --config", " --login someone --config"),
        HOST, "true",
    )  # fmt: skip
    assert done.returncode == 255
    assert b"Run `gpu-dev ssh-config`" in done.stderr


@pytest.mark.parametrize(("flags", "scheme"), [([], "vscode"), (["--cursor"], "cursor")])
def test_the_link_of_an_editor(ada: Person, flags: list[str], scheme: str) -> None:
    done = ada.gpudev("vscode", ID, "--print", *flags)
    link = f"{scheme}://vscode-remote/ssh-remote+{HOST}{ada.site.disk}"
    assert done.stdout.decode().strip() == link
    assert b"gpu-dev ssh-config" in done.stderr


def test_proxy_is_the_same_command(ada: Person) -> None:
    done = ada.gpudev("proxy", "gpudev-not one")
    assert done.returncode == 1
    assert b"is no host of gpudev" in done.stderr
