"""Collaborators and SSH keys by the command, and by the SDK, against a whole service."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gpudev_client import AsyncClient, GpuDev, InvalidInput, NotFound
from gpudev_client.sdk import AsyncReservationHandle, ReservationHandle

from .conftest import Run
from .running import Running
from .test_verbs import ok, read, refused

pytestmark = pytest.mark.timeout(60)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHE7456cV84hOsKI4dUVCCKoH+IiQ5BPbuHX+u6c51dl"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_inviting_and_what_both_see(service: Running, gpudev: Run) -> None:
    key = read(gpudev("reserve", "-t", "t4", "-h", "1", "-n", "ours", "--json"))["id"]
    assert "USER" not in ok(gpudev("list"))
    said = ok(gpudev("edit", "--add-user", "grace", "--add-user", "linus"))
    assert "grace may use the server until the lease's end." in said
    changed = read(gpudev("edit", "--add-user", "linus", "--role", "view", "--json"))
    assert [(c["user"], c["role"]) for c in changed["collaborators"]] == [
        ("grace", "use"),
        ("linus", "view"),
    ]
    assert "grace, linus (view)" in ok(gpudev("list"))
    hers = ok(gpudev("list", user="grace"))
    assert "ours" in hers
    assert "ada" in hers
    assert "grace, linus (view)" in ok(gpudev("show", user="grace"))
    assert read(gpudev("list", "--json", user="grace"))[0]["id"] == key
    assert "grace is not invited any more." in ok(gpudev("edit", "--remove-user", "grace"))
    assert "No reservations" in ok(gpudev("list", user="grace"))
    assert "linus is not invited" in ok(gpudev("edit", "--remove-user", "linus", user="linus"))
    assert "ada removed grace." in ok(gpudev("show"))


def test_an_invitation_with_an_end(service: Running, gpudev: Run) -> None:
    ok(gpudev("reserve", "-t", "t4", "-h", "1"))
    end = "2026-03-01T12:30+00:00"
    said = ok(gpudev("edit", "--add-user", "grace", "--until", end))
    assert "grace may use the server until 12:30." in said
    assert "grace (until 12:30)" in ok(gpudev("list"))
    late = refused(gpudev("edit", "--add-user", "linus", "--until", "2026-03-01T14:00+00:00"))
    assert "not after the lease" in late
    assert "is not a time" in refused(gpudev("edit", "--add-user", "x", "--until", "soon"), 2)


def test_what_a_collaborator_may_not_do(service: Running, gpudev: Run) -> None:
    key = read(gpudev("reserve", "-t", "t4", "-h", "1", "--json"))["id"]
    ok(gpudev("edit", "--add-user", "grace"))
    for arguments in (
        ("edit", key, "--extend", "1"),
        ("edit", key, "--add-user", "linus"),
        ("edit", key, "--remove-user", "ada"),
        ("cancel", key, "--yes"),
    ):
        assert "Only the owner" in refused(gpudev(*arguments, user="grace"))
    assert "no live reservation" in refused(gpudev("cancel", "--yes", user="grace"))
    assert "no live reservation" in ok(gpudev("cancel", "--all", "--yes", user="grace"))
    assert read(gpudev("show", key, "--json"))["state"] == "active"


def test_who_is_unknown_and_what_says_too_little(service: Running, gpudev: Run) -> None:
    ok(gpudev("reserve", "-t", "t4", "-h", "1"))
    assert "The Hub has no user of that name" in refused(gpudev("edit", "--add-user", "nobody"))
    assert "name somebody" in refused(gpudev("edit", "--role", "view"), 2)
    assert "theirs already" in refused(gpudev("edit", "--add-user", "ada"))


def test_keys_from_a_file_and_from_standard_input(
    service: Running, gpudev: Run, tmp_path: Path
) -> None:
    assert "No SSH keys" in ok(gpudev("ssh-keys", "list"))
    file = tmp_path / "keys.pub"
    file.write_text(f"# mine\n\n{KEY} laptop\n")
    assert "(laptop) opens your servers now" in ok(gpudev("ssh-keys", "add", str(file)))
    assert "opens your servers now" in ok(gpudev("ssh-keys", "add", "-", text=f"{OTHER}\n"))
    keys = read(gpudev("ssh-keys", "list", "--json"))
    assert {key["key"] for key in keys} == {KEY, OTHER}
    assert "laptop" in ok(gpudev("ssh-keys", "list"))
    again = read(gpudev("ssh-keys", "add", "-", "--json", text=f"{KEY} desk\n"))
    assert sorted(key["comment"] for key in again) == ["", "desk"]
    assert "1 key left" in ok(gpudev("ssh-keys", "remove", "desk", "--yes"))
    print_ = keys[0]["fingerprint"] if keys[0]["key"] == OTHER else keys[1]["fingerprint"]
    assert "no keys left" in ok(gpudev("ssh-keys", "remove", print_, "--yes"))
    assert "no SSH key 'desk'" in refused(gpudev("ssh-keys", "remove", "desk", "--yes"))
    assert ok(gpudev("ssh-keys", "list", user="grace")) == ok(gpudev("ssh-keys", "list"))


def test_the_key_of_this_account(gpudev: Run, home: Path) -> None:
    assert "ssh-keygen -t ed25519" in refused(gpudev("ssh-keys", "add", "--yes"))
    (home / ".ssh" / "id_ed25519.pub").write_text(f"{KEY} ada@laptop\n")
    assert "no terminal to ask on" in refused(gpudev("ssh-keys", "add"), 2)
    assert "(ada@laptop) opens" in ok(gpudev("ssh-keys", "add", "--yes"))
    (home / ".ssh" / "id_rsa.pub").write_text(f"{OTHER}\n")
    assert "~/.ssh/id_ed25519.pub, ~/.ssh/id_rsa.pub" in refused(gpudev("ssh-keys", "add", "--yes"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f'command="id" {KEY}', "options before the key are not accepted"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\n", "This is a private key"),
        ("", "no key in that"),
    ],
)
def test_what_is_no_key(gpudev: Run, tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    said = refused(gpudev("ssh-keys", "add", str(file)))
    assert why in said
    assert "b3Blbn" not in said
    assert "cannot be read" in refused(gpudev("ssh-keys", "add", str(tmp_path / "missing")))


def test_the_sdk(service: Running) -> None:
    made = service.reserve("ada", "t4")
    client = service.client("ada")
    handle = ReservationHandle(client, client.reservation(made))
    until = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    assert [c.user for c in handle.add_user("grace").collaborators] == ["grace"]
    assert handle.add_user("grace", "view", until).collaborators[0].until == until
    assert handle.remove_user("grace").collaborators == []
    with pytest.raises(InvalidInput, match="no user of that name"):
        handle.add_user("nobody")
    client.close()
    with GpuDev(service.url, service.token("ada")) as gpudev:
        assert [key.key for key in gpudev.add_ssh_key(f"{KEY} laptop")] == [KEY]
        with pytest.raises(InvalidInput, match="Key 1 cannot be used"):
            gpudev.add_ssh_key("ssh-ed25519 nonsense")
        assert [key.comment for key in gpudev.ssh_keys()] == ["laptop"]
        assert gpudev.remove_ssh_key("laptop") == []
        with pytest.raises(NotFound):
            gpudev.remove_ssh_key("laptop")


def test_the_sdk_for_asyncio(service: Running) -> None:
    made = service.reserve("ada", "t4")

    async def run() -> list[Any]:
        client = AsyncClient(service.url, service.token("ada"))
        handle = AsyncReservationHandle(client, await client.reservation(made))
        invited = (await handle.add_user("grace")).collaborators
        left = (await handle.remove_user("grace")).collaborators
        keys = await client.add_ssh_keys([KEY])
        await client.close()
        return [[c.user for c in invited], left, [key.key for key in keys.items]]

    assert asyncio.run(run()) == [["grace"], [], [KEY]]
