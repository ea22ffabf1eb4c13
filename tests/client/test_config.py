"""Addresses as people write them, whose token goes where, and a file that only its owner reads."""

from __future__ import annotations

import stat
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev_client import config
from gpudev_client.config import Stored, hub_url, resolve, service_url
from gpudev_client.errors import ConfigError

HUB = "https://hub.example.org/services/gpudev"
OTHER = "https://other.example.org/services/gpudev"


@pytest.mark.parametrize(
    ("given_url", "service"),
    [
        ("https://hub.example.org", HUB),
        ("https://hub.example.org/", HUB),
        ("  hub.example.org \n", HUB),
        ("HTTPS://Hub.Example.ORG:443/hub/home", HUB),
        ("https://hub.example.org/hub/spawn/ada/x?gpu=1#top", HUB),
        ("https://hub.example.org/user/ada/lab", HUB),
        (HUB, HUB),
        (f"{HUB}/", HUB),
        (f"{HUB}/api/v1/reservations?limit=1", HUB),
        ("https://hub.example.org/base/path", "https://hub.example.org/base/path/services/gpudev"),
        ("https://hub.example.org/jupyter/hub/", "https://hub.example.org/jupyter/services/gpudev"),
        ("https://hub.example.org/services/gpus/x", "https://hub.example.org/services/gpus"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000/services/gpudev"),
        ("localhost:8000/hub", "http://localhost:8000/services/gpudev"),
        ("http://127.0.0.1:80", "http://127.0.0.1/services/gpudev"),
        ("http://[::1]:8000", "http://[::1]:8000/services/gpudev"),
        ("hub.example.org:8443", "https://hub.example.org:8443/services/gpudev"),
    ],
)
def test_service_url(given_url: str, service: str) -> None:
    assert service_url(given_url) == service
    assert service_url(service) == service


@pytest.mark.parametrize(
    "given_url",
    [
        "",
        "ftp://hub.example.org",
        "https://",
        "https://ada:secret@hub.example.org",
        "https://hub.example.org:port",
        "https://hub.example.org:99999",
        "javascript://hub.example.org",
        "https://hub example.org",
        "https://hub.example.org/\x1b[2J",
        "https://[::1",
    ],
)
def test_what_is_no_address_is_refused(given_url: str) -> None:
    with pytest.raises(ConfigError):
        service_url(given_url)


@given(st.text())
def test_any_text_is_an_address_of_one_host_or_refused(text: str) -> None:
    try:
        url = service_url(text)
    except ConfigError:
        return
    parts = urlsplit(url)
    assert parts.scheme in ("http", "https")
    assert parts.hostname
    assert "@" not in parts.netloc
    assert service_url(url) == url


@pytest.mark.parametrize(
    ("service", "hub"),
    [(HUB, "https://hub.example.org"), ("http://h:1/base/services/gpudev", "http://h:1/base")],
)
def test_hub_url(service: str, hub: str) -> None:
    assert hub_url(service) == hub


STORED = Stored(HUB, {HUB: "stored", OTHER: "stored-other"})
ENVIRONMENT = {"GPUDEV_URL": "https://other.example.org", "GPUDEV_TOKEN": "env"}
SERVER = {"GPUDEV_URL": OTHER, "JUPYTERHUB_API_TOKEN": "server"}


@pytest.mark.parametrize(
    ("environ", "stored", "url", "token", "expected"),
    [
        ({}, STORED, None, None, (HUB, "stored")),
        ({}, STORED, "https://other.example.org", None, (OTHER, "stored-other")),
        ({}, Stored(), "https://hub.example.org", None, (HUB, None)),
        (ENVIRONMENT, STORED, None, None, (OTHER, "env")),
        (ENVIRONMENT, STORED, None, "given", (OTHER, "given")),
        (ENVIRONMENT, STORED, HUB, None, (HUB, "stored")),
        (ENVIRONMENT, Stored(), HUB, None, (HUB, None)),
        ({"GPUDEV_TOKEN": "env"}, STORED, None, None, (HUB, "env")),
        (SERVER, STORED, None, None, (OTHER, "server")),
        (SERVER | {"GPUDEV_TOKEN": "env"}, STORED, None, None, (OTHER, "env")),
        (SERVER, STORED, HUB, None, (HUB, "stored")),
        ({"JUPYTERHUB_API_TOKEN": "server"}, STORED, None, None, (HUB, "stored")),
        ({"JUPYTERHUB_API_TOKEN": "server"}, Stored(HUB), None, None, (HUB, None)),
        ({"GPUDEV_URL": "", "GPUDEV_TOKEN": ""}, STORED, None, None, (HUB, "stored")),
    ],
)
def test_a_token_goes_only_where_it_belongs(
    environ: dict[str, str],
    stored: Stored,
    url: str | None,
    token: str | None,
    expected: tuple[str, str | None],
) -> None:
    settings = resolve(environ, stored, url, token)
    assert (settings.url, settings.token) == expected
    assert "stored" not in repr(settings).replace("stored_", "")


def test_no_address_says_how_to_get_one() -> None:
    with pytest.raises(ConfigError, match="gpu-dev login"):
        resolve({"GPUDEV_TOKEN": "env"}, Stored())


def test_the_file_keeps_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "new" / "config.json"
    assert config.read(file) == Stored()
    config.write(file, STORED)
    assert config.read(file) == STORED
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    config.write(file, config.read(file).with_login(OTHER, "newer"))
    assert config.read(file).tokens == {HUB: "stored", OTHER: "newer"}
    assert config.read(file).url == OTHER
    assert [path.name for path in file.parent.iterdir()] == ["config.json"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o622])
def test_a_token_that_others_can_reach_is_not_used(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "config.json"
    config.write(file, STORED)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {file}"):
        config.read(file)


def test_a_file_without_tokens_may_be_open(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    config.write(file, Stored(HUB))
    file.chmod(0o644)
    assert config.read(file) == Stored(HUB)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 2}', '{"format": 1, "tokens": {"a": 1}}', "\0", "null"]
)
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match="damaged"):
        config.read(file)


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.json"
    config.write(file, STORED)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        config.write(file, Stored())
    assert config.read(file) == STORED
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    config.write(real, Stored())
    link.symlink_to(real)
    config.write(link, STORED)
    assert link.is_symlink()
    assert config.read(real) == STORED
