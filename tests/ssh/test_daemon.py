"""What sshd is started with, the host key, and who may come in."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gpudev_client import models
from gpudev_lab.sshd import daemon, hostkey, places, who
from tests.client.models import NOW, reservation

pytestmark = pytest.mark.ssh

NASTY = {
    "SPACES": " a  b ",
    "QUOTES": 'it\'s "quoted"',
    "BACKSLASH": 'a\\b\\"c\\',
    "HASH": "#not a comment",
    "EMPTY": "",
    "EQUALS": "a=b=c",
    "DOLLAR": "$HOME `id` $(id)",
    "UNICODE": "übung",
}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[daemon.Daemon]:
    """sshd's configuration with an environment that is hard to write down."""
    key = hostkey.ensure(tmp_path, "a disk")
    environment = {
        **NASTY,
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "LINES_END": "a\nPermitRootLogin yes",
        "SSH_AUTH_SOCK": "/nowhere",
        "TERM": "mine",
    }
    one = daemon.Daemon(environment, key.path)
    yield one
    one.close()


def test_sshd_takes_the_configuration(made: daemon.Daemon) -> None:
    config = made.folder / "sshd_config"
    told = subprocess.run(
        [made._sshd, "-T", "-f", str(config)], capture_output=True, text=True, check=True
    )
    found = [line for line in told.stdout.splitlines() if line.startswith("setenv")]
    assert "passwordauthentication no" in told.stdout
    assert "kbdinteractiveauthentication no" in told.stdout
    assert "gatewayports no" in told.stdout
    assert "permitrootlogin without-password" in told.stdout
    # `-T` shows them one after the other, without their quotes.
    assert [f"setenv {name}={value}" for name, value in sorted(NASTY.items())] == [
        line for line in found if line.split("=")[0].removeprefix("setenv ") in NASTY
    ]
    assert "LINES_END" not in told.stdout
    assert "nowhere" not in told.stdout


def test_nobody_else_can_read_what_it_is_started_with(made: daemon.Daemon) -> None:
    keys = made.keys("one", {"ada": ["ssh-ed25519 AAAA comment"]})
    assert made.folder.stat().st_mode & 0o777 == 0o700
    for file in (keys, made.folder / "sshd_config"):
        assert file.stat().st_mode & 0o777 == 0o600
    assert not any("SPACES" in word or "AAAA" in word for word in made.command(keys))


def test_what_a_killed_server_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    left = tmp_path / f"gpudev-ssh-{ended.stdout.strip()}-abc"
    others = [tmp_path / f"gpudev-ssh-{os.getpid()}-abc", tmp_path / "gpudev-ssh-site-abc"]
    for one in (left, *others):
        one.mkdir()
    made = places.make()
    assert made.stat().st_mode & 0o777 == 0o700
    assert not left.exists()
    assert all(one.exists() for one in others)


def test_a_user_name_cannot_leave_its_place() -> None:
    hostile = 'bob",command="id" '
    text = daemon.authorized({hostile: ["ssh-ed25519 AAAA who?"]})
    key = daemon.key_mark(hostile, who.fingerprint("ssh-ed25519 AAAA"))
    marks = (
        f'environment="GPUDEV_SSH_WHO={daemon.mark(hostile)}",environment="GPUDEV_SSH_KEY={key}"'
    )
    assert text == f"{marks} ssh-ed25519 AAAA\n"


def test_the_host_key_stays_with_its_disk(tmp_path: Path) -> None:
    first = hostkey.ensure(tmp_path, "a disk")
    assert first.public.startswith("ssh-ed25519 ")
    assert first.path.stat().st_mode & 0o777 == 0o600
    assert hostkey.ensure(tmp_path, "a disk") == first
    # A clone has all files of the disk, the key among them.
    clone = hostkey.ensure(tmp_path, "another disk")
    assert clone.public != first.public
    assert hostkey.ensure(tmp_path, "another disk") == clone


def test_a_host_key_that_others_could_read_is_made_anew(tmp_path: Path) -> None:
    first = hostkey.ensure(tmp_path, "a disk")
    first.path.chmod(0o644)
    assert hostkey.ensure(tmp_path, "a disk").public != first.public


def test_a_host_key_that_is_a_link_is_not_taken(tmp_path: Path) -> None:
    first = hostkey.ensure(tmp_path, "a disk")
    elsewhere = tmp_path / "elsewhere"
    first.path.rename(elsewhere)
    first.path.symlink_to(elsewhere)
    assert hostkey.ensure(tmp_path, "a disk").public != first.public


def test_a_disk_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / ".gpudev").write_text("a file where a folder belongs")
    with pytest.raises(hostkey.HostKeyError):
        hostkey.ensure(tmp_path, "a disk")


def view(*access: models.LabAccess, disk: models.Disk | None = None) -> models.LabView:
    closing = models.ClosingTimes(hook_seconds=1, save_seconds=1, early_seconds=1)
    return models.LabView(
        reservation=reservation(), access=list(access), disk=disk, snapshots=[], closing=closing
    )


def access(user: str, *, role: models.Role = "use", **values: object) -> models.LabAccess:
    fields = {"keys": ["ssh-ed25519 AAAA"], "until": None, "owner": False, **values}
    return models.LabAccess.model_validate({"user": user, "role": role, **fields})


def test_who_may_come_in() -> None:
    seen = view(
        access("ada", owner=True),
        access("bob", until=NOW + timedelta(minutes=1)),
        access("late", until=NOW),
        access("viewer", role="view"),
    )
    assert set(who.people(seen, NOW)) == {"ada", "bob"}
    assert who.next_end(seen, NOW) == NOW + timedelta(minutes=1)


def test_a_disk_is_told_by_when_it_was_made() -> None:
    one = models.Disk(name="a", user="ada", created_at=NOW)
    renamed = one.model_copy(update={"name": "b"})
    clone = one.model_copy(update={"created_at": datetime.now(UTC)})
    assert who.disk(view(disk=one)) == who.disk(view(disk=renamed))
    assert who.disk(view(disk=one)) != who.disk(view(disk=clone))
    assert reservation().id in who.disk(view())


def test_fingerprints_are_those_of_openssh(tmp_path: Path) -> None:
    key = hostkey.ensure(tmp_path, "x")
    told = subprocess.run(
        ["ssh-keygen", "-l", "-f", f"{key.path}.pub"], capture_output=True, text=True, check=True
    )
    assert who.fingerprint(key.public) == told.stdout.split()[1]
    assert who.fingerprint("no key") == ""
    assert who.fingerprint("") == ""
