"""The way to the Hub through a network's own proxy."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from gpudev_client.ssh.config import _OPTIONS
from gpudev_client.ssh.problems import Problem
from gpudev_client.ssh.proxies import proxy_for
from gpudev_lab.sshd import relay

from .connect_proxy import ConnectProxy
from .site import HOST, Person, Site, TlsSite

WAYS = [{}, {"fdpass": False}, {"frames": True}]
#: Base64 of `ad a:p@ss`.
LOGIN = "Basic YWQgYTpwQHNz"


@pytest.fixture
def behind(ada: Person) -> Iterator[Person]:
    """Somebody whose environment the test may fill."""
    kept = dict(ada.extra)
    yield ada
    ada.extra = kept


@pytest.mark.ssh
@pytest.mark.parametrize("way", WAYS)
def test_every_byte_through_a_proxy(behind: Person, site: Site, way: dict[str, Any]) -> None:
    data = bytes(range(256)) * 20_000
    with ConnectProxy(LOGIN) as proxy:
        behind.extra = {"HTTP_PROXY": f"http://ad%20a:p%40ss@{proxy.netloc}"}
        done = behind.ssh("cat; exit 8", stdin=data, **way)
        assert (done.returncode, done.stderr) == (8, b"")
        assert done.stdout == data
        assert set(proxy.asked) == {f"127.0.0.1:{site.public}"}


@pytest.mark.ssh
def test_with_tls_through_a_proxy() -> None:
    site = TlsSite()
    try:
        site.start()
        ada = site.person("ada")
        site.admit(ada)
        with ConnectProxy() as proxy:
            ada.extra["https_proxy"] = proxy.netloc
            done = ada.ssh("cat", stdin=b"in")
            assert (done.stdout, done.stderr) == (b"in", b"")
            assert set(proxy.asked) == {f"127.0.0.1:{site.public}"}
    finally:
        site.remove()


@pytest.mark.ssh
@pytest.mark.parametrize("frames", [False, True], ids=["by-ssh", "by-the-server"])
def test_a_session_in_which_nothing_happens_is_never_silent(
    behind: Person, site: Site, frames: bool
) -> None:
    """A proxy that cuts connections without data has data both ways: ssh's own questions, or the
    server's pings where the WebSocket has ordinary frames. Here they come more often."""
    site.control(ping_every=0.3 if frames else relay.PING_EVERY)
    with ConnectProxy() as proxy:
        behind.extra = {"HTTP_PROXY": proxy.netloc}
        if frames:
            behind.extra["GPUDEV_SSH_FRAMES"] = "1"
        interval = f"ServerAliveInterval={0 if frames else 1}"
        idle = subprocess.Popen(
            behind.command("-o", interval, HOST, "echo begun; exec cat"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=behind.environment,
        )
        try:
            assert idle.stdout is not None
            assert idle.stdout.readline() == b"begun\n"
            for _ in range(2):
                _await_data_each_way(site, proxy)
            out, _ = idle.communicate(b"still there", timeout=30)
        finally:
            idle.kill()
            site.control(ping_every=relay.PING_EVERY)
        assert (idle.returncode, out) == (0, b"still there")


def _await_data_each_way(site: Site, proxy: ConnectProxy) -> None:
    up, down = proxy.up, proxy.down
    site.until(lambda: proxy.up > up and proxy.down > down, "a sign of life each way")


def test_signs_of_life_come_before_usual_proxies_cut() -> None:
    """nginx cuts after 60 seconds without data, and is among the most impatient."""
    [interval] = [value for name, value in _OPTIONS if name == "ServerAliveInterval"]
    assert float(interval) <= relay.PING_EVERY <= 60 / 2


@pytest.mark.ssh
def test_who_is_excepted_is_reached_directly(behind: Person) -> None:
    with ConnectProxy() as proxy:
        behind.extra = {"HTTP_PROXY": proxy.netloc, "NO_PROXY": "example.org, 127.0.0.0/8"}
        assert behind.ssh("echo in").stdout == b"in\n"
        assert proxy.asked == []


@pytest.mark.ssh
@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "does not let connections"), (407, "asks who you are"), (504, "did not reach")],
)
def test_a_proxy_that_does_not_let_it_through_is_said(
    behind: Person, status: int, said: str
) -> None:
    with ConnectProxy(status=status) as proxy:
        behind.extra = {"HTTP_PROXY": f"http://ada:very-secret@{proxy.netloc}"}
        done = behind.ssh("true")
    assert done.returncode == 255
    [line] = [one for one in done.stderr.decode().splitlines() if one.startswith("gpu-dev: ")]
    assert said in line
    assert proxy.netloc in line
    assert "very-secret" not in done.stderr.decode()


@pytest.mark.ssh
def test_a_proxy_that_is_away_is_said(behind: Person) -> None:
    behind.extra = {"ALL_PROXY": "127.0.0.1:9"}
    done = behind.ssh("true")
    assert b"The proxy 127.0.0.1:9 (ALL_PROXY) cannot be reached" in done.stderr


def found(environ: dict[str, str], host: str = "hub.example.org", tls: bool = True) -> str | None:
    proxy = proxy_for(tls, host, 443 if tls else 80, environ)
    return None if proxy is None else str(proxy)


def test_which_variable_counts() -> None:
    both = {"HTTPS_PROXY": "http://s:1", "HTTP_PROXY": "http://p:2", "ALL_PROXY": "http://a:3"}
    assert found(both) == "s:1"
    assert found(both, tls=False) == "p:2"
    assert found({"all_proxy": "http://a:3/"}) == "a:3"
    assert found({"HTTPS_PROXY": "http://upper:1", "https_proxy": "lower"}) == "lower:80"
    assert found({"HTTPS_PROXY": "http://[::1]:8"}) == "::1:8"
    assert found({"HTTP_PROXY": "http://p:2", "HTTPS_PROXY": " "}) is None


@pytest.mark.parametrize(
    ("exceptions", "host", "direct"),
    [
        ("*", "hub.example.org", True),
        ("example.org", "hub.example.org", True),
        (".example.org", "HUB.example.org", True),
        ("*.example.org", "hub.example.org", True),
        ("ample.org", "hub.example.org", False),
        ("hub.example.org:443", "hub.example.org", True),
        ("hub.example.org:80", "hub.example.org", False),
        ("other,, hub.example.org ", "hub.example.org", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "hub.example.org", False),
        ("nonsense/8", "10.1.2.3", False),
        ("::1", "::1", True),
        ("[::1]:443", "::1", True),
        ("", "hub.example.org", False),
    ],
)
def test_who_is_excepted(exceptions: str, host: str, direct: bool) -> None:
    environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": exceptions}
    assert (found(environ, host) is None) is direct


@pytest.mark.parametrize(
    "url", ["socks5://p:1", "https://p:1", "http://", "http://p:x", "p\N{OGHAM SPACE MARK}:1"]
)
def test_what_is_no_proxy_for_us_is_said(url: str) -> None:
    with pytest.raises(Problem, match="HTTPS_PROXY"):
        found({"HTTPS_PROXY": url})
