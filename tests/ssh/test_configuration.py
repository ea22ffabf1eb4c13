"""What `gpu-dev ssh-config` writes, read by the real `ssh`; and what it leaves alone."""

from __future__ import annotations

import getpass
import re
import subprocess
from pathlib import Path

import pytest

from gpudev_client.ssh import config as ssh
from gpudev_client.ssh.config import EXCLUDED, Setup

pytestmark = pytest.mark.ssh

HOST = "gpudev-abcd0123456789ef"


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    folder = tmp_path / "gpu dev 100%"
    folder.mkdir()
    return Setup(folder / "config.json", "https://hub.example.org/services/gpudev", "jovyan")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home" / "config"


def effective(file: Path, host: str) -> dict[str, str]:
    """What `ssh` would do for a host."""
    told = subprocess.run(
        ["ssh", "-G", "-F", str(file), "--", host], capture_output=True, text=True, check=True
    )
    return dict(line.split(" ", 1) for line in told.stdout.splitlines() if " " in line)


def test_ssh_reads_what_was_written(setup: Setup, file: Path) -> None:
    assert ssh.install(setup, file)
    found = effective(file, HOST)
    assert found["user"] == "jovyan"
    assert found["stricthostkeychecking"] in ("yes", "true")
    assert found["userknownhostsfile"].strip('"').startswith(f"{setup.folder}/known_hosts.d/")
    assert found["forwardagent"] == "no"
    assert found["proxyusefdpass"] == "no"
    assert f"'{HOST}'" in found["proxycommand"].replace("%n", HOST)
    assert "proxycommand" not in effective(file, "example.org")


def test_the_cheapest_cipher_comes_first_and_no_other_is_lost(setup: Setup, file: Path) -> None:
    ssh.install(setup, file)
    usual = effective(file, "example.org")["ciphers"].split(",")
    found = effective(file, HOST)["ciphers"].split(",")
    assert found[0] == "aes128-gcm@openssh.com"
    assert sorted(found) == sorted(usual)


def test_without_tls_the_socket_is_passed_on(setup: Setup, file: Path) -> None:
    plain = Setup(setup.file, "http://127.0.0.1:8000/services/gpudev", None)
    ssh.install(plain, file)
    found = effective(file, HOST)
    assert found["proxyusefdpass"] == "yes"
    assert found["user"] == getpass.getuser()
    assert "--fdpass" in found["proxycommand"]


@pytest.mark.parametrize("character", EXCLUDED)
def test_a_name_with_a_shells_character_is_not_ours(
    setup: Setup, file: Path, character: str
) -> None:
    ssh.install(setup, file)
    told = subprocess.run(
        ["ssh", "-G", "-F", str(file), "--", f"gpudev-ab{character}cd"],
        capture_output=True,
        text=True,
        check=False,
    )
    # This ssh refuses some of them by itself; older ones do not.
    assert "proxycommand" not in told.stdout


def test_nothing_of_the_persons_own_configuration_reaches_the_command(setup: Setup) -> None:
    """`%n` is what was typed, and fits the pattern; `%h` and `%r` may be anything. This ssh refuses
    most of that by itself; older ones do not."""
    for line in ssh.block(setup).splitlines()[2:]:
        assert set(re.findall(r"%(.)", line)) <= {"n", "%"}, line


def test_no_hostile_name_reaches_a_shell(setup: Setup, file: Path, tmp_path: Path) -> None:
    ssh.install(setup, file)
    touched = tmp_path / "touched"
    for hostile in (
        "$(touch X)",
        "`touch X`",
        ";touch X;",
        "'&&touch X&&'",
        "|touch X",
        "\ntouch X\n",
    ):
        name = f"gpudev-{hostile.replace('X', str(touched))}"
        subprocess.run(
            ["ssh", "-F", str(file), "-o", "BatchMode=yes", "-o", f"HostName={name}", "--", HOST],
            capture_output=True,
            timeout=60,
            check=False,
        )
        subprocess.run(
            ["ssh", "-F", str(file), "-o", "BatchMode=yes", "--", name],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert not touched.exists(), hostile


def test_nothing_else_of_the_file_is_touched(setup: Setup, file: Path) -> None:
    before = b"# mine\r\nHost a\n  User me\n\n\nHost *\n  ForwardAgent yes"
    file.write_bytes(before)
    file.chmod(0o644)
    assert ssh.install(setup, file)
    assert not ssh.install(setup, file)
    assert file.read_bytes() == ssh.include_line(setup).encode() + b"\n" + before
    assert file.stat().st_mode & 0o777 == 0o644
    assert file.with_name("config.before-gpudev").read_bytes() == before
    assert effective(file, HOST)["forwardagent"] == "no"
    assert ssh.remove(setup, file)
    assert not ssh.remove(setup, file)
    assert file.read_bytes() == before
    assert not setup.config.exists()
    assert [one.name for one in file.parent.iterdir()] == ["config"]


def test_removing_keeps_what_was_there_before_us(setup: Setup, file: Path) -> None:
    backup = file.with_name("config.before-gpudev")
    file.write_text("Host a\n")
    ssh.install(setup, file)
    file.write_text(file.read_text() + "Host b\n")
    assert ssh.remove(setup, file)
    assert file.read_text() == "Host a\nHost b\n"
    assert backup.read_text() == "Host a\n"


def test_a_line_that_holds_for_one_host_only_is_no_include(setup: Setup, file: Path) -> None:
    file.write_text(f"Host a\n{ssh.include_line(setup)}\n")
    assert ssh.install(setup, file)
    assert file.read_text() == f"{ssh.include_line(setup)}\nHost a\n"


def test_a_file_that_is_a_link_stays_one(setup: Setup, file: Path) -> None:
    real = file.with_name("dotfiles")
    real.write_text("Host a\n")
    file.symlink_to(real)
    ssh.install(setup, file)
    assert file.is_symlink()
    assert real.read_text().startswith("Include")


def test_a_file_that_held_nothing_else_is_gone_again(setup: Setup, file: Path) -> None:
    ssh.install(setup, file)
    assert file.stat().st_mode & 0o777 == 0o600
    ssh.remove(setup, file)
    assert not file.exists()


def test_the_account_that_is_known_stays(setup: Setup, file: Path) -> None:
    assert ssh.known_login(setup) is None
    ssh.install(setup, file)
    assert ssh.known_login(setup) == "jovyan"
